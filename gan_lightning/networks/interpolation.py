"""Paths through the latents of a generator."""

from __future__ import annotations

import torch
from torch import Tensor

PARALLEL = 1e-4  # angle in radians below which a straight line is used, which is then more accurate


def slerp(start: Tensor, end: Tensor, fractions: Tensor) -> Tensor:
    """Interpolate on a sphere (Shoemake 1985), because nearly all random latents have the same length.

    Directions turn at a constant rate, and lengths change linearly. There is no shortest arc between opposite latents.

    Args:
        start: Latents (N,D).
        end: Latents (N,D).
        fractions: (T) positions on the path, 0 at the start and 1 at the end.

    Returns:
        (N,T,D).
    """
    lengths = [latents.norm(dim=-1, keepdim=True)[:, None] for latents in (start, end)]
    one, other = (latents[:, None] / length for latents, length in zip((start, end), lengths, strict=True))
    angle = torch.acos((one * other).sum(-1, keepdim=True).clamp(-1, 1))
    way = fractions.to(start)[None, :, None]
    sine = angle.sin()
    arc = ((1 - way) * angle).sin() / sine * one + (way * angle).sin() / sine * other
    direction = torch.where(angle < PARALLEL, torch.lerp(one, other, way), arc)
    return torch.lerp(lengths[0], lengths[1], way) * direction


def closed_path(stations: Tensor, frames: int) -> Tensor:
    """Return latents (N, S * frames, D) on a path through stations (N,S,D) and back to the first."""
    following = stations.roll(-1, dims=1)
    fractions = torch.arange(frames) / frames
    parts = [slerp(stations[:, i], following[:, i], fractions) for i in range(stations.shape[1])]
    return torch.cat(parts, dim=1)
