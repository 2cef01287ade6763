"""Reading of a photograph into the format of a model: upright, and cropped and resized on request, or refused."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms
from torch import Tensor

from gan_lightning.data.decode import resize_center, to_channels, to_eight_bits, turn_upright
from gan_lightning.errors import InputError
from gan_lightning.file_names import printable
from gan_lightning.images import to_float

Resize = Literal["refuse", "center_crop", "centre_crop"]
GRAY_TOLERANCE = 2  # maximum difference between the channels of a gray photograph, after JPEG


@dataclass(frozen=True)
class PhotoFormat:
    """Shape of the photographs that a model expects.

    Attributes:
        channels: 1 or 3. Gray photographs become three equal channels; color is never dropped.
        height: Height in pixels.
        width: Width in pixels.
    """

    channels: int
    height: int
    width: int


def read_photo(
    path: Path,
    photo_format: PhotoFormat,
    resize: Resize = "refuse",
    known: NDArray[np.bool_] | None = None,
    to_gray: bool = False,
) -> tuple[Tensor, Tensor]:
    """Decode one photograph, turn it upright, and convert its colors to sRGB.

    Args:
        path: The file.
        photo_format: Format of the result.
        resize: As for `Photos`.
        known: (H,W) known pixels of the upright photograph; ignored if it has another size.
        to_gray: As for `Photos`.

    Returns:
        (C,H,W) float32 in [-1, 1], and its alpha channel (1,H,W) in [0, 1].

    Raises:
        InputError: If the photograph does not fit the format.
        Exception: If it cannot be read.
    """
    with Image.open(path) as opened:
        upright = turn_upright(opened)
        transparent = "A" in upright.getbands() or "transparency" in upright.info
        color = _to_gray_or_rgb(_to_srgb(upright), path, photo_format, to_gray)
        alpha = upright.convert("RGBA").getchannel("A") if transparent else Image.new("L", upright.size, 255)
    color.info.pop("transparency", None)
    visible = np.asarray(alpha)
    if known is not None and known.shape == visible.shape:
        visible = visible * known
    if visible.min() < 255:  # Pillow weights colors by alpha, so that hidden colors do not affect others
        color.putalpha(Image.fromarray(visible))
    fitted, opacity = _fit(color, path, photo_format, resize), np.array(_fit(alpha, path, photo_format, resize))
    pixels = np.array(fitted.convert("L" if photo_format.channels == 1 else "RGB"))
    if opacity.max() < 128:
        raise ValueError("it is fully transparent")
    image = torch.from_numpy(pixels.reshape(photo_format.height, photo_format.width, photo_format.channels))
    return to_float(image.permute(2, 0, 1)), torch.from_numpy(opacity)[None] / 255


def has_frames(path: Path) -> bool:
    """Return whether a file has several frames or pages; the further images of an MPO belong to the first."""
    with Image.open(path) as opened:
        return opened.format != "MPO" and bool(getattr(opened, "is_animated", False))


def check_resize(resize: str) -> None:
    """Raise an InputError if a value of the option `resize` is unsupported."""
    if resize not in get_args(Resize):
        raise InputError(f"resize {resize!r} is unsupported: choose refuse or center_crop")


def _to_srgb(image: Image.Image) -> Image.Image:
    """Return an image in the colors that restored ones are shown in; they have no color profile."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK"):
        return image
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return image
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, ImportError, OSError):  # a broken profile; a Pillow without profiles
        return image
    return image if converted is None else converted


def _to_gray_or_rgb(image: Image.Image, path: Path, photo_format: PhotoFormat, to_gray: bool) -> Image.Image:
    image = to_eight_bits(image)
    if photo_format.channels == 1 and not to_gray and image.mode not in ("1", "L", "LA"):
        channels = np.asarray(to_channels(image, 3)).astype(np.int16)
        if int(np.ptp(channels, axis=2).max()) > GRAY_TOLERANCE:
            raise InputError(
                f"{printable(path)} is in color, but the model takes gray: convert it (--data.to_gray true), or "
                "choose another degradation"
            )
    return to_channels(image, photo_format.channels)


def _fit(image: Image.Image, path: Path, photo_format: PhotoFormat, resize: Resize) -> Image.Image:
    """Crop and resize an image to the format, or refuse it."""
    target = photo_format.width, photo_format.height
    if image.size == target:
        return image
    crop = largest_crop(image.size, target)
    mismatch = f"{printable(path)} is {image.width}x{image.height} pixels, the model takes {target[0]}x{target[1]}"
    if image.width < target[0] or image.height < target[1]:
        raise InputError(f"{mismatch}: use a larger photograph, or restore it by super-resolution (Downsample)")
    if resize == "refuse":
        raise InputError(f"{mismatch}: use --data Photos --data.resize center_crop to crop and resize it")
    return resize_center(image, crop, target)


def largest_crop(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """Return width and height of the largest crop of an image of this size with the aspect ratio of the target."""
    scale = min(side / wanted for side, wanted in zip(size, target, strict=True))
    return round(scale * target[0]), round(scale * target[1])
