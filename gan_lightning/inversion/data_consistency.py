"""Data consistency: correction of restored images so that they agree with the observed ones.

The generator fills in the information that the degradation lost. Observed values are taken from the photograph itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gan_lightning.degradations.base import Degradation
from gan_lightning.degradations.masks import Mask
from gan_lightning.inversion.posterior_mean import fill_holes, posterior_mean
from gan_lightning.inversion.reductions import sum_of_each

EIGHT_BITS = 12**-0.5 / 255  # standard deviation of the rounding to 8 bits, on the [0, 1] scale
# Standard deviations on the [0, 1] scale, each with the frequency in cycles per pixel below which amplitudes are equal.
MODEL_ERROR = 0.07, 0.06  # of the error of restored images
PHOTOGRAPH = 0.3, 0.02  # of photographs
ITERATIONS = 20


@torch.no_grad()
def data_consistency(
    image: Tensor,
    degradation: Degradation,
    observed: Tensor,
    noise_level: Tensor,
    iterations: int = ITERATIONS,
    searches: int = 1,
) -> Tensor:
    """Return restored images, corrected so that they agree with the observed ones up to the noise.

    The correction is the most likely one if errors are smooth, see `SmoothnessPrior`. Observed values are reproduced,
    and the correction continues smoothly into the unobserved ones, so that a hole is filled without a seam.

    Args:
        image: Restored images (B,C,H,W) in [-1, 1].
        degradation: Linear forward operator A with an adjoint.
        observed: Observed images y.
        noise_level: (B,) standard deviation of the noise on the [0, 1] scale. Values below the rounding error of 8 bits
            are raised to it.
        iterations: Number of conjugate gradient iterations.
        searches: Number of successive images with the same operator, which are the results of several searches.

    Returns:
        Restored images (B,C,H,W) in [-1, 1] that agree with the observed ones.
    """
    result = _posterior_mean(image, degradation, observed, noise_level, MODEL_ERROR, iterations, searches)
    return result.clamp(-1, 1)


@torch.no_grad()
def linear_estimate(
    degradation: Degradation, observed: Tensor, noise_level: Tensor, iterations: int = 2 * ITERATIONS
) -> Tensor:
    """Return the linear estimate of smooth images, which needs no generator: a Wiener filter for any degradation.

    Args:
        degradation: Linear forward operator A with an adjoint.
        observed: Observed images y (B,...).
        noise_level: (B,) standard deviation of the noise on the [0, 1] scale, see `data_consistency`.
        iterations: Number of conjugate gradient iterations.

    Returns:
        Images (B,C,H,W) in [-1, 1].
    """
    ones = torch.ones_like(degradation.adjoint(observed))
    gray = degradation(ones)
    axes = (2, 3) if gray.shape[1] == ones.shape[1] else (1, 2, 3)
    products, squares = (sum_of_each(values, axes, keepdim=True) for values in (gray * observed, gray.square()))
    level = products / squares.clamp(min=1e-12)
    result = _posterior_mean(level * ones, degradation, observed, noise_level, PHOTOGRAPH, iterations)
    return result.clamp(-1, 1)


def _posterior_mean(
    mean: Tensor,
    degradation: Degradation,
    observed: Tensor,
    noise_level: Tensor,
    prior: tuple[float, float],
    iterations: int,
    searches: int = 1,
) -> Tensor:
    """Return the posterior mean; known pixels of masked photographs without noise are not changed."""
    std, flat_below = 2 * prior[0], prior[1]
    exact = (noise_level <= EIGHT_BITS)[:, None, None, None]
    filled = None
    if isinstance(degradation, Mask) and bool(exact.any()):
        filled = fill_holes(mean, observed, degradation.mask.to(observed), std, flat_below)
        if bool(exact.all()):
            return filled
    noise = 2 * noise_level.clamp(min=EIGHT_BITS)[:, None, None, None]
    result = posterior_mean(mean, degradation, observed, noise, std, flat_below, iterations, searches)
    return result if filled is None else torch.where(exact, filled, result)
