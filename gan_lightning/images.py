"""Images as tensors: uint8 in [0, 255] on disk, float32 in [-1, 1] in the networks."""

from __future__ import annotations

import math
import os

import torch
from PIL import Image
from torch import Tensor

from gan_lightning.atomic import atomic_path

MAX_PIXELS = 89_478_485  # of a decoded file: Pillow's default limit, even if a program has changed that


def to_float(images: Tensor) -> Tensor:
    """Convert uint8 pixels in [0, 255] to float32 in [-1, 1], with the same shape and memory format."""
    return images.to(torch.float32).mul_(2 / 255).sub_(1)


def to_uint8(images: Tensor) -> Tensor:
    """Convert floats in [-1, 1] to the nearest uint8 pixels in [0, 255]; values outside are clamped."""
    return images.to(torch.float32).add(1).mul_(255 / 2).round_().clamp_(0, 255).to(torch.uint8)


def center_box(whole: tuple[int, int], part: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the center of an image, for Pillow's `crop`.

    Args:
        whole: Width and height of the image.
        part: Width and height of its center.
    """
    left, top = (round((side - inner) / 2) for side, inner in zip(whole, part, strict=True))
    return left, top, left + part[0], top + part[1]


def make_grid(images: Tensor, columns: int | None = None, padding: int = 2) -> Tensor:
    """Arrange a batch of images in a grid on white, row by row.

    Unlike torchvision's, the grid of gray images has one channel, and that of a single image has a border.

    Args:
        images: (B,C,H,W) float in [-1, 1], or uint8.
        columns: Number of images in a row; None for a nearly square grid.
        padding: Number of pixels between images and around them.

    Returns:
        (C, rows * (H + padding) + padding, columns * (W + padding) + padding) uint8.
    """
    pixels = (images if images.dtype == torch.uint8 else to_uint8(images)).cpu()
    count, channels, height, width = pixels.shape
    columns = min(columns or math.ceil(math.sqrt(count)), count)
    rows = math.ceil(count / columns)
    step_y, step_x = height + padding, width + padding
    grid = torch.full((channels, rows * step_y + padding, columns * step_x + padding), 255, dtype=torch.uint8)
    for index, image in enumerate(pixels):
        top = padding + index // columns * step_y
        left = padding + index % columns * step_x
        grid[:, top : top + height, left : left + width] = image
    return grid


def write_png(path: str | os.PathLike[str], image: Tensor) -> None:
    """Write an image as PNG atomically, and create its folder if needed.

    Args:
        path: Path of the file.
        image: (C,H,W) with one or three channels, float in [-1, 1] or uint8.
    """
    pixels = (image if image.dtype == torch.uint8 else to_uint8(image)).cpu()
    array = pixels[0].numpy() if pixels.shape[0] == 1 else pixels.permute(1, 2, 0).contiguous().numpy()
    with atomic_path(path) as beside:
        Image.fromarray(array).save(beside, format="PNG", optimize=False)
