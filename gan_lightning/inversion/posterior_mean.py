"""Linear estimates of photographs under the smoothness prior, by preconditioned conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gan_lightning.degradations.base import Degradation
from gan_lightning.inversion.reductions import sum_of_each
from gan_lightning.inversion.smoothness import CHROMA, SmoothnessPrior, operator_gain

HOLE_ITERATIONS = 20


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

    Minimizes |A x - y|^2 / noise^2 + (x - mean)' C^-1 (x - mean) by preconditioned conjugate gradients: over the
    coefficients of x - mean or, where y is smaller than x, over the u for which x = mean + C A' u.

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
    if observed.shape[-2:] != mean.shape[-2:]:
        return mean + _from_smaller(prior, degradation, observed - degradation(mean), noise, iterations)
    weight = noise**-2
    residual = prior.products(degradation.adjoint(observed - degradation(mean))) * weight
    gain = operator_gain(prior, degradation, mean, searches)
    colors, strengths = color_axes(degradation, mean)
    diagonal = strengths[:, None, None] * gain * weight + 1 / prior.variance

    def precondition(coefficients: Tensor) -> Tensor:
        return _mix(colors, _mix(colors.T, coefficients) / diagonal)

    def operator(coefficients: Tensor) -> Tensor:
        images = prior.images(coefficients)
        return prior.products(degradation.adjoint(degradation(images))) * weight + prior.precision(coefficients)

    return mean + prior.images(conjugate_gradients(operator, residual, iterations, precondition))


def _from_smaller(
    prior: SmoothnessPrior, degradation: Degradation, residual: Tensor, noise: Tensor, iterations: int
) -> Tensor:
    """Return the correction C A' u (B,C,H,W), where (A C A' + noise^2) u is the residual (B,C',H',W')."""
    height, width = residual.shape[-2:]
    coarse = SmoothnessPrior(height, width, 1.0, 1.0, residual)  # for its basis

    def spectra(part: Degradation, rows: Tensor, columns: Tensor) -> Tensor:
        images = (rows[:, :, None] * columns[:, None])[:, None].expand(-1, residual.shape[1], -1, -1)
        return prior.products(part.adjoint(images)).square().mean(1)

    def variance_under(part: Degradation) -> Tensor:
        """Return the variance of each basis image under A C A', as if A acted on rows and columns separately."""
        vertical = spectra(part, coarse.rows, coarse.columns[:1]).sum(2)
        horizontal = spectra(part, coarse.rows[:1], coarse.columns).sum(1)
        return vertical @ prior.variance @ horizontal.mT / vertical[0].sum().clamp(min=1e-12)

    firsts = torch.arange(len(residual), device=residual.device)[:, None]
    own = degradation.select(firsts[0]) is not degradation
    parts = [degradation.select(first) for first in firsts] if own else [degradation]
    variance = torch.stack([variance_under(part) for part in parts])[:, None]
    gray, colored = variance + noise.square(), CHROMA**2 * variance + noise.square()

    def precondition(values: Tensor) -> Tensor:
        coefficients = coarse.products(values)
        brightness = coefficients.mean(1, keepdim=True)
        return coarse.images(brightness / gray + (coefficients - brightness) / colored)

    def operator(values: Tensor) -> Tensor:
        smooth = prior.multiply_by_covariance(degradation.adjoint(values))
        applied: Tensor = degradation(smooth)
        return applied + noise.square() * values

    solution = conjugate_gradients(operator, residual, iterations, precondition)
    return prior.multiply_by_covariance(degradation.adjoint(solution))


def color_axes(degradation: Degradation, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return axes of the channels in which the precision of colors is the identity, and A'A on constants is diagonal.

    Args:
        degradation: Linear forward operator A.
        like: Images (B,C,H,W). Only their shape is used.

    Returns:
        The axes as columns (C,C), and the diagonal (C,), relative to that of gray. They only speed up the conjugate
        gradients.
    """
    channels, (height, width) = like.shape[1], like.shape[-2:]
    unit = torch.eye(channels, dtype=like.dtype, device=like.device)
    flat = degradation.select(torch.zeros(1, dtype=torch.long, device=like.device))
    degraded = torch.cat([flat(image.expand(1, -1, height, width)) for image in unit[:, None, :, None, None]])
    products = (degraded.flatten(1) @ degraded.flatten(1).T).double()
    total = products.sum()
    products = products * channels / total if total > 0 else unit.double()
    precision = torch.full_like(products, 1 / channels)
    precision = precision + (torch.eye(channels).to(products) - precision) / CHROMA**2
    white = torch.linalg.inv(torch.linalg.cholesky(precision)).T
    strengths, axes = torch.linalg.eigh(white.T @ products @ white)
    return (white @ axes).to(like), strengths.clamp(min=0).to(like)


def _mix(matrix: Tensor, values: Tensor) -> Tensor:
    """Multiply the channels of values (B,C,H,W) by a matrix, with the same last bit in any batch."""
    return (matrix[None, :, :, None, None] * values[:, None]).sum(2)


@torch.no_grad()
def fill_holes(
    mean: Tensor, observed: Tensor, mask: Tensor, std: float, flat_below: float, iterations: int = HOLE_ITERATIONS
) -> Tensor:
    """Return `posterior_mean` for a mask in the limit of no noise, where known pixels do not change.

    Only the missing pixels are unknowns. The prior covariance among them is nearly the inverse of the equations and is
    used as the preconditioner, so that a few iterations are enough.

    Args:
        mean: Prior mean (B,C,H,W).
        observed: Observed images (B,C,H,W). Only known pixels matter.
        mask: (1 or B,1,H,W), one where a pixel is known and zero where it is missing.
        std: Standard deviation of a pixel of x - mean.
        flat_below: Frequency in cycles per pixel below which its amplitudes no longer rise.
        iterations: Number of conjugate gradient iterations.

    Returns:
        (B,C,H,W). An image does not depend on the others of the batch.
    """
    prior = SmoothnessPrior(mean.shape[-2], mean.shape[-1], std, flat_below, mean)
    hole = 1 - mask
    correction = (observed - mean) * mask
    missing = conjugate_gradients(
        lambda x: hole * prior.multiply_by_precision(x),
        -hole * prior.multiply_by_precision(correction),
        iterations,
        lambda x: hole * prior.multiply_by_covariance(x),
    )
    return torch.where(mask > 0, observed, mean + missing)


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
