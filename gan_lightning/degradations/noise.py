"""Noise of sensors and channels, seeded per image: what an image gets depends on its index, not on its batch.

All levels are on the [0, 1] scale of pixels, on which the literature states them; the images are in [-1, 1], so that a
sigma of 0.1 moves their values by 0.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gan_lightning.errors import InputError
from gan_lightning.seeding import image_rng


class Noise:
    """Noise that is drawn image by image.

    Args:
        seed: Seed of the draws, together with each image's index.
        clip: Cut the result to [-1, 1], as a file of 8 bits would.
    """

    def __init__(self, seed: int = 0, clip: bool = False) -> None:
        self.seed, self.clip = seed, clip

    def __call__(self, images: Tensor, indices: Sequence[int] | None = None) -> Tensor:
        """Add noise to images.

        Args:
            images: (B,C,H,W) in [-1, 1].
            indices: Index of each image in its data set; 0 to B - 1 unless given.

        Returns:
            (B,C,H,W), noisy.
        """
        names = range(len(images)) if indices is None else indices
        # Drawn on the CPU, so that every device sees the same noise.
        pairs = zip(images.cpu(), names, strict=True)
        noisy = torch.stack([self.draw(image, image_rng(self.seed, int(index), "noise")) for image, index in pairs])
        return (noisy.clamp_(-1, 1) if self.clip else noisy).to(images)

    def draw(self, image: Tensor, rng: torch.Generator) -> Tensor:
        """Make the noisy version of one image (C,H,W) in [-1, 1]."""
        raise NotImplementedError


class GaussianNoise(Noise):
    """Additive white Gaussian noise.

    Args:
        sigma: Standard deviation on the [0, 1] scale, above 0.
        seed: Seed of the draws.
        clip: Cut the result to [-1, 1].

    Raises:
        InputError: A sigma that is not a number above 0.
    """

    def __init__(self, sigma: float, seed: int = 0, clip: bool = False) -> None:
        super().__init__(seed, clip)
        if not (sigma > 0 and math.isfinite(sigma)):
            raise InputError(f"sigma is {sigma}: give the noise's standard deviation on the [0, 1] scale, above 0")
        self.sigma = sigma

    def draw(self, image: Tensor, rng: torch.Generator) -> Tensor:
        """Add 2 sigma times a standard normal: [-1, 1] is twice as wide as [0, 1]."""
        return image + 2 * self.sigma * torch.randn(image.shape, generator=rng, dtype=image.dtype)


class PoissonNoise(Noise):
    """Photon noise: counts of a mean of `peak` at white.

    Args:
        peak: Mean count at a pixel value of 1 on the [0, 1] scale, above 0; the smaller, the noisier.
        seed: Seed of the draws.
        clip: Cut the result to [-1, 1].

    Raises:
        InputError: A peak that is not a number above 0.
    """

    def __init__(self, peak: float, seed: int = 0, clip: bool = False) -> None:
        super().__init__(seed, clip)
        if not (peak > 0 and math.isfinite(peak)):
            raise InputError(f"peak is {peak}: give the mean count of photons at white, above 0")
        self.peak = peak

    def draw(self, image: Tensor, rng: torch.Generator) -> Tensor:
        """Count photons."""
        rates = (image + 1).clamp(min=0) * (self.peak / 2)
        return torch.poisson(rates, generator=rng) * (2 / self.peak) - 1


class SaltAndPepperNoise(Noise):
    """Pixels replaced by black or white, in all channels at once.

    Args:
        fraction: Probability that a pixel is replaced, above 0 and at most 1; half of them turn black.
        seed: Seed of the draws.

    Raises:
        InputError: A fraction out of range.
    """

    def __init__(self, fraction: float, seed: int = 0) -> None:
        super().__init__(seed)
        if not 0 < fraction <= 1:
            raise InputError(f"fraction is {fraction}: give the share of replaced pixels, above 0 and at most 1")
        self.fraction = fraction

    def draw(self, image: Tensor, rng: torch.Generator) -> Tensor:
        """Replace pixels."""
        chance = torch.rand(1, *image.shape[1:], generator=rng, dtype=image.dtype)
        salted = image.masked_fill(chance < self.fraction, 1.0)
        return salted.masked_fill(chance < self.fraction / 2, -1.0)
