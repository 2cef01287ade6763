"""Blind estimation of the noise level of a photograph."""

from __future__ import annotations

import torch
from torch import Tensor

from gan_lightning.degradations.base import Degradation
from gan_lightning.inversion.data_consistency import EIGHT_BITS, PHOTOGRAPH
from gan_lightning.inversion.smoothness import SmoothnessPrior, operator_gain

NORMAL_MEDIAN = 0.6745  # median of |x| for a standard normal x
MIN_DETAILS = 64  # number of wavelet coefficients that an estimate needs
VISIBLE = 0.02  # lower estimates may be due to the texture of the photograph


def estimate_noise_level(observed: Tensor, known: Tensor | None = None) -> Tensor:
    """Estimate the standard deviation of white noise from the median diagonal Haar detail (Donoho & Johnstone 1994).

    Fine texture of the image counts as noise: for clean photographs of 64 pixels the estimate is about 0.01.

    Args:
        observed: Noisy images (B,C,H,W) in [-1, 1].
        known: Mask (1 or B,1,H,W), one where a pixel is used; all pixels are used by default.

    Returns:
        (B,) standard deviation on the [0, 1] scale; 0 for an image with too few adjacent known pixels.
    """
    pixels = observed / 2
    corners = (pixels[..., :-1, :-1], pixels[..., 1:, 1:], pixels[..., :-1, 1:], pixels[..., 1:, :-1])
    details = ((corners[0] + corners[1] - corners[2] - corners[3]) / 2).abs()
    if known is not None:
        usable = (known[..., :-1, :-1] * known[..., 1:, 1:] * known[..., :-1, 1:] * known[..., 1:, :-1]) > 0
        details = details.masked_fill(~usable, torch.nan)
    flat = details.flatten(1)
    enough = flat.isfinite().sum(1) >= MIN_DETAILS
    return torch.where(enough, flat.nanmedian(1).values / NORMAL_MEDIAN, 0.0)


def visible_noise(observed: Tensor, known: Tensor | None = None) -> Tensor:
    """Estimate the noise level like `estimate_noise_level`, but return zero for estimates of 0.02 or less.

    Args:
        observed: Noisy images (B,C,H,W) in [-1, 1].
        known: Mask of the pixels to use, see `estimate_noise_level`.

    Returns:
        (B,) standard deviation on the [0, 1] scale.
    """
    noise = estimate_noise_level(observed, known)
    return noise * (noise > VISIBLE)


@torch.no_grad()
def noise_after_blur(observed: Tensor, degradation: Degradation) -> Tensor | None:
    """Estimate the standard deviation of white noise from the frequencies at which a blur leaves only noise.

    At these frequencies, the amplitudes of blurred photographs are below the rounding error of 8 bits.

    Args:
        observed: Noisy images (B,C,H,W) in [-1, 1], of the size of A(x).
        degradation: Forward operator A, which changes neither size nor channels.

    Returns:
        (B,) standard deviation on the [0, 1] scale, including the rounding to 8 bits; None if A removes too few
        frequencies.
    """
    std, flat_below = PHOTOGRAPH
    prior = SmoothnessPrior(observed.shape[-2], observed.shape[-1], std, flat_below, observed)
    power = operator_gain(prior, degradation, observed) * prior.variance
    empty = (power < EIGHT_BITS**2).expand(len(observed), *observed.shape[1:])
    if int(empty.flatten(1).sum(1).min()) < MIN_DETAILS:
        return None
    details = (prior.coefficients(observed) / 2).abs().masked_fill(~empty, torch.nan)
    return details.flatten(1).nanmedian(1).values / NORMAL_MEDIAN
