"""Random forward operators and noise, for training a network on images that are degraded in any of these ways."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from gan_lightning.degradations.base import Degradation, Identity
from gan_lightning.degradations.color import Grayscale
from gan_lightning.degradations.masks import RandomMask, SquareMask
from gan_lightning.degradations.separable import Downsample, GaussianBlur

KINDS = ("identity", "blur", "square", "pixels", "grayscale", "downsample")
NOISE = 0.15  # maximum standard deviation of the noise, on the [0, 1] scale
BLUR = 0.04  # maximum standard deviation of the blur, as a fraction of the image size


def degrade_at_random(images: Tensor, rng: torch.Generator) -> Tensor:
    """Degrade images with each kind of degradation in turn, and half of them with noise.

    Args:
        images: (B,C,H,W) in [-1, 1].
        rng: Random generator on the CPU.

    Returns:
        (B,C,H,W): smaller images are enlarged and gray ones repeated over the channels.
    """
    result = torch.empty_like(images)
    first = int(torch.randint(len(KINDS), (), generator=rng))
    for place, rows in enumerate(torch.arange(len(images)).chunk(len(KINDS))):
        kind = KINDS[(first + place) % len(KINDS)]
        degraded = random_degradation(kind, images.shape[1], images.shape[-1], rng).to(images.device)(images[rows])
        sigma = NOISE * (2 * torch.rand(len(rows), 1, 1, 1, generator=rng) - 1).clamp(min=0)
        degraded = degraded + (2 * sigma * torch.randn(degraded.shape, generator=rng)).to(images)
        result[rows] = F.interpolate(degraded, images.shape[-2:], mode="bilinear").expand_as(images[rows])
    return result


def random_degradation(kind: str, channels: int, image_size: int, rng: torch.Generator) -> Degradation:
    """Return a degradation of a kind, with a random strength or position."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=rng))

    if kind == "blur":
        return GaussianBlur(uniform(0.3, max(0.5, BLUR * image_size)))
    if kind == "square":
        hole = round(uniform(image_size / 8, image_size / 2))
        top, left = (round(uniform(0, image_size - hole)) for _ in range(2))
        return SquareMask(image_size, hole, top, left)
    if kind == "pixels":
        return RandomMask(image_size, uniform(0.1, 0.9), seed=int(torch.randint(2**31, (), generator=rng)))
    if kind == "grayscale":
        return Grayscale(channels)
    if kind == "downsample":
        return Downsample((2, 4)[int(torch.randint(2, (), generator=rng))])
    return Identity()
