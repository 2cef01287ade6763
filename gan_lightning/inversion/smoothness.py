"""Smoothness of photographs: a stationary Gaussian prior and the linear estimate based on it.

The covariance is diagonal in the cosine transform whose functions are mirrored about the outermost pixels (DCT-I), as
blurred images are: it diagonalizes blurs too. Amplitudes fall with the frequency, as those of natural images do (Field
1987), and are much smaller for color than for brightness.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from gan_lightning.degradations.base import Degradation
from gan_lightning.inversion.reductions import sum_of_each

EXPONENT = 1.5  # of the fall of the amplitudes with the frequency; 1 to 2 in photographs
BASIS_IMAGES = 64  # number of basis images that are degraded at once
HOLE_ITERATIONS = 20
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
        self.rows, self.columns = (cosine_basis(size).to(like) for size in (height, width))
        frequencies = [torch.arange(size) / (2 * max(size - 1, 1)) for size in (height, width)]
        squared = frequencies[0][:, None].square() + frequencies[1].square() + flat_below**2
        shape = squared**-EXPONENT
        self.variance = (std**2 * shape / shape.mean()).to(like)

    @cached_property
    def _inverses(self) -> list[Tensor]:
        """Inverses of both bases; only images with holes, and the noise of blurred ones, need them."""
        return [torch.linalg.inv(cosine_basis(len(basis))).to(basis) for basis in (self.rows, self.columns)]

    def images(self, coefficients: Tensor) -> Tensor:
        """Return the images with these coefficients: sums of the basis functions."""
        return self.rows.mT @ coefficients @ self.columns

    def products(self, images: Tensor) -> Tensor:
        """Return the inner products of images with the functions of the basis: the adjoint of `images`."""
        return self.rows @ images @ self.columns.mT

    def coefficients(self, images: Tensor) -> Tensor:
        """Return the coefficients of images: the inverse of `images`."""
        rows, columns = self._inverses
        return rows.mT @ images @ columns

    def multiply_by_precision(self, images: Tensor) -> Tensor:
        """Multiply images by the inverse covariance."""
        rows, columns = self._inverses
        return rows @ self.precision(self.coefficients(images)) @ columns.mT

    def multiply_by_covariance(self, images: Tensor) -> Tensor:
        """Multiply images by the covariance."""
        return self.images(_scale_color(self.products(images), CHROMA**2) * self.variance)

    def precision(self, coefficients: Tensor) -> Tensor:
        """Multiply coefficients by their inverse covariance."""
        return _scale_color(coefficients, CHROMA**-2) / self.variance


def _scale_color(values: Tensor, factor: float) -> Tensor:
    brightness = values.mean(1, keepdim=True)
    return brightness + factor * (values - brightness)


def cosine_basis(size: int) -> Tensor:
    """Return the functions of the discrete cosine transform (DCT-I), (size, size) in float64, lowest frequency first.

    They have norm one, and would be orthogonal if the outermost pixels did not count twice.
    """
    places = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(math.pi / max(size - 1, 1) * places[:, None] * places)
    return basis / basis.square().sum(1, keepdim=True).sqrt()


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


def operator_gain(prior: SmoothnessPrior, degradation: Degradation, like: Tensor, searches: int = 1) -> Tensor:
    """Estimate |A b|^2 for each basis image b of the cosine transform, as if A acted on rows and columns separately.

    Args:
        prior: Prior, whose basis is used.
        degradation: Linear forward operator A.
        like: Images (B,C,H,W), of which only the shape is used.
        searches: Number of successive images that have the same operator.

    Returns:
        (1 or B,1,H,W), for gray basis images, exact for blurs except at the border. It only speeds up the conjugate
        gradients.
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
    # An operator may remove constants, which then carry no information.
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
