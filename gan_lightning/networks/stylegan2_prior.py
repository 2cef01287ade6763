"""StyleGAN2 as a prior of latent inversion, over its latents z, its w, or one w for each layer (w+)."""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from gan_lightning.errors import InputError
from gan_lightning.networks.conditional import MANY, ConditionalGenerator
from gan_lightning.networks.dcgan import Generator
from gan_lightning.networks.modern import ModernGenerator
from gan_lightning.networks.residual import ResidualGenerator
from gan_lightning.networks.stylegan2 import StyleGAN2Generator
from gan_lightning.networks.stylegan2_synthesis import NoiseMode, SynthesisLayer, ToRGB

LatentSpace = Literal["z", "w", "w+"]

SAMPLES = 8192  # number of draws of w for its mean and spread


PlainGenerator = Generator | ResidualGenerator | ModernGenerator  # generators whose only space is z


def as_prior(
    generator: PlainGenerator | StyleGAN2Generator, space: LatentSpace | None = None, label: int | str | None = None
) -> PlainGenerator | StyleGAN2Prior:
    """Return a generator as a prior: a StyleGAN2 in one of its spaces, by default w, any other one unchanged.

    A DCGAN with classes becomes a generator of the given class.

    Args:
        generator: Generator.
        space: Space of the search, for a StyleGAN2.
        label: Class of the images, for a generator with classes: its number or, for a DCGAN, its name.

    Raises:
        InputError: If the generator has no such space or class.
    """
    if isinstance(generator, StyleGAN2Generator):
        if isinstance(label, str):
            raise InputError(f"label is {label!r}, but the classes of a StyleGAN2 have no names: give a number")
        return StyleGAN2Prior(generator, space or "w", label)
    if space not in (None, "z"):
        raise InputError(f"space is {space}, but the generator is a DCGAN, which has z alone: leave space out")
    if isinstance(generator, ConditionalGenerator):
        if label is None:
            classes = ", ".join(generator.class_names[:MANY])
            raise InputError(
                f"this generator has {generator.num_classes} classes: set label to one of {classes}, or to search"
            )
        return generator.of_class(str(label))  # a class may be called 3, and be the second one
    if label is not None:
        raise InputError(f"label is {label}, but the generator is a DCGAN without classes: leave label out")
    return generator


