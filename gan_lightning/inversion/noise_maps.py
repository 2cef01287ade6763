"""Noise maps of a generator as additional variables of a search (Karras et al. 2020, arXiv 1912.04958).

Appendix D of the paper optimizes the maps together with w, keeps them white with a regularizer, and normalizes them
after each step. Here they are normalized whenever an image is generated, which is equivalent for the image and works
with any solver.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from gan_lightning.inversion.problem import Problem
from gan_lightning.inversion.reductions import mean_of_each
from gan_lightning.seeding import image_rng

WEIGHT = 1.0  # of the regularizer, relative to the mean squared error; the paper's 1e5 is relative to LPIPS
SMALLEST = 8  # smallest size at which correlations are measured
EPSILON = 1e-8


def with_noise_maps(problem: Problem, sizes: Sequence[int]) -> Problem:
    """Return the problem whose variables are latents, followed by noise maps.

    Args:
        problem: Problem whose variables are latents. Its `render` also accepts latents followed by noise maps.
        sizes: Height and width of each map.
    """
    count = sum(size * size for size in sizes)
    center = F.pad(problem.center, (0, count))
    return replace(
        problem,
        center=center,
        weight=spare_noise(problem.weight, center, count),
        regularizer=partial(noise_penalty, sizes=tuple(sizes)),
    )


def spare_noise(weight: Tensor, variables: Tensor, count: int) -> Tensor:
    """Return the weights (B,D) of a penalty on variables (B,D) without their last `count` columns.

    Penalties are means over all variables: the weights (B,1) of the others are raised accordingly.
    """
    if not count:
        return weight
    total = variables.shape[1]
    own = (weight * (total / (total - count))).expand(-1, total - count)
    return F.pad(own, (0, count))


def initial_noise(held: Tensor, seed: int, searches: Sequence[tuple[int, int]], attempt: int) -> Tensor:
    """Return the initial noise maps (B,N): those of the generator for the first search, random ones for others.

    Args:
        held: (N,) noise maps of the generator.
        seed: Seed of the random maps.
        searches: Index of each image in its data set, and number of the search.
        attempt: 0, or the number of the restart.
    """
    noise = held.repeat(len(searches), 1)
    for row, (index, number) in enumerate(searches):
        if attempt or number:
            rng = image_rng(seed, index, f"noise maps {attempt} of search {number}")
            noise[row] = torch.randn(len(held), generator=rng).to(held)
    return noise


def normalize_maps(noise: Tensor, sizes: Sequence[int]) -> Tensor:
    """Normalize each map of noise maps (B,N) to zero mean and unit variance."""
    maps = []
    for values in torch.split(noise, [size * size for size in sizes], 1):
        centered = values - mean_of_each(values)[:, None]
        maps.append(centered * (mean_of_each(centered.square()) + EPSILON).rsqrt()[:, None])
    return torch.cat(maps, 1)


def noise_penalty(variables: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Return the weighted penalty (B,) on the noise maps at the end of the variables (B,D)."""
    count = sum(size * size for size in sizes)
    return WEIGHT * autocorrelation(normalize_maps(variables[:, -count:], sizes), sizes)


def autocorrelation(noise: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return (B,), the squared correlations between neighboring values of noise maps, summed over maps and scales.

    L of appendix D: each map is reduced down to 8 pixels by averaging four values, times two so that white noise keeps
    its variance. Neighbors wrap around, as in the code of the paper.

    Args:
        noise: (B,N) normalized maps, flat and one after the other.
        sizes: Height and width of each map.
    """
    total = noise.new_zeros(len(noise))
    for values, size in zip(torch.split(noise, [size * size for size in sizes], 1), sizes, strict=True):
        maps = values.reshape(-1, 1, size, size)
        while True:
            for axis in (2, 3):
                total = total + mean_of_each(maps * maps.roll(1, axis)).square()
            if maps.shape[-1] <= SMALLEST:
                break
            maps = 2 * F.avg_pool2d(maps, 2)
    return total
