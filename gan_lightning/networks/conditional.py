"""The networks of DCGAN for images of several classes.

The generator scales and shifts each channel depending on the class (conditional batch normalization: Dumoulin et al.
2017; de Vries et al. 2017), the discriminator adds the projection of its features on an embedding of the class (Miyato
and Koyama 2018). For a fixed class, the generator is an ordinary `Generator`: see `ConditionalGenerator.of_class`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gan_lightning.errors import InputError
from gan_lightning.networks.dcgan import (
    LAYERS_PER_BLOCK,
    Discriminator,
    DiscriminatorNormalization,
    Generator,
    GeneratorNormalization,
)

SPREAD = 0.5  # of the initial shifts; with equal ones, a generator takes twice as long to distinguish classes
MANY = 20  # maximum number of class names that a message lists


class ClassNormalization(nn.Module):
    """Normalization, followed by a scale and shift of each channel that depend on the class."""

    def __init__(self, normalization: nn.Module, num_classes: int, channels: int) -> None:
        """Build the layer, with scales drawn from N(1, 0.02) and shifts from N(0, 0.5).

        Args:
            normalization: Normalization without scale and shift, or the identity.
            num_classes: Number of classes.
            channels: Number of channels.
        """
        super().__init__()
        self.normalization = normalization
        self.weight = nn.Parameter(torch.empty(num_classes, channels).normal_(1.0, 0.02))
        self.bias = nn.Parameter(torch.empty(num_classes, channels).normal_(0.0, SPREAD))

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map features (B,C,H,W) of images with these labels (B,) to features (B,C,H,W)."""
        scale, shift = (nn.functional.embedding(given(labels, self), table) for table in (self.weight, self.bias))
        features = self.normalization(features)
        scaled = features * scale[:, :, None, None] + shift[:, :, None, None]
        return scaled.to(features.dtype)  # computed in float32, like normalization under autocast

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.weight)