class StyleGAN2Prior(nn.Module):
    """Map from the latents of a search to images, for `invert`.

    In the spaces w and w+, a latent is the distance from the mean of w in units of its spread, the root of the mean
    square over all elements: zero is the mean, and latents of random images have mean square one. Therefore
    `latent_weight` does not depend on the scale of w. The refinement of features (`refine="features"`) searches w+ from
    the result of the first search.

    Attributes:
        latent_dim: Length of a latent: that of z, of w, or `num_ws` times that of w.
        mean: (w_dim,) mean of w.
        spread: Root mean square distance of the elements of w from their means, a scalar.
        noise_sizes: Height and width of the noise map of each layer; none without noise.
    """

    mean: Tensor
    spread: Tensor

    def __init__(
        self,
        generator: StyleGAN2Generator,
        space: LatentSpace = "w",
        label: int | None = None,
        noise_mode: Literal["const", "none"] = "const",
    ) -> None:
        """Measure the mean and the spread of w.

        Args:
            generator: Generator. It is not modified.
            space: "z", "w" or "w+".
            label: Class of the images, for a generator with classes.
            noise_mode: Noise of the images: that of the buffers ("const"), or "none".

        Raises:
            InputError: If the space or the noise mode is unknown, or the label is missing or not a class.
        """
        super().__init__()
        for name, value, choices in (
            ("space", space, get_args(LatentSpace)),
            ("noise_mode", noise_mode, ("const", "none")),
        ):
            if value not in choices:
                raise InputError(f"{name} {value!r} is unknown: choose one of {', '.join(choices)}")
        classes = generator.label_dim
        if classes and label is None:
            raise InputError(f"this generator has {classes} classes: set label to a number from 0 to {classes - 1}")
        if label is not None and not 0 <= label < classes:
            raise InputError(f"label is {label}, but this generator has {classes} classes")
        self.generator, self.space, self.label = generator, space, label
        self.noise_mode: Literal["const", "none"] = noise_mode
        self.image_size, self.channels = generator.image_size, generator.channels
        self.num_ws, self.w_dim = generator.synthesis.num_ws, generator.synthesis.w_dim
        self.latent_dim = {"z": generator.latent_dim, "w": self.w_dim, "w+": self.num_ws * self.w_dim}[space]
        layers = generator.synthesis.layers() if noise_mode == "const" else []
        self.noise_sizes = tuple(layer.size for layer in layers)
        with torch.no_grad():
            w = self._map(torch.randn(SAMPLES, generator.latent_dim, generator=torch.Generator().manual_seed(0)))
        self.register_buffer("mean", w.mean(0))
        self.register_buffer("spread", w.var(0).mean().sqrt())

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (B, latent_dim) to images (B,C,H,W), about [-1, 1]."""
        return self.render(self.features(latents))

    def features(self, latents: Tensor) -> Tensor:
        """Map latents (B, latent_dim) to those of w+, (B, num_ws * w_dim)."""
        if self.space == "z":
            latents = self._normalize(self._map(latents))
        return latents if self.space == "w+" else latents.repeat(1, self.num_ws)

    def render(self, features: Tensor, noise: Tensor | None = None) -> Tensor:
        """Map latents of w+ (B, num_ws * w_dim) to images (B,C,H,W), about [-1, 1].

        Args:
            features: Latents of w+.
            noise: (B,N) noise maps of each image, flat and concatenated, instead of those of `noise_mode`.
        """
        ws = self.mean + self.spread * features.view(len(features), self.num_ws, self.w_dim)
        mode: NoiseMode | list[Tensor] = self.noise_mode
        if noise is not None:
            maps = torch.split(noise, [size * size for size in self.noise_sizes], 1)
            mode = [part.view(-1, 1, size, size) for part, size in zip(maps, self.noise_sizes, strict=True)]
        images: Tensor = self.generator.synthesis(ws, noise_mode=mode)
        return images

    def render_filters(self, features: Tensor, shifts: Tensor) -> Tensor:
        """Map latents of w+ (B, num_ws * w_dim), and those of each filter, to images (B,C,H,W), about [-1, 1].

        Args:
            features: Latents of w+.
            shifts: (B,F) distances of the latent of each input channel of each convolution from that of its layer,
                along the vector with which the channel multiplies it, and in the units of latents.
        """
        ws = self.mean + self.spread * features.view(len(features), self.num_ws, self.w_dim)
        styles = self.generator.synthesis.styles(ws)
        changes = torch.split(self.spread * self._slopes() * shifts, [style.shape[1] for style in styles], 1)
        moved = [style + change for style, change in zip(styles, changes, strict=True)]
        images: Tensor = self.generator.synthesis.from_styles(moved, noise_mode=self.noise_mode)
        return images

    @property
    def num_filters(self) -> int:
        """Number of input channels of all convolutions, F."""
        return len(self._slopes())

    def _slopes(self) -> Tensor:
        """Return (F,), the derivative of the style of each filter by its shift."""
        slopes = []
        for block in self.generator.synthesis.blocks():
            layers: list[SynthesisLayer | ToRGB] = [*block.layers(), block.torgb]
            for layer in layers:
                slopes.append(layer.affine.gain * layer.affine.weight.norm(dim=1) * getattr(layer, "gain", 1.0))
        return torch.cat(slopes)

    def noise(self) -> Tensor:
        """Return the noise maps of the buffers, flat and concatenated: (N,)."""
        return torch.cat([layer.noise_const.flatten() for layer in self.generator.synthesis.layers()])

    def ws(self, latents: Tensor) -> Tensor:
        """Map latents (B, latent_dim) to the input of `synthesis`, (B, num_ws, w_dim)."""
        return self.mean + self.spread * self.features(latents).view(len(latents), self.num_ws, self.w_dim)

    def draw(self, count: int, rng: torch.Generator) -> Tensor:
        """Return the latents (count, latent_dim) of random images, a function of the state of `rng` on the CPU."""
        z = torch.randn(count, self.generator.latent_dim, generator=rng).to(self.mean)
        if self.space == "z":
            return z
        latents = self._normalize(self._map(z))
        return latents if self.space == "w" else latents.repeat(1, self.num_ws)

    def _normalize(self, w: Tensor) -> Tensor:
        return (w - self.mean) / self.spread

    def _map(self, z: Tensor) -> Tensor:
        """Map z (B, z_dim) to w (B, w_dim) without updating the average of w, even in training."""
        mapping = self.generator.mapping
        weight = next(mapping.parameters())
        labels = None if self.label is None else torch.full((len(z),), self.label, device=weight.device)
        was_training = mapping.training
        try:
            return cast(Tensor, mapping.eval()(z.to(weight), labels)[:, 0])
        finally:
            mapping.train(was_training)
