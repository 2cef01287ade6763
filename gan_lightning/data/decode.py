"""Decoding of image files, shared by all data modules: orientation, bit depth, channels, crop and size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ExifTags import Base
from PIL.TiffImagePlugin import TiffImageFile

from gan_lightning.errors import InputError
from gan_lightning.images import MAX_PIXELS, center_box

RESIZER = "pillow-bicubic"
FULL_RANGE = 1 << 14  # integers of more than 8 bits that reach this value are assumed to use 16 bits, not 10, 12 or 14


@dataclass(frozen=True)
class CropResize:
    """Center crop to a square, followed by antialiased bicubic resizing.

    Args:
        image_size: Height and width of the result in pixels.
        crop: Side of the centered square, in pixels of the file. None for the largest square.
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
        path: The file, in any format and mode that Pillow reads. The first frame is used if there are several. Pixels
            of more than 8 bits are converted by `to_eight_bits`. Transparency and color profiles are dropped.
        crop_resize: Crop, size and channels of the result.

    Returns:
        (H,W,C) uint8.

    Raises:
        CropTooLargeError: If the image is smaller than the crop.
        Exception: If the file is broken. Pillow's plugins raise nearly any class.
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
        ValueError: As for `to_eight_bits`.
    """
    image = to_channels(to_eight_bits(image), crop_resize.channels)
    side = crop_resize.crop or min(image.size)
    if side > min(image.size):
        raise CropTooLargeError(
            f"{name} is {image.width} x {image.height}, smaller than the crop of {side}: set a smaller crop, or null."
        )
    image = resize_center(image, (side, side), (crop_resize.image_size, crop_resize.image_size))
    return np.asarray(image, dtype=np.uint8).reshape(crop_resize.shape)


def turn_upright(opened: Image.Image) -> Image.Image:
    """Decode an image that Pillow has opened, and rotate it by its EXIF orientation.

    Args:
        opened: The image. Its size is checked before its pixels are decoded.

    Raises:
        ValueError: If it has more than `MAX_PIXELS` pixels, or if it has 16-bit color, of which Pillow keeps the upper
            8 bits, and is so dark that the range of its pixels is ambiguous.
        Exception: If it is broken. Pillow's plugins raise nearly any class.
    """
    if opened.width * opened.height > MAX_PIXELS:
        raise ValueError(f"{opened.width} x {opened.height} pixels are more than the limit of {MAX_PIXELS}")
    halved = ";16" in str(getattr(opened, "tile", "")) and not opened.mode.startswith("I")
    upright = ImageOps.exif_transpose(opened)
    if halved:
        channels = zip(upright.getbands(), upright.split(), strict=True)
        if max(np.asarray(channel).max() for name, channel in channels if name not in "Aa") < FULL_RANGE >> 8:
            raise ValueError("the range of its 16-bit integers cannot be told: none uses the upper 2 bits")
    return upright


def upright_size(path: Path) -> tuple[int, int]:
    """Return width and height of the upright image of a file without decoding it."""
    with Image.open(path) as opened:
        turned = opened.getexif().get(0x0112, 1) > 4  # by 90 degrees: the orientations 5 to 8
        width, height = opened.size
        if isinstance(opened, TiffImageFile):  # some versions of Pillow have turned this size already
            width, height = opened.tag_v2[Base.ImageWidth], opened.tag_v2[Base.ImageLength]
        return (height, width) if turned else (width, height)


def to_channels(image: Image.Image, channels: int) -> Image.Image:
    """Convert an image of 8 bits and any mode to luminance (1) or RGB (3), without transparency."""
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # has the same colors; Pillow warns about the direct conversion
    elif image.mode == "LAB":
        image = image.convert("RGB")  # the only way from there
    return image.convert("L" if channels == 1 else "RGB")


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Convert integers of 16 or 32 bits, and floats in [0, 1], to 8 bits. Pillow's `convert` would clamp them at 255.

    No file format states which part of their range integers use. They are assumed to use 8 bits if the largest is at
    most 255, and 16 bits if it is in [16384, 65535].

    Args:
        image: An image of any mode. An 8-bit image is returned unchanged.

    Raises:
        ValueError: If the range of integers is ambiguous, or if floats are not finite or outside of [0, 1].
    """
    if image.mode.startswith("I"):
        values = np.asarray(image)
        low, high = int(values.min()), int(values.max())
        if low < 0 or 255 < high < FULL_RANGE or high > 65535:
            bits = 16 if image.mode.startswith("I;16") else 32
            raise ValueError(f"the range of its {bits}-bit integers, {low} to {high}, cannot be told")
        return Image.fromarray((values >> 8 if high > 255 else values).astype(np.uint8))
    if image.mode == "F":
        pixels = np.asarray(image)
        if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
            raise ValueError("its pixels are floats outside of [0, 1], or not finite")
        return Image.fromarray((pixels * 255).round().astype(np.uint8))
    return image


def resize_center(image: Image.Image, crop: tuple[int, int], size: tuple[int, int]) -> Image.Image:
    """Crop an image to its center and resize it (bicubic, antialiased).

    Args:
        image: An 8-bit image, at least as large as the crop.
        crop: Width and height of the crop, in pixels.
        size: Width and height of the result.
    """
    return image.crop(center_box(image.size, crop)).resize(size, Image.Resampling.BICUBIC)


def describe_failure(error: Exception, path: Path) -> str:
    """Return in a few words why a file could not be decoded, without its path."""
    if isinstance(error, FileNotFoundError):
        return "the file is missing"
    if isinstance(error, UnidentifiedImageError):
        return "the file is empty" if path.is_file() and not path.stat().st_size else "its format is unknown"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or repr(error)
