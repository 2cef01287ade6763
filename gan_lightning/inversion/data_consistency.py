"""Data consistency: correction of restored images so that they agree with the observed ones.

The generator fills in what the degradation lost. What was observed is taken from the photograph itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gan_lightning.degradations.base import Degradation
from gan_lightning.degradations.masks import Mask
from gan_lightning.inversion.reductions import sum_of_each
from gan_lightning.inversion.smoothness import conjugate_gradients, posterior_mean

EIGHT_BITS = 12**-0.5 / 255  # standard deviation of the rounding to 8 bits, on the [0, 1] scale
# Standard deviations on the [0, 1] scale, each with the frequency in cycles per pixel below which amplitudes are equal.
MODEL_ERROR = 0.07, 0.06  # of the error of restored images
PHOTOGRAPH = 0.3, 0.02  # of photographs
ITERATIONS = 60
LINEAR_NOISE = 0.004  # least noise of the linear estimate: less takes many more iterations, and gains nothing


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

    The correction is the most likely one if errors are smooth, see `SmoothnessPrior`. What was observed reaches the
    image as it is, and what is left of the error continues smoothly into what was not: a hole is filled without a seam.

    Args:
        image: Restored images (B,C,H,W) in [-1, 1].
        degradation: Linear forward operator A with an adjoint.
        observed: Observed images y.
        noise_level: (B,) standard deviation of the noise on the [0, 1] scale. Values below the rounding error of 8 bits
            are raised to it.
        iterations: Number of conjugate gradient iterations.
        searches: Number of successive images that were observed by the same operator, results of several searches.

    Returns:
        Restored images (B,C,H,W) in [-1, 1] that agree with the observed ones.
    """
    noise = 2 * noise_level.clamp(min=EIGHT_BITS)[:, None, None, None]
    std, flat_below = MODEL_ERROR
    result = posterior_mean(image, degradation, observed, noise, 2 * std, flat_below, iterations, searches)
    result = result.clamp(-1, 1)
    return _keep_known_pixels(result, degradation, observed, noise_level)


@torch.no_grad()
def linear_estimate(
    degradation: Degradation, observed: Tensor, noise_level: Tensor, iterations: int = 5 * ITERATIONS
) -> Tensor:
    """Return the linear estimate of smooth images, which needs no generator: a Wiener filter for any degradation.

    Holes are filled by a membrane, the solution of Laplace's equation.

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
    mean = level * ones
    if isinstance(degradation, Mask):  # where conjugate gradients alone would take thousands of iterations
        mean = blend_poisson(mean, observed, degradation.mask.to(observed))
    noise = 2 * noise_level.clamp(min=LINEAR_NOISE)[:, None, None, None]
    std, flat_below = PHOTOGRAPH
    result = posterior_mean(mean, degradation, observed, noise, 2 * std, flat_below, iterations).clamp(-1, 1)
    return _keep_known_pixels(result, degradation, observed, noise_level)


def _keep_known_pixels(images: Tensor, degradation: Degradation, observed: Tensor, noise_level: Tensor) -> Tensor:
    """Return images with the known pixels of noise-free photographs, of which the iterations leave a little undone."""
    if not isinstance(degradation, Mask):
        return images
    exact = (degradation.mask.to(observed) > 0) & (noise_level <= EIGHT_BITS)[:, None, None, None]
    return torch.where(exact, observed, images)


@torch.no_grad()
def blend_poisson(image: Tensor, observed: Tensor, mask: Tensor, iterations: int = 500) -> Tensor:
    """Fill holes with the gradients of the restored image, without a seam: Poisson blending (Perez et al. 2003).

    Inside a hole the result has the Laplacian of the restored image, and on its boundary the values of the photograph.
    The equation is solved by conjugate gradients.

    Args:
        image: Restored images (B,C,H,W) in [-1, 1].
        observed: Observed photographs (B,C,H,W).
        mask: (1 or B,1,H,W), one where a pixel is known.
        iterations: Number of conjugate gradient iterations.

    Returns:
        Blended images (B,C,H,W) in [-1, 1], equal to the photographs where these are known.
    """
    hole = 1 - mask
    offset = (observed - image) * mask  # extended into the hole by a harmonic function
    inside = conjugate_gradients(lambda x: hole * _laplacian(x), -hole * _laplacian(offset), iterations)
    return (image + offset + inside).clamp(-1, 1) * hole + observed * mask


def _laplacian(values: Tensor) -> Tensor:
    """Return the negative Laplacian (B,C,H,W) with Neumann boundary conditions at the image border."""
    down, right = values.diff(dim=2), values.diff(dim=3)
    result = torch.zeros_like(values)
    result[:, :, :-1] -= down
    result[:, :, 1:] += down
    result[:, :, :, :-1] -= right
    result[:, :, :, 1:] += right
    return result
