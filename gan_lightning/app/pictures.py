"""The pictures that the page shows."""

from __future__ import annotations

import math
from typing import Final

import torch
from PIL import Image
from torch import Tensor

from gan_lightning.callbacks.restoration_pictures import color_map
from gan_lightning.images import to_uint8

SHOWN: Final = 384  # pixels of the side of a picture on the page, at least


def to_picture(image: Tensor) -> Image.Image:
    """Return an image (C,H,W), float in [-1, 1] or uint8, as Pillow has it."""
    pixels = (image if image.dtype == torch.uint8 else to_uint8(image)).cpu()
    return Image.fromarray(pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).contiguous().numpy())


def shown_side(image_size: int) -> int:
    """Return the side of the square on which a hole is painted: a multiple of the size of the generator's images."""
    return image_size * math.ceil(SHOWN / image_size)


def enlarge(picture: Image.Image, side: int) -> Image.Image:
    """Return a picture with each pixel repeated, so that the browser does not smooth it."""
    return picture.resize((side, side), Image.Resampling.NEAREST)


def spread_picture(spread: Tensor) -> Image.Image:
    """Return the spread (1,H,W) of the searches in color, on the [0, 1] scale: black is none, the brightest 0.25."""
    return to_picture(color_map(spread[0]))
