"""What latent inversion needs of a generator, so that any generator is a prior."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


class Prior(Protocol):
    """A `torch.nn.Module` that maps latents to images; `gan_lightning.Generator` is one.

    The latents of the prior have mean zero and mean square one, as those of N(0, 1) have: `latent_weight` is in these
    units, and searches may start at zero. A module whose latents are distributed otherwise offers `DrawsLatents` too.

    Attributes:
        latent_dim: Length D of a latent vector.
    """

    latent_dim: int

    def __call__(self, latents: Tensor, /) -> Tensor:
        """Map latents (B,D) to images (B,C,H,W) in [-1, 1], differentiably and each on its own."""


@runtime_checkable
class DrawsLatents(Protocol):
    """A prior whose latents are not drawn from N(0, 1)."""

    def draw(self, count: int, rng: torch.Generator) -> Tensor:
        """Return random latents (count, D), a function of the state of `rng`, which is on the CPU."""


@runtime_checkable
class HasFeatures(Protocol):
    """A prior that can be searched beyond its range (`refine: features`), because it has two parts.

    `render(features(latents))` are the images of the latents. Features may be of any shape (B,...); the more images
    the second part can make, the closer a photograph is approached. A generator that is laid out as
    `gan_lightning.Generator` is split after its first block without offering it.
    """

    def features(self, latents: Tensor) -> Tensor:
        """Map latents (B,D) to features (B,...)."""

    def render(self, features: Tensor) -> Tensor:
        """Map features (B,...) to images (B,C,H,W) in [-1, 1]."""


@runtime_checkable
class HasFilters(Protocol):
    """A prior over w whose features, one latent for each layer, can be given up for one latent for each filter.

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
    """A prior with features whose images depend on maps of noise too, which a search may optimize beside latents.

    Attributes:
        noise_sizes: Height and width of each map; none if the prior is without noise.
    """

    noise_sizes: tuple[int, ...]

    def noise(self) -> Tensor:
        """Return the maps that are held while nothing else is given, flat and one after the other: (N,)."""

    def render(self, features: Tensor, noise: Tensor | None = None) -> Tensor:
        """Map features (B,...), and the maps of each image (B,N), to images (B,C,H,W) in [-1, 1]."""
