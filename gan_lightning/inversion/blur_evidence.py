"""How strongly a photograph is blurred, by its power spectrum and that of the generator's images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOWEST = 0.22  # radians a pixel: below, a spectrum tells of the scene's light and not of its blur
CANDIDATES = 64  # sigmas that are tried, in equal ratios
GAIN_STEPS = 12


@torch.no_grad()
def evident_blur(observed: Tensor, clean: Tensor, noise_level: Tensor, sigmas: tuple[float, float]) -> Tensor:
    """Find the sigma of each image's Gaussian blur that makes its power spectrum likeliest (Whittle 1953).

    Each coefficient of the cosine transform is taken for normal, of variance gain S exp(-sigma^2 omega^2) + noise^2,
    where S is the mean power spectrum of the generator's images, and the gain, an image's contrast, is its likeliest.
    No latent is fitted: the likelihood is that of all images at once. A search for the latent and sigma together
    finds too much blur, for it blames on the blur what no latent explains (Levin et al. 2009).

    Args:
        observed: (B,C,H,W), blurred, in [-1, 1].
        clean: (N,C,H,W), images of the generator.
        noise_level: (B,) standard deviation of the noise, on the [0, 1] scale.
        sigmas: Least and greatest, in pixels.

    Returns:
        (B,) in pixels.
    """
    squared = _squared_frequencies(observed)
    used = squared > LOWEST**2
    spectrum = _power(clean).mean(0)[used]
    least, greatest = (math.log(sigma) for sigma in sigmas)
    tried = torch.linspace(least, greatest, CANDIDATES, dtype=torch.float64).to(squared)
    expected = spectrum * (-squared[used] * (2 * tried).exp()[:, None]).exp()  # (K, frequencies)
    losses = [
        _negative_log_likelihood(power[used], expected, noise**2)
        for power, noise in zip(_power(observed), noise_level.double(), strict=True)
    ]
    return _lowest(torch.stack(losses), tried).exp().to(observed)


def _squared_frequencies(images: Tensor) -> Tensor:
    """Return (H,W): the squared angular frequency of each coefficient, in radians a pixel."""
    rows, columns = (torch.linspace(0, math.pi, size, dtype=torch.float64).square() for size in images.shape[-2:])
    return (rows[:, None] + columns).to(images.device)


def _power(images: Tensor) -> Tensor:
    """Return (B,H,W) powers of the cosine transform, by which a blur that mirrors at the border only multiplies."""
    values = images.double() / 2
    values = values - values.mean((2, 3), keepdim=True)
    rows, columns = (_cosine_transform(size).to(values) for size in images.shape[-2:])
    powers: Tensor = (rows @ values @ columns.T).square().mean(1)
    return powers


def _cosine_transform(size: int) -> Tensor:
    """Make the matrix (size, size) of the cosine transform of type one, which leaves white noise's variance at one."""
    place = torch.arange(size, dtype=torch.float64)
    weights = torch.ones_like(place)
    weights[[0, -1]] = 0.5  # the mirror's images share these
    return torch.cos(math.pi / (size - 1) * place[:, None] * place) * weights * math.sqrt(2 / (size - 1))


def _negative_log_likelihood(power: Tensor, expected: Tensor, noise: Tensor) -> Tensor:
    """Return (K,): of powers (F,), for each of the expected spectra (K,F) at its likeliest gain."""
    gain = torch.ones_like(expected[:, :1])
    for _ in range(GAIN_STEPS):  # Fisher's scoring
        weight = (expected / (gain * expected + noise)).square()
        excess = ((power - noise) / expected.clamp(min=1e-300) * weight).sum(1, keepdim=True)
        gain = (excess / weight.sum(1, keepdim=True)).clamp(min=1e-3)
    variance = gain * expected + noise
    return (variance.log() + power / variance).sum(1)


def _lowest(losses: Tensor, places: Tensor) -> Tensor:
    """Return (B,): where the parabolas through the lowest of losses (B,K) and its neighbours are lowest."""
    middle = losses.argmin(1, keepdim=True).clamp(1, len(places) - 2)
    left, centre, right = (losses.gather(1, middle + shift)[:, 0] for shift in (-1, 0, 1))
    shift = 0.5 * (left - right) / (left - 2 * centre + right).clamp(min=1e-12)
    return places[middle[:, 0]] + shift.clamp(-1, 1) * (places[1] - places[0])
