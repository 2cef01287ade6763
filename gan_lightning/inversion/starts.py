"""Where the search for latents starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gan_lightning.inversion.frozen_generator import FrozenGenerator
from gan_lightning.inversion.problem import Problem
from gan_lightning.seeding import image_rng

StartName = Literal["mean", "random", "best_of_k"]

CANDIDATES = 256  # the k of best_of_k
CHUNK = 64


@dataclass(frozen=True)
class Draws:
    """Random latents: the seed of all draws, and their standard deviation, which is one under the prior."""

    seed: int = 0
    scale: float = 1.0

    def latents(self, count: int, latent_dim: int, index: int, purpose: str) -> Tensor:
        """Draw (count, latent_dim) for one image or purpose, always the same, on the CPU."""
        return self.scale * torch.randn(count, latent_dim, generator=image_rng(self.seed, index, purpose))


def starting_latents(
    start: StartName | Tensor, problem: Problem, latent_dim: int, draws: Draws, indices: Sequence[int], attempt: int = 0
) -> Tensor:
    """Make the latents to start from.

    Args:
        start: "mean" (zeros), "random" (a draw of each image's own), "best_of_k" (of 256 draws, the same for all
            images, the one that explains the image best), or latents (B, latent_dim) of an encoder; see `check_start`.
        problem: What is to be solved.
        latent_dim: Length of the latents.
        draws: Where random latents come from.
        indices: Index of each image in its data set.
        attempt: 0, or the number of the restart, which never starts from the same place again.
    """
    observed = problem.observed
    if isinstance(start, str) and start == "best_of_k":
        return best_of_candidates(problem, latent_dim, draws, attempt)
    if attempt or (isinstance(start, str) and start == "random"):
        own = [draws.latents(1, latent_dim, index, f"start {attempt}") for index in indices]
        return torch.cat(own).to(observed)
    return start.to(observed) if isinstance(start, Tensor) else observed.new_zeros(len(observed), latent_dim)


@torch.no_grad()
def best_of_candidates(problem: Problem, latent_dim: int, draws: Draws, attempt: int) -> Tensor:
    """Return (B, latent_dim): for each image the best of 256 draws, which are rendered once for all images."""
    candidates = draws.latents(CANDIDATES, latent_dim, attempt, "candidates").to(problem.observed)
    rendered = torch.cat([problem.render(chunk) for chunk in torch.split(candidates, CHUNK)])
    chosen = []
    for row in torch.split(torch.arange(len(problem.observed), device=candidates.device), 1):
        one = problem.select(row)
        losses = [
            one.loss(one.degradation(chunk), one.observed.expand(len(chunk), -1, -1, -1))
            for chunk in torch.split(rendered, CHUNK)
        ]
        chosen.append(torch.cat(losses).argmin())
    return candidates[torch.stack(chosen)]


@torch.no_grad()
def draw_images(generator: FrozenGenerator, count: int) -> Tensor:
    """Return (count,C,H,W): images of the generator, always the same."""
    parameter = next(generator.parameters())
    latents = torch.randn(count, generator.latent_dim, generator=image_rng(0, 0, "images")).to(parameter)
    return torch.cat([generator(chunk) for chunk in torch.split(latents, CHUNK)])
