"""Enlargement of one photograph: upright, gray or in color, with its transparency and color profile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gan_lightning.data.decode import to_channels, to_eight_bits, turn_upright
from gan_lightning.images import to_float
from gan_lightning.networks.tiles import enlarge_in_tiles
from gan_lightning.upscaler import Upscaler

GRAY_MODES = ("1", "L", "LA", "La", "F")  # and integers, whose names start with I
REACH = 8  # number of pixels by which visible colors are extended into transparent parts


@dataclass(frozen=True)
class Photo:
    """A decoded photograph.

    Attributes:
        color: Image of mode L or RGB.
        alpha: Transparency, or None.
        icc_profile: Color profile of the file, or None.
    """

    color: Image.Image
    alpha: Image.Image | None
    icc_profile: bytes | None


def is_gray(path: Path) -> bool:
    """Return whether an image is gray by its header; true if it cannot be read, which is reported later."""
    try:
        with Image.open(path) as opened:
            return opened.mode in GRAY_MODES or opened.mode.startswith("I")
    except Exception:
        return True


def read_upright(path: Path) -> Photo:
    """Read a photograph, rotated by its EXIF orientation; integers of 16 bits are converted to 8.

    Raises:
        Exception: If it cannot be read. Pillow's plugins raise nearly any class.
    """
    with Image.open(path) as opened:
        gray = opened.mode in GRAY_MODES or opened.mode.startswith("I")
        profile = opened.info.get("icc_profile") if opened.mode in ("L", "LA", "RGB", "RGBA") else None
        upright = turn_upright(opened)
        transparent = "A" in upright.getbands() or "transparency" in upright.info
        alpha = upright.convert("RGBA").getchannel("A") if transparent else None
        color = to_channels(to_eight_bits(upright), 1 if gray else 3)
    color.info.pop("transparency", None)
    if alpha is not None and alpha.getextrema()[0] == 0:
        color = extended(color, alpha)
    return Photo(color, alpha, profile)


def extended(color: Image.Image, alpha: Image.Image) -> Image.Image:
    """Return an image in which transparent pixels have the colors of visible ones nearby."""
    visible = color.convert("RGB")
    visible.putalpha(alpha)
    coarse = visible.resize([max(1, side // REACH) for side in visible.size], Image.Resampling.BOX)  # by alpha
    around = coarse.resize(visible.size, Image.Resampling.BILINEAR).convert(color.mode)
    return Image.composite(color, around, alpha.point(lambda opacity: 255 if opacity else 0))


def enlarge_photo(photo: Photo, upscaler: Upscaler, tile: int, device: torch.device) -> Image.Image:
    """Enlarge a photograph.

    Args:
        photo: The photograph, which may only be in color if the network supports it.
        upscaler: The network.
        tile: As for `enlarge_in_tiles`.
        device: Device of the network.

    Returns:
        An image in the mode of the photograph: L, LA, RGB or RGBA.
    """
    pixels = np.asarray(photo.color)
    channels = torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1).copy()).permute(2, 0, 1)
    gray = photo.color.mode == "L"

    def network(images: Tensor) -> Tensor:
        large = upscaler(images.to(device).expand(-1, upscaler.channels, -1, -1))
        return large.mean(1, keepdim=True) if gray else large

    strips = enlarge_in_tiles(network, to_float(channels), upscaler.scale, tile, multiple=upscaler.multiple)
    large = torch.cat([strip.permute(1, 2, 0) for strip in strips]).numpy()
    image = Image.fromarray(large[..., 0] if gray else large)
    if photo.alpha is not None:
        image.putalpha(photo.alpha.resize(image.size, Image.Resampling.BICUBIC))
    return image
