"""Initial latents of the inversion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gan_lightning.degradations.base import Degradation
from gan_lightning.inversion.frozen_generator import FrozenGenerator
from gan_lightning.inversion.problem import Problem
from gan_lightning.inversion.whitening import Draw, images_at_once
from gan_lightning.seeding import image_rng

StartName = Literal["mean", "random", "best_of_k"]

Search = tuple[int, int]  # index of an image in its dataset, number of a search for it

CANDIDATES = 256  # the k of best_of_k
CHUNK = 64


@dataclass(frozen=True)
class LatentSampler:
    """Sampler of random latents from a scaled prior.

    Attributes:
        seed: Seed of all samples.
        scale: Standard deviation of the latents; that of the prior is 1.
        draw: Function that draws latents of the prior. Default: from N(0, 1).
    """

    seed: int = 0
    scale: float = 1.0
    draw: Draw | None = None

    def sample(self, count: int, latent_dim: int, index: int, purpose: str) -> Tensor:
        """Return random latents (count, latent_dim) on the CPU, a function of the seed, the index and the purpose."""
        rng = image_rng(self.seed, index, purpose)
        latents = torch.randn(count, latent_dim, generator=rng) if self.draw is None else self.draw(count, rng).cpu()
        return self.scale * latents


def initial_latents(
    start: StartName | Tensor,
    problem: Problem,
    latent_dim: int,
    sampler: LatentSampler,
    searches: Sequence[Search],
    attempt: int = 0,
) -> Tensor:
    """Return the initial latents of a solver, (B, latent_dim).

    Further searches for an image start from its next best samples, or from random ones.

    Args:
        start: "mean" (zeros), "random" (a sample for each image), "best_of_k" (for each image the one of 256 samples
            with the lowest loss), or latents (B, latent_dim), such as the output of an encoder; see `check_start`.
        problem: Problem to solve.
        latent_dim: Length of the latents.
        sampler: Sampler of random latents.
        searches: Index of each image in its dataset, and number of the search.
        attempt: 0, or the number of the restart. Each attempt uses different random latents.
    """
    observed = problem.observed
    if isinstance(start, str) and start == "best_of_k":
        return best_of_k_latents(problem, latent_dim, sampler, searches, attempt)
    latents = observed.new_zeros(len(observed), latent_dim)
    if isinstance(start, Tensor):
        latents.copy_(start)
    for row, (index, number) in enumerate(searches):
        if attempt or number or (isinstance(start, str) and start == "random"):
            purpose = f"start {attempt}" + f" of search {number}" * bool(number)
            latents[row] = sampler.sample(1, latent_dim, index, purpose)[0]
    return latents


@torch.no_grad()
def best_of_k_latents(
    problem: Problem, latent_dim: int, sampler: LatentSampler, searches: Sequence[Search], attempt: int
) -> Tensor:
    """Return the best of 256 samples for the first search of each image, the next best one for its second, and so on.

    All images share the same samples.
    """
    images = [row if attempt else row - number for row, (_, number) in enumerate(searches)]  # restarts: any row
    places = {image: place for place, image in enumerate(dict.fromkeys(images))}
    candidates, losses = candidate_losses(problem, latent_dim, sampler, list(places), attempt)
    ranked = losses.argsort(dim=1, stable=True)
    numbers = [number % CANDIDATES for _, number in searches]
    return candidates[ranked[[places[image] for image in images], numbers]]


@torch.no_grad()
def candidate_losses(
    problem: Problem, latent_dim: int, sampler: LatentSampler, rows: Sequence[int], attempt: int = 0
) -> tuple[Tensor, Tensor]:
    """Return the 256 samples (K, latent_dim) of an attempt, and their losses (N,K) for N images of the batch."""
    candidates = sampler.sample(CANDIDATES, latent_dim, attempt, "candidates").to(problem.observed)
    chunk_size = images_at_once(problem.render, candidates[:1], CHUNK)
    rendered = torch.cat([problem.render(part) for part in torch.split(candidates, chunk_size)])
    chunk = CHUNK if rendered.device.type == "cpu" else CANDIDATES
    places = torch.arange(len(problem.observed), device=rendered.device)
    losses, degraded = [], None
    for row in rows:
        own = problem.degradation
        if isinstance(own, Degradation):
            own = own.select(places[row : row + 1])
        if degraded is None or own is not problem.degradation:
            degraded = torch.cat([own(images) for images in torch.split(rendered, chunk)])
        observed = problem.observed[row : row + 1].expand(len(degraded), -1, -1, -1)
        pairs = zip(torch.split(degraded, chunk), torch.split(observed, chunk), strict=True)
        losses.append(torch.cat([problem.loss(one, other) for one, other in pairs]))
    return candidates, torch.stack(losses)


@torch.no_grad()
def sample_images(generator: FrozenGenerator, count: int) -> Tensor:
    """Return fixed random images of the generator, (count,C,H,W)."""
    parameter = next(generator.parameters())
    latents = generator.draw(count, image_rng(0, 0, "images")).to(parameter)
    return torch.cat(
        [generator(chunk) for chunk in torch.split(latents, images_at_once(generator, latents[:1], CHUNK))]
    )