class ConditionalGenerator(Generator):
    """Map from latents and labels to images; the layers are those of `Generator`, normalized by class.

    Attributes:
        num_classes: Number of classes.
        class_names: Names of the classes, by label.
        class_counts: (num_classes,) int64, number of training images of each class, if known: labels of random images
            are drawn in proportion to it.
    """

    class_counts: Tensor

    def __init__(
        self,
        num_classes: int,
        image_size: int = 64,
        channels: int = 3,
        latent_dim: int = 100,
        base_channels: int = 64,
        normalization: GeneratorNormalization = "batch",
    ) -> None:
        """Build the network.

        Args:
            num_classes: Number of classes, at least 2.
            image_size: As for `Generator`.
            channels: As for `Generator`.
            latent_dim: As for `Generator`.
            base_channels: As for `Generator`.
            normalization: As for `Generator`.

        Raises:
            InputError: If a value is unsupported.
        """
        check_classes(num_classes)
        if normalization == "group":  # its scales would be those of classes, and a state dict not tell it from "none"
            raise InputError("a generator with classes has no group normalization: choose batch or none")
        super().__init__(image_size, channels, latent_dim, base_channels, normalization)
        self.num_classes, self.class_names = num_classes, numbered(num_classes)
        self._options = image_size, channels, latent_dim, base_channels, normalization
        for index in range(1, len(self.main) - 2, LAYERS_PER_BLOCK):
            convolution: Any = self.main[index - 1]
            width = convolution.out_channels
            plain = nn.BatchNorm2d(width, affine=False) if normalization == "batch" else nn.Identity()
            self.main[index] = ClassNormalization(plain, num_classes, width)
        self.register_buffer("class_counts", torch.ones(num_classes, dtype=torch.int64))

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map latents (B, latent_dim) and labels (B,) to images (B,C,H,W) in [-1, 1].

        Raises:
            InputError: If there are no labels.
        """
        labels = given(labels, self)
        features = latents.reshape(latents.shape[0], -1, 1, 1)
        for layer in self.main:
            features = layer(features, labels) if isinstance(layer, ClassNormalization) else layer(features)
        return features

    def draw_labels(self, count: int, rng: torch.Generator | None = None) -> Tensor:
        """Draw labels (count,) as often as they occur in the training data, on the device of the random generator."""
        weights = self.class_counts.double()
        return torch.multinomial(weights.to(rng.device if rng else weights.device), count, True, generator=rng)

    @torch.no_grad()
    def of_class(self, label: int | str) -> Generator:
        """Return a copy that generates images of one class: an ordinary `Generator`, in evaluation mode.

        Args:
            label: Number of the class, or its name.

        Raises:
            InputError: If there is no such class.
        """
        number = find_label(label, self.class_names)
        state = {name: value.clone() for name, value in self.state_dict().items() if name != "class_counts"}
        for index in range(1, len(self.main) - 2, LAYERS_PER_BLOCK):
            before, here, prefix = f"main.{index - 1}", f"main.{index}", f"main.{index}.normalization."
            scale, shift = state.pop(f"{here}.weight")[number], state.pop(f"{here}.bias")[number]
            inner = [name for name in state if name.startswith(prefix)]
            state |= {f"{here}.{name.removeprefix(prefix)}": state.pop(name) for name in inner}
            if inner:
                state |= {f"{here}.weight": scale, f"{here}.bias": shift}
            else:  # without normalization, scale and shift are merged into the convolution
                state[f"{before}.weight"] = state[f"{before}.weight"] * scale[:, None, None]
                state[f"{before}.bias"] = state[f"{before}.bias"] * scale + shift
        with torch.device("meta"):  # draws no random weights
            generator = Generator(*self._options)
        generator.load_state_dict(state, assign=True)
        return generator.requires_grad_(False).eval()


class ConditionalDiscriminator(Discriminator):
    """Map from images and labels to logits: those of `Discriminator`, and the projection of the features by class.

    Attributes:
        num_classes: Number of classes.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: int = 64,
        channels: int = 3,
        base_channels: int = 64,
        normalization: DiscriminatorNormalization = "batch",
    ) -> None:
        """Build the network.

        Args:
            num_classes: Number of classes, at least 2.
            image_size: As for `Discriminator`.
            channels: As for `Discriminator`.
            base_channels: As for `Discriminator`.
            normalization: As for `Discriminator`.

        Raises:
            InputError: If a value is unsupported.
        """
        check_classes(num_classes)
        super().__init__(image_size, channels, base_channels, normalization)
        self.num_classes = num_classes
        last: Any = self.main[-1]
        self.classes = nn.Embedding(num_classes, last.weight[0].numel())
        nn.init.normal_(self.classes.weight, 0.0, 0.02)
        if normalization == "spectral":
            spectral_norm(self.classes)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map images (B,C,H,W) in [-1, 1] and labels (B,) to logits (B,): positive means real and of that class.

        Raises:
            InputError: If there are no labels.
        """
        vectors = self.classes(given(labels, self))
        *layers, last = self.main
        features = images
        for layer in layers:
            features = layer(features)
        projection = (features.flatten(1).float() * vectors).sum(1)
        logits: Tensor = last(features).flatten() + projection
        return logits


def check_classes(num_classes: int) -> None:
    """Check the number of classes of a network.

    Raises:
        InputError: If there are fewer than two.
    """
    if num_classes < 2:
        raise InputError(f"num_classes is {num_classes}: set it to 2 or more, or to 0 for a model without labels")


def given(labels: Tensor | None, network: nn.Module) -> Tensor:
    """Return the labels that a network was given.

    Raises:
        InputError: If it was given none.
    """
    if labels is None:
        raise InputError(
            f"this {type(network).__name__} has {network.num_classes} classes: pass labels as the second argument; "
            "generator.of_class(label) generates images of one class without labels"
        )
    return labels


def with_labels(network: Callable[..., Tensor], *labels: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a network with fixed labels as a function of its input; without labels, the network itself."""
    return (lambda inputs: network(inputs, *labels)) if labels else network


def labels_in_turn(network: Any, count: int, device: torch.device) -> tuple[Tensor, ...]:
    """Return labels (count,) that cycle through the classes of a network; none if it has no classes.

    The result is a tuple of additional arguments for the network.
    """
    classes = getattr(network, "num_classes", 0)
    return (torch.arange(count, device=device) % classes,) if classes else ()


def numbered(num_classes: int) -> tuple[str, ...]:
    """Return the names of unnamed classes: their numbers."""
    return tuple(map(str, range(num_classes)))


def find_label(label: int | str, names: Sequence[str]) -> int:
    """Return the number of a class.

    Args:
        label: Name of the class, or its number.
        names: Names of all classes.

    Raises:
        InputError: If there is no such class.
    """
    if isinstance(label, str) and label in names:
        return names.index(label)
    number = int(label) if isinstance(label, int) or label.isdecimal() else -1
    if not 0 <= number < len(names):
        some = ", ".join(names[:MANY]) + (f", ... ({len(names)} in all)" if len(names) > MANY else "")
        raise InputError(f"the model has no class {label!r}: choose one of {some}")
    return number
