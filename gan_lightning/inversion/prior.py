"""Protocols of generators for latent inversion."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


class Prior(Protocol):
    """A `torch.nn.Module` that maps latents to images; `gan_lightning.Generator` is one.

    Latents have mean zero and mean square one, as for N(0, 1): `latent_weight` is in these units, and searches may
    start at zero. A module whose latents have another distribution also implements `DrawsLatents`.

    Attributes:
        latent_dim: Length D of a latent vector.
    """

    latent_dim: int

    def __call__(self, latents: Tensor, /) -> Tensor:
        """Map latents (B,D) to images (B,C,H,W) in [-1, 1], differentiably and independently for each image."""


@runtime_checkable
class DrawsLatents(Protocol):
    """A prior whose latents are not drawn from N(0, 1)."""

    def draw(self, count: int, rng: torch.Generator) -> Tensor:
        """Return random latents (count, D), a function of the state of `rng`, which is on the CPU."""


@runtime_checkable
class HasFeatures(Protocol):
    """A prior that can be searched beyond its range (`refine: features`), because it has two parts.

    `render(features(latents))` are the images of the latents. Features may have any shape (B,...); a second part with a
    larger range gets closer to a photograph. A generator with the layout of `gan_lightning.Generator` is split after
    its first block and does not need to implement this protocol.
    """

    def features(self, latents: Tensor) -> Tensor:
        """Map latents (B,D) to features (B,...)."""

    def render(self, features: Tensor) -> Tensor:
        """Map features (B,...) to images (B,C,H,W) in [-1, 1]."""


@runtime_checkable
class HasFilters(Protocol):
    """A prior over w that accepts one latent for each filter instead of one latent for each layer.

    Attributes:
        space: "w", the space of the latents.
        num_filters: Number F of filters.
    """

    space: str
    num_filters: int

    def render_filters(self, features: Tensor, shifts: Tensor) -> Tensor:
        """Map features (B,...), and the distance of the latent of each filter from them (B,F), to images (B,C,H,W)."""


@runtime_checkable
class HasNoiseMaps(Protocol):
    """A prior with features whose images also depend on noise maps, which a search may optimize.

    Attributes:
        noise_sizes: Height and width of each map; none if the prior is without noise.
    """

    noise_sizes: tuple[int, ...]

    def noise(self) -> Tensor:
        """Return the default maps, flat and concatenated: (N,)."""

    def render(self, features: Tensor, noise: Tensor | None = None) -> Tensor:
        """Map features (B,...), and the maps of each image (B,N), to images (B,C,H,W) in [-1, 1]."""
