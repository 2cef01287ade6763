"""Residual and modern networks built from state dicts: the architecture is inferred from names and shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

from gan_lightning.errors import InputError
from gan_lightning.networks.dcgan import DiscriminatorNormalization, GeneratorNormalization
from gan_lightning.networks.modern import NARROWING, ModernDiscriminator, ModernGenerator
from gan_lightning.networks.residual import ResidualDiscriminator, ResidualGenerator

FIRST_RESIDUAL = "dense.weight"  # identifies the state dict of a generator
FIRST_MODERN = "basis.maps"
SPECTRAL = ".parametrizations.weight.original"

State = Mapping[str, Tensor]
NetworkT = TypeVar("NetworkT", bound=nn.Module)


def build_residual_generator(state: State) -> ResidualGenerator | None:
    """Build the generator that a state dict describes, with its weights; None if it describes another."""

    def build() -> ResidualGenerator:
        base_channels = state["last.weight"].shape[1]
        return ResidualGenerator(
            4 * 2 ** _count(state, "blocks."),
            state["last.weight"].shape[0],
            state[FIRST_RESIDUAL].shape[1],
            base_channels,
            _normalization(state),
            max_width=len(state[FIRST_RESIDUAL]) // 16 // base_channels,
        )

    return _filled(build, state)


def build_residual_discriminator(state: State) -> ResidualDiscriminator | None:
    """Build the discriminator that a state dict describes, with its weights; None if it describes another."""
    spectral = any(name.endswith(SPECTRAL) for name in state)
    end = SPECTRAL if spectral else ".weight"

    def build() -> ResidualDiscriminator:
        base_channels, channels = state[f"blocks.0.conv0{end}"].shape[:2]
        normalization: DiscriminatorNormalization = "spectral" if spectral else _normalization(state)
        return ResidualDiscriminator(
            2 * 2 ** _count(state, "blocks."),
            channels,
            base_channels,
            normalization,
            max_width=state[f"head{end}"].shape[1] // base_channels,
        )

    return _filled(build, state)


def build_modern_generator(state: State) -> ModernGenerator | None:
    """Build the generator that a state dict describes, with its weights; None if it describes another."""

    def build() -> ModernGenerator:
        sizes = _count(state, "stages.")
        width, latent_dim = state["basis.scale.weight"].shape
        return ModernGenerator(2 * 2**sizes, state["last.weight"].shape[0], latent_dim, _base_channels(width, sizes))

    return _filled(build, state)


def build_modern_discriminator(state: State) -> ModernDiscriminator | None:
    """Build the discriminator that a state dict describes, with its weights; None if it describes another."""

    def build() -> ModernDiscriminator:
        sizes = _count(state, "stages.")
        width = state["head.weight"].shape[1]
        return ModernDiscriminator(2 * 2**sizes, state["first.weight"].shape[1], _base_channels(width, sizes))

    return _filled(build, state)


def _filled(build: Callable[[], NetworkT], state: State) -> NetworkT | None:
    try:
        network = build()
        network.load_state_dict(dict(state))
    except (InputError, RuntimeError, KeyError, IndexError, ValueError, ZeroDivisionError):
        return None
    return network


def _count(state: Mapping[str, Any], prefix: str) -> int:
    return len({name.split(".")[1] for name in state if name.startswith(prefix)})


def _normalization(state: State) -> GeneratorNormalization:
    if "norm.running_mean" in state:
        return "batch"
    return "group" if "norm.weight" in state else "none"


def _base_channels(width: int, sizes: int) -> int:
    """Return `base_channels`, computed from the width at 4 pixels, which is not rounded."""
    return width * NARROWING >> (sizes - 1)
