"""Learning rate and noise of the projector of StyleGAN2 (Karras et al. 2020, arXiv 1912.04958, appendix D)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gan_lightning.seeding import image_rng

RAMP_UP = 0.05  # fraction of the steps at the start, over which the rate rises
RAMP_DOWN = 0.25  # fraction of the steps at the end, over which it falls
NOISE = 0.05 * math.sqrt(512)  # initial noise, in units of the spread of the latents; in the paper it is for all of w
NOISE_ENDS = 0.75  # fraction of the steps after which no noise is added


def rate_factor(progress: float) -> float:
    """Return the learning rate relative to its largest value, after a fraction `progress` of the steps."""
    down = min(1.0, (1 - progress) / RAMP_DOWN)
    return 0.5 * (1 - math.cos(math.pi * down)) * min(1.0, progress / RAMP_UP)


class RateRamps:
    """A learning rate that rises and falls, and noise that is added to latents and decays.

    The noise of a search depends on the seed, the index of the image and the number of the search, not on the batch.

    Args:
        latent_dim: Length of the latents; variables after them get no noise.
        seed: Seed of the noise.
        searches: Index of each image in its data set, and number of the search.
        attempt: 0, or the number of the restart.
    """

    def __init__(self, latent_dim: int, seed: int, searches: Sequence[tuple[int, int]], attempt: int) -> None:
        self.latent_dim = latent_dim
        self._rngs = [image_rng(seed, index, f"ramps {attempt} of search {number}") for index, number in searches]

    def select(self, rows: Tensor) -> None:
        """Keep only some images of the batch."""
        self._rngs = [self._rngs[row] for row in rows.tolist()]

    def explore(self, variables: Tensor, progress: float) -> Tensor:
        """Add the noise of a step to the latents, which are the first of the variables (B,D)."""
        strength = NOISE * max(0.0, 1 - progress / NOISE_ENDS) ** 2
        if not strength:
            return variables
        noise = torch.zeros(variables.shape)
        for row, rng in enumerate(self._rngs):
            noise[row, : self.latent_dim] = torch.randn(self.latent_dim, generator=rng)
        return variables + strength * noise.to(variables)
