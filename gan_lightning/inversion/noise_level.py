"""How noisy a photograph is, told from the photograph alone."""

from __future__ import annotations

import torch
from torch import Tensor

NORMAL_MEDIAN = 0.6745  # the median of |x| for a standard normal x
FEWEST = 64  # details below which no estimate is made


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
