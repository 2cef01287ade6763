"""Smoothness of photographs: a stationary Gaussian prior, and the linear estimate that it leads to.

The covariance is diagonal in the discrete cosine transform, with amplitudes that fall with the frequency, as those of
natural images do (Field 1987), and much less color than brightness.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gan_lightning.degradations.base import Degradation
from gan_lightning.inversion.reductions import sum_of_each

EXPONENT = 1.5  # of the fall of the amplitudes with the frequency; 1 to 2 in photographs
BASIS_IMAGES = 64  # that are degraded at once
CHROMA = 0.2  # standard deviation of each color direction, relative to that of the brightness


class SmoothnessPrior:
    """Zero-mean Gaussian prior of images (B,C,H,W), given by its variance at each frequency.

    Args:
        height: Height of the images.
        width: Width of the images.
        std: Standard deviation of a pixel.
        flat_below: Frequency in cycles per pixel below which the amplitudes no longer rise.
        like: Tensor with the dtype and device of the images.
    """

    def __init__(self, height: int, width: int, std: float, flat_below: float, like: Tensor) -> None:
        self.rows, self.columns = cosine_basis(height).to(like), cosine_basis(width).to(like)
        frequencies = [torch.arange(size) / (2 * size) for size in (height, width)]
        squared = frequencies[0][:, None].square() + frequencies[1].square() + flat_below**2
        shape = squared**-EXPONENT
        self.variance = (std**2 * shape / shape.mean()).to(like)

    def transform(self, images: Tensor) -> Tensor:
        """Return the cosine transform of images."""
        return self.rows @ images @ self.columns.mT

    def inverse(self, coefficients: Tensor) -> Tensor:
        """Return the images with these coefficients; the adjoint of `transform`."""
        return self.rows.mT @ coefficients @ self.columns

    def precision(self, coefficients: Tensor) -> Tensor:
        """Multiply coefficients by the inverse covariance."""
        brightness = coefficients.mean(1, keepdim=True)
        return (brightness + (coefficients - brightness) / CHROMA**2) / self.variance


def cosine_basis(size: int) -> Tensor:
    """Return the orthonormal basis of the discrete cosine transform (DCT-II), (size, size), lowest frequency first."""
    offsets, orders = torch.arange(size) + 0.5, torch.arange(size)[:, None]
    basis = torch.cos(math.pi / size * orders * offsets) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis


@torch.no_grad()
def posterior_mean(
    mean: Tensor,
    degradation: Degradation,
    observed: Tensor,
    noise: Tensor,
    std: float,
    flat_below: float,
    iterations: int,
    searches: int = 1,
) -> Tensor:
    """Return the mean of images x given y = A x + noise, where x - mean has a smoothness prior.

    Minimizes |A x - y|^2 / noise^2 + (x - mean)' C^-1 (x - mean) by preconditioned conjugate gradients.

    Args:
        mean: Prior mean (B,C,H,W).
        degradation: Linear forward operator A with an adjoint.
        observed: Observed images y.
        noise: (B,1,1,1) standard deviation of the noise, above 0.
        std: Standard deviation of a pixel of x - mean.
        flat_below: Frequency in cycles per pixel below which its amplitudes no longer rise.
        iterations: Number of iterations.
        searches: Number of successive images that have the same operator.

    Returns:
        (B,C,H,W). An image does not depend on the others of the batch.
    """
    prior = SmoothnessPrior(mean.shape[-2], mean.shape[-1], std, flat_below, mean)
    weight = noise**-2
    residual = prior.transform(degradation.adjoint(observed - degradation(mean))) * weight
    inverse_diagonal = 1 / (operator_gain(prior, degradation, mean, searches) * weight + 1 / prior.variance)

    def operator(coefficients: Tensor) -> Tensor:
        images = prior.inverse(coefficients)
        return prior.transform(degradation.adjoint(degradation(images))) * weight + prior.precision(coefficients)

    solution = conjugate_gradients(operator, residual, iterations, lambda x: x * inverse_diagonal)
    return mean + prior.inverse(solution)


def operator_gain(prior: SmoothnessPrior, degradation: Degradation, like: Tensor, searches: int = 1) -> Tensor:
    """Estimate |A b|^2 for each basis image b of the cosine transform, as if A acted on rows and columns separately.

    Args:
        prior: Prior, whose basis is used.
        degradation: Linear forward operator A.
        like: Images (B,C,H,W), of which only the shape is used.
        searches: Number of successive images that have the same operator.

    Returns:
        (1 or B,1,H,W), exact for blurs but for the border. It only speeds up the conjugate gradients.
    """
    rows, columns, (batch, channels) = prior.rows, prior.columns, like.shape[:2]

    def gains(part: Degradation, rows: Tensor, columns: Tensor) -> Tensor:
        images = rows[:, :, None] * columns[:, None] / math.sqrt(channels)
        degraded: Tensor = part(images[:, None].expand(-1, channels, -1, -1))
        return degraded.square().sum((1, 2, 3))

    # One operator at a time, the same for an image alone as for one in a batch.
    firsts = torch.arange(0, batch, searches, device=like.device)[:, None]
    own = degradation.select(firsts[0]) is not degradation
    parts = [degradation.select(first) for first in firsts] if own else [degradation]
    vertical, horizontal = (
        torch.stack([torch.cat([gains(part, *some) for some in chunks]) for part in parts])
        for chunks in (
            [(chunk, columns[:1]) for chunk in torch.split(rows, BASIS_IMAGES)],
            [(rows[:1], chunk) for chunk in torch.split(columns, BASIS_IMAGES)],
        )
    )
    # An operator may remove constants: then nothing can be told from them.
    lowest = vertical[:, :1, None].maximum(1e-3 * vertical.amax(1)[:, None, None]).clamp(min=1e-12)
    gain = (vertical[:, :, None] * horizontal[:, None] / lowest)[:, None]
    return gain.repeat_interleave(searches, 0) if own else gain


def conjugate_gradients(
    operator: Callable[[Tensor], Tensor],
    right_side: Tensor,
    iterations: int,
    precondition: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """Solve operator(x) = right_side (B,C,H,W) for each image, with a positive semi-definite operator."""
    solution, residual = torch.zeros_like(right_side), right_side
    direction = precondition(residual)
    energy = _dot(residual, direction)
    for _ in range(iterations):
        applied = operator(direction)
        length = energy / _dot(direction, applied).clamp(min=1e-30)
        solution = solution + length * direction
        residual = residual - length * applied
        conditioned = precondition(residual)
        energy, previous = _dot(residual, conditioned), energy
        direction = conditioned + energy / previous.clamp(min=1e-30) * direction
    return solution


def _dot(first: Tensor, second: Tensor) -> Tensor:
    return sum_of_each(first * second, (1, 2, 3), keepdim=True)
