"""Smoothness of photographs: a stationary Gaussian prior.

The covariance is diagonal in the cosine transform whose functions are mirrored about the outermost pixels (DCT-I), as
blurred images are: it diagonalizes blurs too. Amplitudes fall with the frequency, as those of natural images do (Field
1987), and are much smaller for color than for brightness.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from gan_lightning.degradations.base import Degradation

EXPONENT = 1.5  # of the fall of the amplitudes with the frequency; 1 to 2 in photographs
BASIS_IMAGES = 64  # number of basis images that are degraded at once
CHROMA = 0.2  # standard deviation of each color direction, relative to that of the brightness


class SmoothnessPrior:
    """Zero-mean Gaussian prior of images (B,C,H,W), given by its variance at each frequency.

    Args:
        height: Height of the images.
        width: Width of the images.
        std: Standard deviation of a pixel.
        flat_below: Frequency in cycles per pixel below which the amplitudes no longer rise.
        like: Tensor with the dtype and device of the images.
    """

    def __init__(self, height: int, width: int, std: float, flat_below: float, like: Tensor) -> None:
        self.rows, self.columns = (cosine_basis(size).to(like) for size in (height, width))
        frequencies = [torch.arange(size) / (2 * max(size - 1, 1)) for size in (height, width)]
        squared = frequencies[0][:, None].square() + frequencies[1].square() + flat_below**2
        shape = squared**-EXPONENT
        self.variance = (std**2 * shape / shape.mean()).to(like)

    @cached_property
    def _inverses(self) -> list[Tensor]:
        """Inverses of both bases; only images with holes, and the noise of blurred ones, need them."""
        return [torch.linalg.inv(cosine_basis(len(basis))).to(basis) for basis in (self.rows, self.columns)]

    def images(self, coefficients: Tensor) -> Tensor:
        """Return the images with these coefficients: sums of the basis functions."""
        return self.rows.mT @ coefficients @ self.columns

    def products(self, images: Tensor) -> Tensor:
        """Return the inner products of images with the functions of the basis: the adjoint of `images`."""
        return self.rows @ images @ self.columns.mT

    def coefficients(self, images: Tensor) -> Tensor:
        """Return the coefficients of images: the inverse of `images`."""
        rows, columns = self._inverses
        return rows.mT @ images @ columns

    def multiply_by_precision(self, images: Tensor) -> Tensor:
        """Multiply images by the inverse covariance."""
        rows, columns = self._inverses
        return rows @ self.precision(self.coefficients(images)) @ columns.mT

    def multiply_by_covariance(self, images: Tensor) -> Tensor:
        """Multiply images by the covariance."""
        return self.images(_scale_color(self.products(images), CHROMA**2) * self.variance)

    def precision(self, coefficients: Tensor) -> Tensor:
        """Multiply coefficients by their inverse covariance."""
        return _scale_color(coefficients, CHROMA**-2) / self.variance


def _scale_color(values: Tensor, factor: float) -> Tensor:
    brightness = values.mean(1, keepdim=True)
    return brightness + factor * (values - brightness)


def cosine_basis(size: int) -> Tensor:
    """Return the functions of the discrete cosine transform (DCT-I), (size, size) in float64, lowest frequency first.

    They have norm one, and would be orthogonal if the outermost pixels did not count twice.
    """
    places = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(math.pi / max(size - 1, 1) * places[:, None] * places)
    return basis / basis.square().sum(1, keepdim=True).sqrt()


def operator_gain(prior: SmoothnessPrior, degradation: Degradation, like: Tensor, searches: int = 1) -> Tensor:
    """Estimate |A b|^2 for each basis image b of the cosine transform, as if A acted on rows and columns separately.

    Args:
        prior: Prior, whose basis is used.
        degradation: Linear forward operator A.
        like: Images (B,C,H,W), of which only the shape is used.
        searches: Number of successive images that have the same operator.

    Returns:
        (1 or B,1,H,W), for gray basis images, exact for blurs except at the border. It only speeds up the conjugate
        gradients.
    """
    rows, columns, (batch, channels) = prior.rows, prior.columns, like.shape[:2]

    def gains(part: Degradation, rows: Tensor, columns: Tensor) -> Tensor:
        images = rows[:, :, None] * columns[:, None] / math.sqrt(channels)
        degraded: Tensor = part(images[:, None].expand(-1, channels, -1, -1))
        return degraded.square().sum((1, 2, 3))

    # One operator at a time, the same for an image alone as for one in a batch.
    firsts = torch.arange(0, batch, searches, device=like.device)[:, None]
    own = degradation.select(firsts[0]) is not degradation
    parts = [degradation.select(first) for first in firsts] if own else [degradation]
    vertical, horizontal = (
        torch.stack([torch.cat([gains(part, *some) for some in chunks]) for part in parts])
        for chunks in (
            [(chunk, columns[:1]) for chunk in torch.split(rows, BASIS_IMAGES)],
            [(rows[:1], chunk) for chunk in torch.split(columns, BASIS_IMAGES)],
        )
    )
    # An operator may remove constants, which then carry no information.
    lowest = vertical[:, :1, None].maximum(1e-3 * vertical.amax(1)[:, None, None]).clamp(min=1e-12)
    gain = (vertical[:, :, None] * horizontal[:, None] / lowest)[:, None]
    return gain.repeat_interleave(searches, 0) if own else gain
