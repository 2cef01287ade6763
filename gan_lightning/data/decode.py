"""From an image file to pixels: the one place that decides what an image looks like to the networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from gan_lightning.errors import InputError

RESIZER = "pillow-bicubic"
MAX_PIXELS = 89_478_485  # Pillow's default limit, which holds here even if the global one was changed


@dataclass(frozen=True)
class CropResize:
    """Center crop to a square, followed by antialiased bicubic resizing.

    Args:
        image_size: Height and width of the result in pixels.
        crop: Side of the centered square that is cut out, in pixels of the file. None for the largest square.
        channels: 1 for luminance (ITU-R 601), 3 for RGB.

    Raises:
        InputError: If a number is out of range.
    """

    image_size: int
    crop: int | None
    channels: int

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise InputError(f"image_size is {self.image_size}: set it to 1 or more.")
        if self.crop is not None and self.crop < 1:
            raise InputError(f"crop is {self.crop}: set it to 1 or more, or to null for the largest centered square.")
        if self.channels not in (1, 3):
            raise InputError(f"channels is {self.channels}: set it to 1 (grayscale) or 3 (RGB).")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (H,W,C) of one image."""
        return self.image_size, self.image_size, self.channels


class CropTooLargeError(InputError):
    """The crop is larger than an image: a wrong setting, not a broken file."""


def decode_image(path: Path, crop_resize: CropResize) -> NDArray[np.uint8]:
    """Decode an image file, turn it upright, crop and resize it.

    Args:
        path: The file, in any format and mode that Pillow reads. The first frame is used if there are several. 16-bit
            grayscale is scaled to 8 bits, and transparency is dropped.
        crop_resize: Crop, size and channels of the result.

    Returns:
        (H,W,C) uint8.

    Raises:
        CropTooLargeError: If the image is smaller than the crop.
        Exception: If the file is broken; Pillow's plugins raise nearly any class.
    """
    with Image.open(path) as opened:
        return to_pixels(turn_upright(opened), crop_resize, path)


def to_pixels(image: Image.Image, crop_resize: CropResize, name: object) -> NDArray[np.uint8]:
    """Crop and resize an upright image of any mode.

    Args:
        image: The image.
        crop_resize: Crop, size and channels of the result.
        name: Name of the image in an error message.

    Returns:
        (H,W,C) uint8.

    Raises:
        CropTooLargeError: If the image is smaller than the crop.
        ValueError: As `to_eight_bits`.
    """
    image = to_eight_bits(image).convert("L" if crop_resize.channels == 1 else "RGB")
    side = crop_resize.crop or min(image.size)
    if side > min(image.size):
        raise CropTooLargeError(
            f"{name} is {image.width} x {image.height}, smaller than the crop of {side}: set a smaller crop, or null."
        )
    image = resize_center(image, (side, side), (crop_resize.image_size, crop_resize.image_size))
    return np.asarray(image, dtype=np.uint8).reshape(crop_resize.shape)


def turn_upright(opened: Image.Image) -> Image.Image:
    """Decode an image that Pillow has opened, and turn it as its EXIF orientation says.

    Args:
        opened: The image, whose pixels are not decoded before its size was checked.

    Raises:
        ValueError: If it has more than `MAX_PIXELS` pixels.
        Exception: If it is broken; Pillow's plugins raise nearly any class.
    """
    if opened.width * opened.height > MAX_PIXELS:
        raise ValueError(f"{opened.width} x {opened.height} pixels are more than the limit of {MAX_PIXELS}")
    return ImageOps.exif_transpose(opened)


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Convert pixels of 16 bits, and floats in [0, 1], to 8 bits. Pillow's `convert` would clamp them at 255.

    Args:
        image: An image of any mode; one of 8 bits is returned unchanged.

    Raises:
        ValueError: If floats are not finite, or outside of [0, 1].
    """
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "F":
        pixels = np.asarray(image)
        if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
            raise ValueError("its pixels are floats outside of [0, 1], or not finite")
        return Image.fromarray((pixels * 255).round().astype(np.uint8))
    return image


def resize_center(image: Image.Image, crop: tuple[int, int], size: tuple[int, int]) -> Image.Image:
    """Cut out the center of an image and resize it (bicubic, antialiased).

    Args:
        image: An image of 8 bits, at least as large as the crop.
        crop: Width and height of the part that is cut out, in pixels.
        size: Width and height of the result.
    """
    left, top = (round((whole - part) / 2) for whole, part in zip(image.size, crop, strict=True))
    center = image.crop((left, top, left + crop[0], top + crop[1]))
    return center.resize(size, Image.Resampling.BICUBIC)
