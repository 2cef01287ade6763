"""Combination of the solutions of several searches: consistent with the photograph, averaged, with their spread."""

from __future__ import annotations

import torch
from torch import Tensor

from gan_lightning.degradations.base import Degradation, Identity, has_adjoint
from gan_lightning.degradations.masks import Mask
from gan_lightning.inversion.data_consistency import data_consistency, linear_estimate
from gan_lightning.inversion.empirical_wiener import empirical_wiener
from gan_lightning.inversion.problem import Problem

UNEXPLAINED = 0.15  # residual in excess of the noise, on the [0, 1] scale; for faces of another domain it is 0.05


LACKING = 0.05  # excess of the residual over the variance of the noise, relative to it: the generator lacks details


@torch.no_grad()
def solution_weights(losses: Tensor) -> Tensor:
    """Return the weights (B,K) of K solutions, which add up to one: inversely proportional to their squared losses."""
    weights = (losses.min(1, keepdim=True).values.clamp(min=1e-12) / losses.clamp(min=1e-12)).square()
    return weights / weights.sum(1, keepdim=True)


@torch.no_grad()
def mean_and_spread(solutions: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weighted mean (B,C,H,W) of solutions (B,K,C,H,W), and their standard deviation (B,1,H,W) in [0, 1]."""
    factors = weights[:, :, None, None, None]
    mean = (factors * solutions).sum(1)
    variance = (factors * (solutions - mean[:, None]).square()).sum(1).mean(1, keepdim=True)
    return mean, variance.sqrt() / 2


@torch.no_grad()
def is_explained(images: Tensor, problem: Problem, noise: Tensor) -> Tensor:
    """Return (B,), false where the degraded images are far from the observed ones, by the root mean square."""
    difference = (problem.degradation(images) - problem.observed) / 2
    return difference.square().flatten(1).mean(1) / problem.known_fraction < noise.square() + UNEXPLAINED**2


@torch.no_grad()
def make_consistent(images: Tensor, problem: Problem, noise: Tensor) -> Tensor:
    """Return the images, made to agree with the observed ones; those of an identity without noise are left alone.

    Args:
        images: Images of the generator (B,C,H,W).
        problem: Problem that they solve.
        noise: (B,) standard deviation of the noise on the [0, 1] scale.
    """
    degradation = problem.degradation
    if not has_adjoint(degradation):
        return images
    consistent = data_consistency(images, degradation, problem.observed, noise)
    return torch.where(_is_plain(degradation, noise), images, consistent)


@torch.no_grad()
def without_generator(images: Tensor, problem: Problem, noise: Tensor, explained: Tensor) -> Tensor:
    """Return the images, in place of those that explain nothing the linear estimate from what was observed."""
    degradation = problem.degradation
    if bool(explained.all()) or not has_adjoint(degradation):
        return images
    keep = explained[:, None, None, None] | _is_plain(degradation, noise)
    return torch.where(keep, images, linear_estimate(degradation, problem.observed, noise))


@torch.no_grad()
def filter_noise(images: Tensor, rendered: Tensor, problem: Problem, noise: Tensor) -> Tensor:
    """Return the images, with details of the noisy photographs where pixels were observed, see `empirical_wiener`.

    Where a photograph differs from the generator's image by its noise alone, there are no such details, and the
    generator's image is the better one.

    Args:
        images: Restored images (B,C,H,W).
        rendered: Mean of the images of the generator that they were made of.
        problem: Problem that they solve.
        noise: (B,) standard deviation of the noise on the [0, 1] scale.
    """
    degradation, observed = problem.degradation, problem.observed
    if isinstance(degradation, Identity):
        known = torch.ones_like(observed[:1, :1])
    elif isinstance(degradation, Mask):
        known = degradation.mask.to(observed)
    else:
        return images
    filtered = empirical_wiener(images, observed * known + images * (1 - known), noise)
    residual = ((rendered - observed) * known / 2).square().flatten(1).mean(1) / problem.known_fraction
    excess = residual / noise.square().clamp(min=1e-12) - 1
    chance = 2 * (2 / (problem.known_fraction * observed[0].numel())).sqrt()  # two deviations of it, of noise alone
    lacking = ((excess - chance) / LACKING).clamp(0, 1)[:, None, None, None]
    result = (lacking * filtered + (1 - lacking) * rendered.lerp(images, 1 - known)).clamp(-1, 1)
    return torch.where(noise[:, None, None, None] > 0, result, images)


def _is_plain(degradation: Degradation, noise: Tensor) -> Tensor:
    """Return (B,1,1,1), true where the image itself was observed: the generator's image of it is asked for."""
    return (noise[:, None, None, None] == 0) & isinstance(degradation, Identity)
