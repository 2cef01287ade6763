"""From an image file to pixels: the one place that decides what a picture looks like to the networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from gan_lightning.errors import InputError

RESIZER = "pillow-bicubic"
MAX_PIXELS = 89_478_485  # Pillow's own default limit, here whatever else has done to the global one


@dataclass(frozen=True)
class CropResize:
    """How a picture becomes an array: centre crop, then antialiased bicubic resizing.

    Args:
        image_size: Height and width of the result, in pixels.
        crop: Side of the centred square that is kept, in pixels of the file; None for the largest one.
        channels: 1 for luminance (ITU-R 601), 3 for RGB.

    Raises:
        InputError: If a number is not one of those.
    """

    image_size: int
    crop: int | None
    channels: int

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise InputError(f"image_size is {self.image_size}: give 1 or more.")
        if self.crop is not None and self.crop < 1:
            raise InputError(f"crop is {self.crop}: give 1 or more, or null for the largest centred square.")
        if self.channels not in (1, 3):
            raise InputError(f"channels is {self.channels}: give 1 (grayscale) or 3 (RGB).")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image."""
        return self.image_size, self.image_size, self.channels


class CropTooLargeError(InputError):
    """The crop does not fit into an image: a wrong setting, not a broken file."""


def decode_image(path: Path, framing: CropResize) -> NDArray[np.uint8]:
    """Decode, turn upright (EXIF), crop and resize one image file.

    Args:
        path: The file, of any format and mode that Pillow reads; the first frame of several. 16-bit grayscale is scaled
            to 8 bits, transparency is dropped.
        framing: Crop, size and channels.

    Returns:
        (H,W,C) uint8.

    Raises:
        CropTooLargeError: If the image is smaller than the crop.
        Exception: Pillow's plugins raise nearly anything on a broken file.
    """
    with Image.open(path) as opened:
        return frame_opened(opened, framing, path)


def frame_opened(opened: Image.Image, framing: CropResize, name: object) -> NDArray[np.uint8]:
    """Decode, turn upright (EXIF), crop and resize one image that Pillow has opened.

    Args:
        opened: As a file was opened: not decoded yet, or an image from memory.
        framing: Crop, size and channels.
        name: What to call it in an error.

    Returns:
        (H,W,C) uint8.

    Raises:
        CropTooLargeError: If the image is smaller than the crop.
        Exception: Pillow's plugins raise nearly anything on a broken file.
    """
    if opened.width * opened.height > MAX_PIXELS:
        raise ValueError(f"{opened.width} x {opened.height} pixels are more than the limit of {MAX_PIXELS}")
    return frame_image(ImageOps.exif_transpose(opened), framing, name)


def frame_image(image: Image.Image, framing: CropResize, name: object) -> NDArray[np.uint8]:
    """Crop and resize one image that is decoded already.

    Args:
        image: Of any mode, upright.
        framing: Crop, size and channels.
        name: What to call it in an error.

    Returns:
        (H,W,C) uint8.

    Raises:
        CropTooLargeError: If the image is smaller than the crop.
    """
    image = to_eight_bits(image).convert("L" if framing.channels == 1 else "RGB")
    side = framing.crop or min(image.size)
    if side > min(image.size):
        raise CropTooLargeError(
            f"{name} is {image.width} x {image.height}, smaller than the crop of {side}: set a smaller crop, or null."
        )
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    image = image.crop((left, top, left + side, top + side))
    image = image.resize((framing.image_size, framing.image_size), Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.uint8).reshape(framing.shape)


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Bring pixels of 16 bits, and floats in [0, 1], to 8 bits, where Pillow's `convert` would clamp them at 255.

    Raises:
        ValueError: Floats that are not finite, or outside of [0, 1].
    """
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "F":
        pixels = np.asarray(image)
        if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
            raise ValueError("its pixels are floats outside of [0, 1], or not finite")
        return Image.fromarray((pixels * 255).round().astype(np.uint8))
    return image
