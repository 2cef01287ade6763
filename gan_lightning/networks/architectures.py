"""Construction of networks by the name of their architecture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from gan_lightning.errors import InputError
from gan_lightning.networks.conditional import ConditionalDiscriminator, ConditionalGenerator
from gan_lightning.networks.dcgan import (
    Discriminator,
    DiscriminatorNormalization,
    Generator,
    GeneratorNormalization,
)
from gan_lightning.networks.modern import ModernDiscriminator, ModernGenerator
from gan_lightning.networks.residual import ResidualDiscriminator, ResidualGenerator

ArchitectureName = Literal["dcgan", "residual", "modern"]


@dataclass(frozen=True)
class Kind:
    """One of the two networks of an architecture.

    Attributes:
        network: Class of the network.
        normalizations: Supported normalizations, the default first.
        with_classes: Class of the network for images with labels; None if there is none.
    """

    network: type[nn.Module]
    normalizations: tuple[str, ...]
    with_classes: type[nn.Module] | None = None


@dataclass(frozen=True)
class Architecture:
    """Both networks."""

    generator: Kind
    discriminator: Kind


ARCHITECTURES: dict[str, Architecture] = {
    "dcgan": Architecture(
        Kind(Generator, ("batch", "group", "none"), ConditionalGenerator),
        Kind(Discriminator, ("batch", "group", "spectral", "none"), ConditionalDiscriminator),
    ),
    "residual": Architecture(
        Kind(ResidualGenerator, ("batch", "group", "none")),
        Kind(ResidualDiscriminator, ("spectral", "batch", "group", "none")),
    ),
    "modern": Architecture(Kind(ModernGenerator, ("none",)), Kind(ModernDiscriminator, ("none",))),
}


def make_generator(
    architecture: ArchitectureName,
    normalization: GeneratorNormalization | None = None,
    num_classes: int = 0,
    **sizes: int,
) -> nn.Module:
    """Return a generator.

    Args:
        architecture: Name of the architecture.
        normalization: Normalization of the features; None for that of the architecture.
        num_classes: Number of classes; 0 for a generator without labels.
        sizes: image_size, channels, latent_dim, base_channels.

    Raises:
        InputError: If the architecture does not exist, or cannot be built so.
    """
    return _build(architecture, "generator", normalization, num_classes, sizes)


def make_discriminator(
    architecture: ArchitectureName,
    normalization: DiscriminatorNormalization | None = None,
    num_classes: int = 0,
    **sizes: int,
) -> nn.Module:
    """Return a discriminator.

    Args:
        architecture: Name of the architecture.
        normalization: Normalization of the features or weights; None for that of the architecture.
        num_classes: Number of classes; 0 for a discriminator without labels.
        sizes: image_size, channels, base_channels.

    Raises:
        InputError: If the architecture does not exist, or cannot be built so.
    """
    return _build(architecture, "discriminator", normalization, num_classes, sizes)


def _build(
    architecture: str,
    role: Literal["generator", "discriminator"],
    normalization: str | None,
    num_classes: int,
    sizes: dict[str, int],
) -> nn.Module:
    if architecture not in ARCHITECTURES:
        raise InputError(f"unknown architecture {architecture!r}: choose one of {', '.join(ARCHITECTURES)}")
    kind: Kind = getattr(ARCHITECTURES[architecture], role)
    possible, options = kind.normalizations, dict[str, Any](sizes)
    if num_classes and kind.with_classes is None:
        raise InputError(
            f"num_classes is {num_classes}, but the {architecture} networks have no classes: set architecture to dcgan"
        )
    if normalization is not None and normalization not in possible:
        raise InputError(
            f"{role}_normalization is {normalization}, which the {architecture} networks do not have: choose one of "
            f"{', '.join(possible)}"
        )
    if len(possible) > 1:
        options["normalization"] = normalization or possible[0]
    if num_classes and kind.with_classes is not None:
        return kind.with_classes(num_classes, **options)
    return kind.network(**options)
