"""Antialiased resampling of an image under a similarity transform, and pasting back with a soft border."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gan_lightning.alignment.frames import Frame, Matrix, apply, inverse, scale_of

BORDER = 0.1  # distance from the border, relative to the side of the frame, over which a pasted face fades in
CHANGED = 2  # gray levels; smaller differences are rounding errors, and the photograph's own pixels are kept


def warp(pixels: NDArray[Any], matrix: Matrix, width: int, height: int) -> NDArray[np.float32]:
    """Resample an image under a similarity transform, with one bicubic interpolation.

    If the result is smaller, the image is first blurred in proportion to the scale. Beyond its borders, the image is
    mirrored.

    Args:
        pixels: (H,W,C).
        matrix: (2,3), from points of the image to points of the result.
        width: Width of the result.
        height: Height of the result.

    Returns:
        (height,width,C) in the range of the pixels, except for overshoots.
    """
    back, scale = inverse(matrix), scale_of(matrix)
    radius = 0.0 if scale > 0.999 else 0.5 * math.sqrt(scale**-2 - 1)
    corners = apply(back, np.array([(0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1)], np.float64))
    reach = math.ceil(3 * radius) + 3
    (left, right), (top, bottom) = (
        _covered(corners[:, axis].min() - reach, corners[:, axis].max() + reach, pixels.shape[1 - axis])
        for axis in (0, 1)
    )
    part = torch.from_numpy(np.array(pixels[top:bottom, left:right], dtype=np.float32)).permute(2, 0, 1)[None]
    part = _blur(part, radius)
    x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    points = apply(back, np.stack([x.ravel(), y.ravel()], axis=1)).reshape(height, width, 2)
    return np.asarray(_sample(part, points - (left, top), "bicubic")[0].permute(1, 2, 0).numpy())


def paste(
    photo: NDArray[np.uint8],
    face: NDArray[np.uint8],
    matrix: Matrix,
    frame: Frame,
    aligned: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Put a face back into its photograph, at the resolution of the photograph, fading in at the border of its frame.

    Args:
        photo: (H,W,C) photograph.
        face: (h,w,C) face in the frame, of any size of the same shape.
        matrix: (2,3), from the photograph to the frame.
        frame: The frame.
        aligned: (height,width,C) the original aligned image. Where the face equals it, the photograph keeps its pixels
            with their details. None to replace the whole frame.

    Returns:
        (H,W,C). Only the area of the frame differs from the photograph.
    """
    corners = apply(inverse(matrix), frame.corners())
    height, width = photo.shape[:2]
    left, top = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
    right, bottom = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 1, (width, height))
    result = photo.copy()
    if left >= right or top >= bottom:
        return result
    x, y = np.meshgrid(np.arange(left, right, dtype=np.float64), np.arange(top, bottom, dtype=np.float64))
    points = apply(matrix, np.stack([x.ravel(), y.ravel()], axis=1)).reshape(*x.shape, 2)
    enlarged = face.shape[1] / frame.width  # a face may be larger after super-resolution
    shift = np.array([(left, top)])
    to_face = np.column_stack([matrix[:, :2], apply(matrix, shift)[0]]) * enlarged
    to_face[:, 2] += 0.5 * enlarged - 0.5
    sampled = warp(face, inverse(to_face), right - left, bottom - top)
    weight = border_weight(points, frame)
    if aligned is not None and aligned.shape == face.shape:
        weight = weight * _sample(_changed(face, aligned), points, "bilinear")[0, 0].numpy()
    area = photo[top:bottom, left:right].astype(np.float32)
    mixed = area + weight[..., None].astype(np.float32) * (sampled - area)
    result[top:bottom, left:right] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
    return result


def border_weight(points: NDArray[np.float64], frame: Frame) -> NDArray[np.float64]:
    """Return weights in [0, 1] of points of a frame: 0 at its border and outside, 1 inside, smooth in between."""
    x, y = points[..., 0], points[..., 1]
    distance = np.minimum(np.minimum(x, frame.width - 1 - x), np.minimum(y, frame.height - 1 - y))
    t = np.clip(distance / (BORDER * min(frame.width, frame.height)), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def _changed(face: NDArray[np.uint8], aligned: NDArray[np.uint8]) -> Tensor:
    """Return a float mask (1,1,h,w) of the pixels in which two images differ, extended by one pixel."""
    differs = np.abs(face.astype(np.int16) - aligned.astype(np.int16)).max(axis=2) >= CHANGED
    return F.max_pool2d(torch.from_numpy(differs.astype(np.float32))[None, None], 3, stride=1, padding=1)


def _covered(low: float, high: float, size: int) -> tuple[int, int]:
    """Return the range of pixels that are read; all of them if the image is mirrored at a border."""
    return (0, size) if low < 0 or high > size - 1 else (math.floor(low), math.ceil(high) + 1)


def _blur(images: Tensor, sigma: float) -> Tensor:
    """Convolve images (B,C,H,W) with a Gaussian, mirrored at the borders."""
    if sigma < 0.05:
        return images
    reach = math.ceil(3 * sigma)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    batch, channels, height, width = images.shape
    flat = images.reshape(batch * channels, 1, height, width)
    for kind, size in ((kernel[None, None, :, None], height), (kernel[None, None, None], width)):
        rows = _mirrored(torch.arange(-reach, size + reach), size)
        flat = F.conv2d(flat.index_select(2 if kind.shape[2] > 1 else 3, rows), kind)
    return flat.reshape(batch, channels, height, width)


def _mirrored(index: Tensor, size: int) -> Tensor:
    """Mirror positions outside of an axis at the outermost pixels."""
    period = max(2 * (size - 1), 1)
    index = index.remainder(period)
    return torch.minimum(index, period - index) if size > 1 else torch.zeros_like(index)


def _sample(images: Tensor, points: NDArray[np.float64], mode: str) -> Tensor:
    """Return the pixels (B,C,h,w) of images at points (h,w,2)."""
    size = np.array([images.shape[3], images.shape[2]], np.float64)
    grid = torch.from_numpy(2 * points / np.maximum(size - 1, 1) - 1)[None]
    return F.grid_sample(images.double(), grid, mode=mode, padding_mode="reflection", align_corners=True).float()
