"""Priors of the classes of a generator, for a search that chooses a class for each image."""

from __future__ import annotations

from torch import Tensor, nn

from gan_lightning.errors import InputError
from gan_lightning.networks.conditional import ConditionalGenerator, numbered
from gan_lightning.networks.stylegan2 import StyleGAN2Generator
from gan_lightning.networks.stylegan2_prior import LatentSpace, PlainGenerator, StyleGAN2Prior, as_prior

SEARCH = "search"  # replaces a label
KEPT = 32  # number of priors that are kept, with the results of their analysis; each takes the memory of 3 generators

Label = int | str


class ClassPriors(nn.Module):
    """Priors of the classes of a generator; called as a prior itself, it is that of the first class.

    Attributes:
        names: Names of the classes, by label.
    """

    def __init__(self, generator: ConditionalGenerator | StyleGAN2Generator, space: LatentSpace | None = None) -> None:
        """Build the prior of the first class.

        Args:
            generator: Generator with classes. It is not modified.
            space: Space of the search, for a StyleGAN2.

        Raises:
            InputError: If the generator has no classes, or no such space.
        """
        super().__init__()
        if isinstance(generator, StyleGAN2Generator):
            self.names = numbered(generator.label_dim)
        else:
            self.names = generator.class_names
        if not self.names:
            raise InputError("label is search, but this generator has no classes: leave label out")
        self.generator, self.space = generator, space
        self._kept: dict[int, PlainGenerator | StyleGAN2Prior] = {}  # not registered as modules
        first = self.of_class(0)
        self.image_size, self.channels, self.latent_dim = first.image_size, first.channels, first.latent_dim
        if isinstance(first, StyleGAN2Prior):  # its additional methods for searches
            self.space, self.noise_sizes, self.num_filters = first.space, first.noise_sizes, first.num_filters

    def of_class(self, label: int) -> PlainGenerator | StyleGAN2Prior:
        """Return the prior of a class, on the device of the generator; the latest ones are kept."""
        device = next(self.generator.parameters()).device
        prior = self._kept.pop(label, None)
        if prior is None or next(prior.parameters()).device != device:
            if isinstance(self.generator, StyleGAN2Generator):
                prior = StyleGAN2Prior(self.generator, self.space or "w", label)
            else:
                prior = self.generator.of_class(label)
            prior = prior.requires_grad_(False).to(device)
        self._kept[label] = prior
        if len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]
        return prior

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (B, latent_dim) to images (B,C,H,W) of the first class."""
        images: Tensor = self.of_class(0)(latents)
        return images

    def named(self, labels: Tensor) -> list[str]:
        """Return the names of labels (B,)."""
        return [self.names[label] for label in labels.tolist()]


def as_priors(
    generator: PlainGenerator | StyleGAN2Generator, space: LatentSpace | None = None, label: Label | None = None
) -> PlainGenerator | StyleGAN2Prior | ClassPriors:
    """Return a generator as a prior, or as the priors of all of its classes if the label is "search".

    Args:
        generator: Generator.
        space: Space of the search, for a StyleGAN2.
        label: Class of the images, for a generator with classes, or "search".

    Raises:
        InputError: If the generator has no such space or class.
    """
    if label == SEARCH and isinstance(generator, ConditionalGenerator | StyleGAN2Generator):
        if space not in (None, "z") and isinstance(generator, ConditionalGenerator):
            as_prior(generator, space)  # raises
        return ClassPriors(generator, space)
    return as_prior(generator, space, label)
