"""Sensor and channel noise, seeded per image: the noise of an image depends on its index, not on its batch.

Noise levels refer to pixel values in [0, 1], as in the literature. Since images are in [-1, 1], a sigma of 0.1 is a
standard deviation of 0.2 in their values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gan_lightning.errors import InputError
from gan_lightning.seeding import image_rng


class Noise:
    """Base class of noise that is drawn separately for each image.

    Args:
        seed: Seed of the noise, combined with the index of each image.
        clip: Whether to clip noisy images to [-1, 1], as an 8-bit file would.
    """

    def __init__(self, seed: int = 0, clip: bool = False) -> None:
        self.seed, self.clip = seed, clip

    def __call__(self, images: Tensor, indices: Sequence[int] | None = None) -> Tensor:
        """Add noise to images.

        Args:
            images: (B,C,H,W) in [-1, 1].
            indices: Index of each image in its dataset; 0 to B - 1 by default.

        Returns:
            (B,C,H,W), the noisy images.
        """
        names = range(len(images)) if indices is None else indices
        # Drawn on the CPU, so that the noise is the same on every device.
        pairs = zip(images.cpu(), names, strict=True)
        noisy = torch.stack([self.corrupt(image, image_rng(self.seed, int(index), "noise")) for image, index in pairs])
        return (noisy.clamp_(-1, 1) if self.clip else noisy).to(images)

    def corrupt(self, image: Tensor, rng: torch.Generator) -> Tensor:
        """Return a noisy version of one image (C,H,W) in [-1, 1]."""
        raise NotImplementedError


class GaussianNoise(Noise):
    """Additive white Gaussian noise.

    Args:
        sigma: Standard deviation for pixel values in [0, 1], above 0.
        seed: Seed of the noise.
        clip: Whether to clip noisy images to [-1, 1].

    Raises:
        InputError: If `sigma` is not a finite number above 0.
    """

    def __init__(self, sigma: float, seed: int = 0, clip: bool = False) -> None:
        super().__init__(seed, clip)
        if not (sigma > 0 and math.isfinite(sigma)):
            raise InputError(f"sigma is {sigma}: it must be above 0, the standard deviation on the [0, 1] scale")
        self.sigma = sigma

    def corrupt(self, image: Tensor, rng: torch.Generator) -> Tensor:
        """Add Gaussian noise of standard deviation 2 sigma, since [-1, 1] is twice as wide as [0, 1]."""
        return image + 2 * self.sigma * torch.randn(image.shape, generator=rng, dtype=image.dtype)


class PoissonNoise(Noise):
    """Photon noise: Poisson counts with a mean of `peak` at white.

    Args:
        peak: Mean photon count of a white pixel, above 0. Smaller values are noisier.
        seed: Seed of the noise.
        clip: Whether to clip noisy images to [-1, 1].

    Raises:
        InputError: If `peak` is not a finite number above 0.
    """

    def __init__(self, peak: float, seed: int = 0, clip: bool = False) -> None:
        super().__init__(seed, clip)
        if not (peak > 0 and math.isfinite(peak)):
            raise InputError(f"peak is {peak}: it must be above 0, the mean photon count of a white pixel")
        self.peak = peak

    def corrupt(self, image: Tensor, rng: torch.Generator) -> Tensor:
        """Draw a photon count for each pixel."""
        rates = (image + 1).clamp(min=0) * (self.peak / 2)
        return torch.poisson(rates, generator=rng) * (2 / self.peak) - 1


class SaltAndPepperNoise(Noise):
    """Salt-and-pepper noise: random pixels turn black or white in all channels.

    Args:
        fraction: Probability that a pixel is replaced, in (0, 1]. Black and white are equally likely.
        seed: Seed of the noise.

    Raises:
        InputError: If `fraction` is out of range.
    """

    def __init__(self, fraction: float, seed: int = 0) -> None:
        super().__init__(seed)
        if not 0 < fraction <= 1:
            raise InputError(f"fraction is {fraction}: it must be above 0 and at most 1")
        self.fraction = fraction

    def corrupt(self, image: Tensor, rng: torch.Generator) -> Tensor:
        """Replace random pixels by black or white."""
        chance = torch.rand(1, *image.shape[1:], generator=rng, dtype=image.dtype)
        salted = image.masked_fill(chance < self.fraction, 1.0)
        return salted.masked_fill(chance < self.fraction / 2, -1.0)
