"""The networks by the name of their architecture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

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
class Architecture:
    """Classes of both networks, and the normalizations that each can have, its own first."""

    generator: type[nn.Module]
    discriminator: type[nn.Module]
    of_generator: tuple[GeneratorNormalization, ...]
    of_discriminator: tuple[DiscriminatorNormalization, ...]


ARCHITECTURES: dict[str, Architecture] = {
    "dcgan": Architecture(Generator, Discriminator, ("batch", "group", "none"), ("batch", "group", "spectral", "none")),
    "residual": Architecture(
        ResidualGenerator,
        ResidualDiscriminator,
        ("batch", "group", "none"),
        ("spectral", "batch", "group", "none"),
    ),
    "modern": Architecture(ModernGenerator, ModernDiscriminator, ("none",), ("none",)),
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
    found = _find(architecture, num_classes)
    chosen = _choose(architecture, "generator_normalization", normalization, found.of_generator)
    if num_classes:
        return ConditionalGenerator(num_classes, **sizes, normalization=cast(GeneratorNormalization, chosen))
    return _build(found.generator, chosen, found.of_generator, sizes)


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
    found = _find(architecture, num_classes)
    chosen = _choose(architecture, "discriminator_normalization", normalization, found.of_discriminator)
    if num_classes:
        return ConditionalDiscriminator(num_classes, **sizes, normalization=cast(DiscriminatorNormalization, chosen))
    return _build(found.discriminator, chosen, found.of_discriminator, sizes)


def _find(architecture: str, num_classes: int) -> Architecture:
    if architecture not in ARCHITECTURES:
        raise InputError(f"unknown architecture {architecture!r}: choose one of {', '.join(ARCHITECTURES)}")
    if num_classes and architecture != "dcgan":
        raise InputError(
            f"num_classes is {num_classes}, but the {architecture} networks have no classes: set architecture to dcgan"
        )
    return ARCHITECTURES[architecture]


def _choose(architecture: str, option: str, given: str | None, possible: tuple[str, ...]) -> str:
    if given is not None and given not in possible:
        raise InputError(
            f"{option} is {given}, which the {architecture} networks do not have: choose one of {', '.join(possible)}"
        )
    return given or possible[0]


def _build(network: type[nn.Module], normalization: str, possible: tuple[str, ...], sizes: dict[str, int]) -> nn.Module:
    options: dict[str, Any] = {**sizes}
    if len(possible) > 1:
        options["normalization"] = normalization
    return network(**options)
