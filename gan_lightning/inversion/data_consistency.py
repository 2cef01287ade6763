"""Data consistency: correction of restored images so that they agree with the observed ones.

The generator fills in what the degradation lost. What was observed is taken from the photograph itself.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gan_lightning.degradations.base import Degradation

EIGHT_BITS = 12**-0.5 / 255  # standard deviation of the rounding to 8 bits, on the [0, 1] scale
MODEL_ERROR = 0.05  # assumed standard deviation of the error of restored images, on the [0, 1] scale
ITERATIONS = 50


@torch.no_grad()
def data_consistency(
    image: Tensor, degradation: Degradation, observed: Tensor, noise_level: Tensor, iterations: int = ITERATIONS
) -> Tensor:
    """Return the images closest to the restored ones that agree with the observed ones up to the noise.

    Minimizes |A x - y|^2 / noise^2 + |x - image|^2 / 0.05^2 over x by conjugate gradients. For a mask, this composites
    the known pixels; for grayscale images, it keeps the observed luma; for a blur, it is a Wiener filter with the
    restored image as the prior mean.

    Args:
        image: Restored images (B,C,H,W) in [-1, 1].
        degradation: Linear forward operator A with an adjoint.
        observed: Observed images y.
        noise_level: (B,) standard deviation of the noise on the [0, 1] scale. Values below the rounding error of 8 bits
            are raised to it.
        iterations: Number of conjugate gradient iterations.

    Returns:
        Restored images (B,C,H,W) in [-1, 1] that agree with the observed ones.
    """
    ratio = (noise_level.clamp(min=EIGHT_BITS) / MODEL_ERROR).square()[:, None, None, None]
    residual = degradation.adjoint(observed - degradation(image))
    correction = _conjugate_gradients(lambda x: degradation.adjoint(degradation(x)) + ratio * x, residual, iterations)
    return (image + correction).clamp(-1, 1)


def _conjugate_gradients(operator: Callable[[Tensor], Tensor], right_side: Tensor, iterations: int) -> Tensor:
    """Solve operator(x) = right_side (B,C,H,W) for each image, with a positive semi-definite operator."""
    solution = torch.zeros_like(right_side)
    residual = direction = right_side
    energy = _dot(residual, residual)
    for _ in range(iterations):
        applied = operator(direction)
        length = energy / _dot(direction, applied).clamp(min=1e-30)
        solution = solution + length * direction
        residual = residual - length * applied
        energy, previous = _dot(residual, residual), energy
        direction = residual + energy / previous.clamp(min=1e-30) * direction
    return solution


def _dot(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).sum((1, 2, 3), keepdim=True)


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
    inside = _conjugate_gradients(lambda x: hole * _laplacian(x), -hole * _laplacian(offset), iterations)
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
