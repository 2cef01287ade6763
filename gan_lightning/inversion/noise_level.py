"""How noisy a photograph is, told from the photograph alone."""

from __future__ import annotations

import torch
from torch import Tensor

NORMAL_MEDIAN = 0.6745  # the median of |x| for a standard normal x
FEWEST = 64  # details below which no estimate is made
VISIBLE = 0.02  # an estimate below may be the photograph's own texture


def estimate_noise_level(observed: Tensor, known: Tensor | None = None) -> Tensor:
    """Estimate the standard deviation of white noise by the median of diagonal Haar details (Donoho & Johnstone 1994).

    Fine texture of the image itself counts as noise: on clean photographs at 64 pixels the answer is about 0.01.

    Args:
        observed: (B,C,H,W) in [-1, 1].
        known: (1 or B,1,H,W) zeros and ones: which pixels to go by; all unless given.

    Returns:
        (B,) on the [0, 1] scale; 0 where too few pixels lie together.
    """
    pixels = observed / 2
    corners = (pixels[..., :-1, :-1], pixels[..., 1:, 1:], pixels[..., :-1, 1:], pixels[..., 1:, :-1])
    details = ((corners[0] + corners[1] - corners[2] - corners[3]) / 2).abs()
    if known is not None:
        usable = (known[..., :-1, :-1] * known[..., 1:, 1:] * known[..., :-1, 1:] * known[..., 1:, :-1]) > 0
        details = details.masked_fill(~usable, torch.nan)
    flat = details.flatten(1)
    enough = flat.isfinite().sum(1) >= FEWEST
    return torch.where(enough, flat.nanmedian(1).values / NORMAL_MEDIAN, 0.0)


def visible_noise(observed: Tensor, known: Tensor | None = None) -> Tensor:
    """Estimate the noise as `estimate_noise_level` does, where an estimate below 0.02 counts as none.

    Args:
        observed: (B,C,H,W) in [-1, 1].
        known: As for `estimate_noise_level`.

    Returns:
        (B,) on the [0, 1] scale.
    """
    noise = estimate_noise_level(observed, known)
    return noise * (noise > VISIBLE)
