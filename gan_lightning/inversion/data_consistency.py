"""Agreement with what was observed, restored after the generator has had its say.

The generator fills in what the degradation lost; what it left known, the photograph itself tells best.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gan_lightning.degradations.base import Degradation

EIGHT_BITS = 12**-0.5 / 255  # standard deviation of the rounding to 8 bits, on the [0, 1] scale
MODEL_ERROR = 0.05  # of a restored image, on the [0, 1] scale
ITERATIONS = 50


@torch.no_grad()
def data_consistency(
    image: Tensor, degradation: Degradation, observed: Tensor, noise_level: Tensor, iterations: int = ITERATIONS
) -> Tensor:
    """Move restored images as little as makes them agree with the observed ones, up to the noise.

    Minimises |A x - y|^2 / noise^2 + |x - image|^2 / 0.05^2 over x, by conjugate gradients. For a mask this composites
    the known pixels, for a loss of colour it takes the photograph's luma, for a blur it is Wiener's filter about the
    restored image.

    Args:
        image: (B,C,H,W) in [-1, 1], restored.
        degradation: A, linear, with its adjoint.
        observed: y.
        noise_level: (B,) on the [0, 1] scale; no less than the rounding to 8 bits is taken for true.
        iterations: Of conjugate gradients.

    Returns:
        (B,C,H,W) in [-1, 1].
    """
    ratio = (noise_level.clamp(min=EIGHT_BITS) / MODEL_ERROR).square()[:, None, None, None]
    residual = degradation.adjoint(observed - degradation(image))
    correction = _conjugate_gradients(lambda x: degradation.adjoint(degradation(x)) + ratio * x, residual, iterations)
    return (image + correction).clamp(-1, 1)


def _conjugate_gradients(operator: Callable[[Tensor], Tensor], right_side: Tensor, iterations: int) -> Tensor:
    """Solve operator(x) = right_side (B,C,H,W), each image by itself, for a positive semi-definite operator."""
    solution = torch.zeros_like(right_side)
    residual = direction = right_side
    energy = _dot(residual, residual)
    for _ in range(iterations):
        applied = operator(direction)
        length = energy / _dot(direction, applied).clamp(min=1e-30)
        solution = solution + length * direction
        residual = residual - length * applied
        energy, before = _dot(residual, residual), energy
        direction = residual + energy / before.clamp(min=1e-30) * direction
    return solution


def _dot(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).sum((1, 2, 3), keepdim=True)


@torch.no_grad()
def blend_poisson(image: Tensor, observed: Tensor, mask: Tensor, iterations: int = 500) -> Tensor:
    """Fill holes with the restored image's gradients, so that no seam shows (Perez et al. 2003).

    Inside the hole the result has the Laplacian of the restored image, and on its rim the photograph's values;
    solved by conjugate gradients.

    Args:
        image: (B,C,H,W) in [-1, 1], restored.
        observed: (B,C,H,W), the photograph.
        mask: (1 or B,1,H,W), one where a pixel is known.
        iterations: Of conjugate gradients.

    Returns:
        (B,C,H,W) in [-1, 1], the photograph where it is known.
    """
    hole = 1 - mask
    offset = (observed - image) * mask  # continued into the hole by a function without Laplacian
    inside = _conjugate_gradients(lambda x: hole * _laplacian(x), -hole * _laplacian(offset), iterations)
    return (image + offset + inside).clamp(-1, 1) * hole + observed * mask


def _laplacian(values: Tensor) -> Tensor:
    """Return the negative Laplacian, (B,C,H,W), with no flow across the image's border."""
    down, right = values.diff(dim=2), values.diff(dim=3)
    result = torch.zeros_like(values)
    result[:, :, :-1] -= down
    result[:, :, 1:] += down
    result[:, :, :, :-1] -= right
    result[:, :, :, 1:] += right
    return result
