"""Limits of the page on photographs, which are checked by the header before a pixel is decoded."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image

from gan_lightning.data.decode import describe_failure
from gan_lightning.errors import InputError
from gan_lightning.file_names import printable
from gan_lightning.images import MAX_PIXELS

SUFFIXES: Final = {  # of the formats that are read; others of Pillow's run programs, or are no photographs
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "GIF": ".gif",
    "AVIF": ".avif",
    "JPEG2000": ".jp2",
    "PPM": ".ppm",
}
MILLION: Final = 1_000_000


@dataclass(frozen=True)
class Limits:
    """Largest photographs that are accepted.

    Attributes:
        megabytes: Size of the file, in millions of bytes.
        megapixels: Number of pixels, in millions.
    """

    megabytes: float = 20
    megapixels: float = 50

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return round(self.megabytes * MILLION)

    @property
    def pixels(self) -> int:
        """Number of pixels, at most as many as are decoded anywhere in the package."""
        return min(MAX_PIXELS, round(self.megapixels * MILLION))


def check_photo(path: Path, limits: Limits) -> str:
    """Check a photograph by the size of its file and its header; return the suffix of its format.

    Raises:
        InputError: If it is too large, or not an image.
    """
    name, size = printable(path.name), path.stat().st_size
    if size > limits.bytes:
        raise InputError(f"{name} has {size / MILLION:.1f} MB, and the limit is {limits.megabytes:g} MB: reduce it")
    Image.init()
    formats = [kind for kind in SUFFIXES if kind in Image.OPEN]  # AVIF is not in every Pillow, MPO opens as JPEG
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our limit is lower
            with Image.open(path, formats=formats) as opened:
                pixels, suffix = opened.width * opened.height, SUFFIXES[str(opened.format)]
    except Image.DecompressionBombError:
        pixels, suffix = MAX_PIXELS * 2, ""
    except Exception as error:  # Pillow's plugins raise nearly any class on a broken file
        raise InputError(
            f"{name} is not an image that can be read ({describe_failure(error, path)}): choose a JPEG, PNG or WebP"
        ) from error
    if pixels > limits.pixels:
        raise InputError(
            f"{name} has {pixels / MILLION:.0f} megapixels or more, and the limit is {limits.pixels / MILLION:.0f}: "
            "reduce it"
        )
    return suffix
