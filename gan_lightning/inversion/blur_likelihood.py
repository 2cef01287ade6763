"""Maximum-likelihood estimate of a Gaussian blur from power spectra."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MIN_FREQUENCY = 0.22  # radians per pixel; lower frequencies depend on the illumination more than on the blur
CANDIDATES = 64  # number of sigmas on the logarithmic grid
GAIN_STEPS = 12


@torch.no_grad()
def maximum_likelihood_sigma(
    observed: Tensor, clean: Tensor, noise_level: Tensor, sigmas: tuple[float, float]
) -> Tensor:
    """Return the sigma of a Gaussian blur that maximizes the likelihood of each power spectrum (Whittle 1953).

    The coefficients of the cosine transform are modeled as independent Gaussians of variance
    gain S exp(-sigma^2 omega^2) + noise^2, where S is the mean power spectrum of the generator's images and the gain is
    the contrast of an image, estimated by maximum likelihood. No latent is fitted: joint estimation of latent and sigma
    overestimates the blur, because it attributes the residual of the latent to the blur (Levin et al. 2009).

    Args:
        observed: Blurred images (B,C,H,W) in [-1, 1].
        clean: Images of the generator (N,C,H,W).
        noise_level: (B,) standard deviation of the noise on the [0, 1] scale.
        sigmas: Smallest and largest sigma, in pixels.

    Returns:
        (B,) estimated sigma in pixels.
    """
    squared = _squared_frequencies(observed)
    used = squared > MIN_FREQUENCY**2
    spectrum = _power(clean).mean(0)[used]
    least, greatest = (math.log(sigma) for sigma in sigmas)
    grid = torch.linspace(least, greatest, CANDIDATES, dtype=torch.float64).to(squared)
    expected = spectrum * (-squared[used] * (2 * grid).exp()[:, None]).exp()  # (K, frequencies)
    losses = [
        _negative_log_likelihood(power[used], expected, noise**2)
        for power, noise in zip(_power(observed), noise_level.double(), strict=True)
    ]
    return _minimize_on_grid(torch.stack(losses), grid).exp().to(observed)


def _squared_frequencies(images: Tensor) -> Tensor:
    """Return the squared angular frequency of each coefficient, (H,W), with frequencies in radians per pixel."""
    rows, columns = (torch.linspace(0, math.pi, size, dtype=torch.float64).square() for size in images.shape[-2:])
    return (rows[:, None] + columns).to(images.device)


def _power(images: Tensor) -> Tensor:
    """Return the power spectrum (B,H,W) of the cosine transform, which diagonalizes blurs with mirrored borders."""
    values = images.double() / 2
    values = values - values.mean((2, 3), keepdim=True)
    rows, columns = (_cosine_transform(size).to(values) for size in images.shape[-2:])
    powers: Tensor = (rows @ values @ columns.T).square().mean(1)
    return powers


def _cosine_transform(size: int) -> Tensor:
    """Return the matrix (size, size) of the type-I cosine transform, scaled to preserve the variance of white noise."""
    index = torch.arange(size, dtype=torch.float64)
    weights = torch.ones_like(index)
    weights[[0, -1]] = 0.5  # the mirrored signal contains the end points once, all others twice
    return torch.cos(math.pi / (size - 1) * index[:, None] * index) * weights * math.sqrt(2 / (size - 1))


def _negative_log_likelihood(power: Tensor, expected: Tensor, noise: Tensor) -> Tensor:
    """Return negative log-likelihoods (K,) of a power spectrum (F,) given spectra (K,F), each at its best gain."""
    gain = torch.ones_like(expected[:, :1])
    for _ in range(GAIN_STEPS):  # Fisher scoring
        weight = (expected / (gain * expected + noise)).square()
        excess = ((power - noise) / expected.clamp(min=1e-300) * weight).sum(1, keepdim=True)
        gain = (excess / weight.sum(1, keepdim=True)).clamp(min=1e-3)
    variance = gain * expected + noise
    return (variance.log() + power / variance).sum(1)


def _minimize_on_grid(losses: Tensor, grid: Tensor) -> Tensor:
    """Return the minimizers (B,) of losses (B,K) on a uniform grid (K,), refined by parabolic interpolation."""
    middle = losses.argmin(1, keepdim=True).clamp(1, len(grid) - 2)
    left, center, right = (losses.gather(1, middle + shift)[:, 0] for shift in (-1, 0, 1))
    shift = 0.5 * (left - right) / (left - 2 * center + right).clamp(min=1e-12)
    return grid[middle[:, 0]] + shift.clamp(-1, 1) * (grid[1] - grid[0])
