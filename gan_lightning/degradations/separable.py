"""Degradations that treat rows and columns alike, by one matrix: blur and downsampling.

As y = M x M', at the sizes of our images a matrix product is the fastest way on a CPU, its transpose is the adjoint,
and derivatives of every kind, of the matrix too, come by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from gan_lightning.degradations.base import Degradation
from gan_lightning.errors import InputError

TRUNCATE = 4.0  # standard deviations of a Gaussian kernel on each side, as in SciPy


class Separable(Degradation):
    """y = M_rows x M_columns', the matrices made for the size at hand."""

    def matrix(self, size: int, like: Tensor) -> Tensor:
        """Make the (output size, size) matrix, of the dtype and on the device of `like`."""
        raise NotImplementedError

    def input_size(self, output_size: int) -> int:
        """Tell the size whose output has this size."""
        return output_size

    def forward(self, images: Tensor) -> Tensor:
        """Degrade images (B,C,H,W)."""
        height, width = images.shape[-2:]
        return self.matrix(height, images) @ images @ self.matrix(width, images).mT

    def adjoint(self, values: Tensor) -> Tensor:
        """Apply the transposed matrices."""
        height, width = (self.input_size(size) for size in values.shape[-2:])
        return self.matrix(height, values).mT @ values @ self.matrix(width, values)


class GaussianBlur(Separable):
    """Blur by a Gaussian, cut off at four standard deviations; borders are mirrored about the outermost pixel.

    Args:
        sigma: Standard deviation in pixels, above 0; a list gives each image of the batch its own.

    Raises:
        InputError: A sigma that is not a number above 0; at the call, one above the image's side, or another number of
            sigmas than of images.
    """

    def __init__(self, sigma: float | Sequence[float]) -> None:
        super().__init__()
        widths = list(sigma) if isinstance(sigma, Sequence) else [float(sigma)]
        if not widths or not all(width > 0 and math.isfinite(width) for width in widths):
            raise InputError(f"sigma is {sigma}: give the blur's standard deviation in pixels, above 0")
        self.sigma = sigma
        # Each kernel is cut at its own width and then padded: no image's blur depends on the others of its batch.
        self._radii = [kernel_radius(width) for width in widths]
        radius = max(self._radii)
        taps = [F.pad(t, (radius - len(t) // 2,) * 2) for t in map(_taps_of, widths)]
        self.register_buffer("taps", torch.stack(taps), persistent=False)
        self.taps: Tensor

    def select(self, rows: Tensor) -> Degradation:
        """Return the blurs of some images of the batch."""
        return GaussianBlur([self.sigma[row] for row in rows.tolist()]) if isinstance(self.sigma, Sequence) else self

    def forward(self, images: Tensor) -> Tensor:
        """Blur images (B,C,H,W)."""
        if len(self.taps) not in (1, len(images)):
            raise InputError(f"{len(self.taps)} sigmas met {len(images)} image(s): give one sigma, or one an image")
        return super().forward(images)

    def matrix(self, size: int, like: Tensor) -> Tensor:
        """Make the blur's matrices, (1 or B, 1, size, size)."""
        center = self.taps.shape[-1] // 2
        if kernel_radius(size) < center:
            raise InputError(f"sigma is {self.sigma}: give no more than the image's side of {size} pixels")
        # Without the padding, which would change the order of the sums, and so the last bit.
        kernels = [
            taps[center - radius : center + radius + 1]
            for taps, radius in zip(self.taps.to(like), self._radii, strict=True)
        ]
        return torch.stack([mirrored_matrix(kernel, size) for kernel in kernels])[:, None]


def _taps_of(sigma: float) -> Tensor:
    return gaussian_taps(torch.tensor(sigma), kernel_radius(sigma))


def kernel_radius(sigma: float) -> int:
    """Tell how many taps a Gaussian kernel has on each side."""
    return int(TRUNCATE * sigma + 0.5)


def gaussian_taps(sigma: Tensor, radius: int) -> Tensor:
    """Make normalised Gaussian kernels (..., 2 * radius + 1), differentiable in sigma (...), in pixels."""
    offsets = torch.arange(-radius, radius + 1, device=sigma.device, dtype=sigma.dtype)
    return torch.softmax(-0.5 * (offsets / sigma[..., None]) ** 2, dim=-1)


def mirrored_matrix(taps: Tensor, size: int) -> Tensor:
    """Make the matrices (..., size, size) that filter a line with kernels (..., taps), its ends mirrored."""
    radius = taps.shape[-1] // 2
    period = max(2 * (size - 1), 1)
    offsets = torch.arange(-radius, radius + 1, device=taps.device)
    sources = (torch.arange(size, device=taps.device)[:, None] + offsets).remainder(period)
    sources = torch.minimum(sources, period - sources).clamp_(max=size - 1)
    placed = F.one_hot(sources, size).to(taps.dtype)  # (size, taps, size): where each tap falls
    return torch.einsum("...t,itj->...ij", taps, placed)


class Downsample(Separable):
    """Fewer pixels: the degradation of super-resolution.

    Args:
        factor: Input pixels to one output pixel along each side, 2 or more; it must divide the image's sides.
        method: "area" averages; "bicubic" is the antialiased one of torchvision and Pillow.

    Raises:
        InputError: A factor below 2 or a method that is not known; at the call, a side that the factor does not divide.
    """

    def __init__(self, factor: int, method: Literal["area", "bicubic"] = "area") -> None:
        super().__init__()
        if not 2 <= factor < math.inf or factor != int(factor):
            raise InputError(f"factor is {factor}: give a whole number, 2 or more")
        if method not in ("area", "bicubic"):
            raise InputError(f"method {method!r} is not known: choose area or bicubic")
        self.factor, self.method = int(factor), method

    def input_size(self, output_size: int) -> int:
        """Tell the larger size."""
        return output_size * self.factor

    def matrix(self, size: int, like: Tensor) -> Tensor:
        """Make the matrix from the method's answer to unit impulses."""
        if size % self.factor:
            raise InputError(
                f"factor {self.factor} does not divide the image's side of {size} pixels: choose one that does"
            )
        impulses = torch.eye(size, device=like.device, dtype=like.dtype)[None, None]
        shape = (size // self.factor, size)
        if self.method == "area":
            return F.interpolate(impulses, shape, mode="area")[0, 0]
        return F.interpolate(impulses, shape, mode="bicubic", antialias=True, align_corners=False)[0, 0]
