"""Separable degradations, y = M x M': blur and downsampling.

For small images, matrix products are the fastest implementation on a CPU. The adjoint is the product with the
transposed matrices.
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

TRUNCATE = 4.0  # radius of a Gaussian kernel in standard deviations, as in SciPy
LARGEST_SIDE = 1 << 16  # of any image, in pixels; the kernel of a wider blur would fill the memory


class Separable(Degradation):
    """Separable operator y = M_rows x M_columns', with matrices built once for each size of the images."""

    def __init__(self) -> None:
        super().__init__()
        self._matrices: dict[tuple[int, torch.dtype, torch.device], Tensor] = {}

    def matrix(self, size: int, like: Tensor) -> Tensor:
        """Return the matrix (output size, size), with the dtype and device of `like`."""
        raise NotImplementedError

    def input_size(self, output_size: int) -> int:
        """Return the input size for an output size."""
        return output_size

    def forward(self, images: Tensor) -> Tensor:
        """Degrade images (B,C,H,W)."""
        rows, columns = (self._built(size, images) for size in images.shape[-2:])
        return rows @ images @ columns.mT

    def adjoint(self, values: Tensor) -> Tensor:
        """Apply the transposed matrices."""
        rows, columns = (self._built(self.input_size(size), values) for size in values.shape[-2:])
        return rows.mT @ values @ columns

    def _built(self, size: int, like: Tensor) -> Tensor:
        key = size, like.dtype, like.device
        if key not in self._matrices:
            with torch.inference_mode(False), torch.no_grad():  # gradients must flow through later products
                self._matrices[key] = self.matrix(size, like)
        return self._matrices[key]


class GaussianBlur(Separable):
    """Gaussian blur, truncated at four standard deviations, with borders mirrored about the outermost pixel.

    Args:
        sigma: Standard deviation in pixels, above 0. A list has one value for each image of the batch.

    Raises:
        InputError: If a sigma is not a finite number above 0, or larger than any image. When called, if a sigma exceeds
            the side of the images or the number of sigmas differs from the number of images.
    """

    def __init__(self, sigma: float | Sequence[float]) -> None:
        super().__init__()
        widths = list(sigma) if isinstance(sigma, Sequence) else [float(sigma)]
        if not widths or not all(width > 0 and math.isfinite(width) for width in widths):
            raise InputError(f"sigma is {sigma}: it must be above 0, the standard deviation of the blur in pixels")
        if max(widths) > LARGEST_SIDE:
            raise InputError(f"sigma is {sigma}: it must not exceed the image's side, {LARGEST_SIDE} pixels at most")
        self.sigma = sigma
        # Each kernel is truncated at its own width, then padded, so that a blur does not depend on the batch.
        radius = max(map(kernel_radius, widths))
        taps = [F.pad(t, (radius - len(t) // 2,) * 2) for t in map(_taps_of, widths)]
        self.register_buffer("taps", torch.stack(taps), persistent=False)
        self.taps: Tensor

    def select(self, rows: Tensor) -> Degradation:
        """Return the blur of some images of the batch."""
        if len(self.taps) == 1:
            return self
        selected = GaussianBlur(1.0)
        selected.sigma, selected.taps = self.sigma, self.taps[rows.to(self.taps.device)]
        return selected

    def forward(self, images: Tensor) -> Tensor:
        """Blur images (B,C,H,W)."""
        if len(self.taps) not in (1, len(images)):
            raise InputError(f"got {len(self.taps)} sigmas for {len(images)} image(s): pass one, or one per image")
        return super().forward(images)

    def matrix(self, size: int, like: Tensor) -> Tensor:
        """Return the blur matrices, (1 or B, 1, size, size)."""
        if kernel_radius(size) < self.taps.shape[-1] // 2:
            raise InputError(f"sigma is {self.sigma}: it must not exceed the image's side of {size} pixels")
        return mirrored_matrix(self.taps.to(like), size)[:, None]


def _taps_of(sigma: float) -> Tensor:
    return gaussian_taps(torch.tensor(sigma), kernel_radius(sigma))


def kernel_radius(sigma: float) -> int:
    """Return the number of taps on each side of the center of a Gaussian kernel."""
    return int(TRUNCATE * sigma + 0.5)


def gaussian_taps(sigma: Tensor, radius: int) -> Tensor:
    """Return normalized Gaussian kernels (..., 2 * radius + 1), differentiable in sigma (...), in pixels."""
    offsets = torch.arange(-radius, radius + 1, device=sigma.device, dtype=sigma.dtype)
    return torch.softmax(-0.5 * (offsets / sigma[..., None]) ** 2, dim=-1)


def mirrored_matrix(taps: Tensor, size: int) -> Tensor:
    """Return the matrices (..., size, size) that filter a mirrored signal with kernels (..., taps).

    A pixel has images in both mirrors, and images of these. They are added in turn, so that zeros around a kernel do
    not change the result by a single bit.
    """
    radius = taps.shape[-1] // 2
    period = max(2 * (size - 1), 1)
    pixels = torch.arange(size, device=taps.device)
    inner = (pixels > 0) & (pixels < size - 1)  # the outermost pixels are their own mirror images
    matrix = taps.new_zeros(*taps.shape[:-1], size, size)
    reach = (radius + 2 * (size - 1)) // period
    for shift in range(-reach, reach + 1):
        for images, counted in ((pixels, inner | True), (-pixels, inner)):
            offsets = images + shift * period - pixels[:, None]  # from the output pixel to the image of the input pixel
            reached = (offsets.abs() <= radius) & counted
            weights = taps[..., (offsets + radius).clamp(0, 2 * radius)]
            matrix = matrix + torch.where(reached, weights, 0.0)
    return matrix


class Downsample(Separable):
    """Downsampling by an integer factor, the degradation of super-resolution.

    Args:
        factor: Number of input pixels per output pixel along each side, 2 or more. It must divide the image sides.
        method: Interpolation: "area" averages pixels, "bicubic" is antialiased, as in torchvision and Pillow.

    Raises:
        InputError: If the factor is not an integer of 2 or more, or the method is unknown. When called, if the factor
            does not divide a side of the images.
    """

    def __init__(self, factor: int, method: Literal["area", "bicubic"] = "area") -> None:
        super().__init__()
        if not 2 <= factor < math.inf or factor != int(factor):
            raise InputError(f"factor is {factor}: it must be an integer of 2 or more")
        if method not in ("area", "bicubic"):
            raise InputError(f"unknown method {method!r}: choose area or bicubic")
        self.factor, self.method = int(factor), method

    def input_size(self, output_size: int) -> int:
        """Return the size before downsampling."""
        return output_size * self.factor

    def matrix(self, size: int, like: Tensor) -> Tensor:
        """Return the matrix whose columns are the downsampled unit impulses."""
        if size % self.factor:
            raise InputError(
                f"factor {self.factor} does not divide the image's side of {size} pixels: choose one that does"
            )
        impulses = torch.eye(size, device=like.device, dtype=like.dtype)[None, None]
        shape = (size // self.factor, size)
        if self.method == "area":
            return F.interpolate(impulses, shape, mode="area")[0, 0]
        return F.interpolate(impulses, shape, mode="bicubic", antialias=True, align_corners=False)[0, 0]
