"""Blind estimation of the noise level of a photograph."""

from __future__ import annotations

import torch
from torch import Tensor

NORMAL_MEDIAN = 0.6745  # median of |x| for a standard normal x
MIN_DETAILS = 64  # fewer wavelet coefficients are too few for an estimate
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
