"""Combination of the solutions of several searches: consistency with the photograph, mean and spread."""

from __future__ import annotations

import torch
from torch import Tensor

from gan_lightning.degradations.base import Identity, has_adjoint
from gan_lightning.degradations.masks import Mask
from gan_lightning.inversion.data_consistency import data_consistency, linear_estimate
from gan_lightning.inversion.learned_prior import remove_noise
from gan_lightning.inversion.plug_and_play import regularize
from gan_lightning.inversion.problem import Problem
from gan_lightning.inversion.reductions import mean_of_each

UNEXPLAINED = 0.15  # residual in excess of the noise, on the [0, 1] scale; for faces of another domain it is 0.05


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
def excess_residual(images: Tensor, problem: Problem, noise: Tensor) -> Tensor:
    """Return (B,), the root mean square of A(images) - y over observed values, in excess of the noise, in [0, 1]."""
    difference = (problem.degradation(images) - problem.observed) / 2
    squares = mean_of_each(difference.square()) / problem.known_fraction
    return (squares - noise.square()).clamp(min=0).sqrt()


@torch.no_grad()
def make_consistent(images: Tensor, problem: Problem, noise: Tensor, searches: int = 1) -> Tensor:
    """Return the images, made to agree with the observed ones; those of an identity without noise are not changed.

    Args:
        images: Images of the generator (B,C,H,W).
        problem: Problem that they solve.
        noise: (B,) standard deviation of the noise on the [0, 1] scale.
        searches: Number of successive images that are the results of several searches for the same image.
    """
    degradation = problem.degradation
    plain = _is_plain(degradation, noise)
    if not has_adjoint(degradation) or bool(plain.all()):
        return images
    return torch.where(plain, images, data_consistency(images, degradation, problem.observed, noise, searches=searches))


@torch.no_grad()
def without_generator(images: Tensor, problem: Problem, noise: Tensor, explained: Tensor) -> Tensor:
    """Return the images, replacing those that do not explain the photograph by the linear estimate."""
    degradation = problem.degradation
    if bool(explained.all()) or not has_adjoint(degradation):
        return images
    keep = explained[:, None, None, None] | _is_plain(degradation, noise)
    return torch.where(keep, images, linear_estimate(degradation, problem.observed, noise))


@torch.no_grad()
def add_details(images: Tensor, problem: Problem, noise: Tensor, residual: Tensor) -> Tensor:
    """Return the images with the details of the photographs that the generator lacks.

    Noise is removed from pixels that were observed directly, see `remove_noise`. Elsewhere the images are
    regularized, see `regularize`.

    Args:
        images: Restored images (B,C,H,W), consistent with the observed ones.
        problem: Problem that they solve.
        noise: (B,) standard deviation of the noise on the [0, 1] scale.
        residual: (B,) `excess_residual` of the images of the generator.
    """
    degradation, observed = problem.degradation, problem.observed
    if not has_adjoint(degradation):
        return images
    if isinstance(degradation, Identity):
        photograph = observed
    else:
        images = regularize(images, degradation, observed, noise, residual)
        if not isinstance(degradation, Mask):
            return images
        known = degradation.mask.to(observed)
        photograph = observed * known + images * (1 - known)
    noisy = noise[:, None, None, None] > 0
    if not bool(noisy.any()):
        return images
    return torch.where(noisy, remove_noise(images, photograph, noise).clamp(-1, 1), images)


def _is_plain(degradation: object, noise: Tensor) -> Tensor:
    """Return (B,1,1,1), true for plain inversion of an image without noise, which returns the generator's image."""
    return (noise[:, None, None, None] == 0) & isinstance(degradation, Identity)
