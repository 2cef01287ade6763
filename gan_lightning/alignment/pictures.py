"""Reading and writing of photographs for alignment: upright, gray or in color, with their transparency."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gan_lightning.alignment.frames import Frame, Matrix
from gan_lightning.alignment.warp import warp
from gan_lightning.atomic import atomic_path
from gan_lightning.data.decode import to_channels, to_eight_bits, turn_upright

Pixels = NDArray[np.uint8]


def read_upright(path: Path) -> Pixels:
    """Read an image of any mode, rotated by its EXIF orientation.

    Returns:
        (H,W,C) uint8 of 1 (gray), 2 (gray and alpha), 3 or 4 channels.

    Raises:
        Exception: If it cannot be read. Pillow's plugins raise nearly any class.
    """
    with Image.open(path) as opened:
        upright = turn_upright(opened)
        transparent = "A" in upright.getbands() or "transparency" in upright.info
        upright = to_eight_bits(upright)
        alpha = upright.convert("RGBA").getchannel("A") if transparent else None
        color = to_channels(upright, 1 if upright.mode in ("1", "L", "LA", "La") else 3)
    pixels = np.asarray(color).reshape(color.height, color.width, -1)
    return pixels if alpha is None else np.dstack([pixels, np.asarray(alpha)])


def color_of(pixels: Pixels) -> Pixels:
    """Return an image as color (H,W,3), without its transparency."""
    channels = pixels.shape[2]
    return np.ascontiguousarray(np.repeat(pixels[..., :1], 3, axis=2) if channels < 3 else pixels[..., :3])


def has_alpha(pixels: Pixels) -> bool:
    """Return whether the last channel of an image is its transparency."""
    return pixels.shape[2] in (2, 4)


def cut_out(pixels: Pixels, matrix: Matrix, frame: Frame) -> Pixels:
    """Return the aligned image (height,width,C) of a face; transparent colors do not bleed into their neighbors."""
    image = pixels.astype(np.float32)
    if has_alpha(pixels):
        image[..., :-1] *= image[..., -1:] / 255
    result = warp(image, matrix, frame.width, frame.height)
    if has_alpha(pixels):
        result[..., :-1] *= 255 / np.maximum(result[..., -1:], 1)
    return np.clip(np.rint(result), 0, 255).astype(np.uint8)


def write_image(path: Path, pixels: Pixels) -> None:
    """Write an image (H,W,C) of 1 to 4 channels as PNG, atomically."""
    with atomic_path(path) as beside:
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(beside, format="PNG")
