"""Packed images: decoded, cropped and resized once (see packing.py), then read from a memory map, a batch at a time.

A pack is a folder in the cache whose name ends with a fingerprint of its source. It contains `pixels.npy`, uint8
(N,H,W,C) with one row for each file of the listing (zeros for files that could not be read), and `pack.json`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan_lightning.data.cache import make_cache_dir
from gan_lightning.data.decode import RESIZER, CropResize
from gan_lightning.data.fingerprint import content_of
from gan_lightning.data.listing import ImageListing
from gan_lightning.errors import InputError
from gan_lightning.file_names import writable

FORMAT_VERSION = 4


class Skipped(NamedTuple):
    """An image that could not be read: its row in the listing, its name, and the reason."""

    row: int
    name: str
    reason: str


class PackedImages:
    """A pack on disk, opened for reading. It is pickled as its path, so that workers and ranks map the same pages.

    Args:
        folder: Folder of the pack.

    Attributes:
        crop_resize: Crop, size and channels of the pixels.
        digest: SHA-256 of the pixels, in hex, which is the key of statistics of the images.
        skipped: The images that could not be read.
        rows: Rows with an image, int64, ascending: all except the skipped ones.

    Raises:
        FileNotFoundError: If the pack does not exist.
        InputError: If it is damaged, was renamed, or has another version.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        try:
            header: dict[str, Any] = json.loads((self.folder / "pack.json").read_text(encoding="utf-8"))
            version = header["format_version"]
            if version != FORMAT_VERSION:
                raise ValueError(f"expected version {FORMAT_VERSION} but got {version}")
            if header["fingerprint"] != fingerprint_of(self.folder):
                raise ValueError("its images or settings are not those that its name states")
            self.crop_resize = CropResize(**header["framing"])  # the key of every pack so far
            self.digest: str = header["digest"]
            self.skipped = [Skipped(*entry) for entry in header["skipped"]]
            pixels = np.load(self.folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
            if pixels.dtype != np.uint8 or pixels.shape != (header["images"], *self.crop_resize.shape):
                raise ValueError(f"its pixels are {pixels.dtype} {pixels.shape}")
        except (KeyError, TypeError, ValueError, EOFError) as error:
            raise InputError(
                f"The packed images {self.folder} cannot be used ({error}): delete that folder."
            ) from error
        # A plain array on the same map, because indexing the subclass takes a microsecond or two longer.
        self._pixels: NDArray[np.uint8] = np.asarray(pixels)
        self.rows = np.delete(np.arange(len(pixels)), [entry.row for entry in self.skipped])

    def __reduce__(self) -> tuple[type[PackedImages], tuple[Path]]:
        return PackedImages, (self.folder,)

    def read(self, rows: NDArray[np.int64]) -> Tensor:
        """Read rows (B) of the listing, in any order, all among `rows`: (B,C,H,W) uint8, channels_last."""
        return torch.from_numpy(self._pixels[rows]).permute(0, 3, 1, 2)

    def report(self) -> str:
        """Return where the pack lies and what is in it, for people: a line each, without the last line break."""
        values = {
            "path": self.folder,
            "images": f"{len(self.rows):,}",
            "skipped": f"{len(self.skipped):,}",
            "bytes": f"{sum(path.stat().st_size for path in self.folder.iterdir()):,}",
        }
        return "\n".join(f"{name:<8} {value}" for name, value in values.items())


def fingerprint_of(folder: Path) -> str:
    """Return the fingerprint at the end of the name of a pack, which is also in its header."""
    return folder.name.rpartition("-")[2]


def open_packed(
    listing: ImageListing,
    *,
    image_size: int,
    crop: int | None,
    channels: int,
    cache_dir: str | os.PathLike[str] | None = None,
) -> PackedImages:
    """Open the pack of this listing that `pack_images` made; the arguments are the same.

    Raises:
        InputError: If the pack is damaged or does not exist (the images have changed, or were never packed).
    """
    folder = pack_folder(listing, CropResize(image_size, crop, channels), make_cache_dir(cache_dir))
    try:
        return PackedImages(folder)
    except FileNotFoundError as error:
        raise InputError(
            f"{listing.root} has no up-to-date pack in {folder.parent}: run `gan-lightning pack` with the same "
            "options, or leave auto_pack on and call prepare_data()."
        ) from error


def pack_folder(listing: ImageListing, crop_resize: CropResize, cache: Path) -> Path:
    """Return the folder of the pack of these files, which may not exist.

    Its name depends on every name and every byte of the files, and on every setting. Files that are new, or were
    written to since the last call, are read.
    """
    settings = [FORMAT_VERSION, RESIZER, PIL.__version__.split(".")[0], asdict(crop_resize)]
    if any(name.lower().endswith((".tif", ".tiff")) for name in listing.names):
        settings.append("integers-2")  # before this version, 32-bit integers became black or white
    content = json.dumps([*settings, len(listing), content_of(listing, cache)])
    fingerprint = hashlib.sha256(content.encode()).hexdigest()[:16]
    crop = f"-crop{crop_resize.crop}" if crop_resize.crop else ""
    name = writable(listing.name, 120)  # leaves room for suffixes: fingerprint, lock, temporary folder
    return cache / f"{name}-{crop_resize.image_size}x{crop_resize.channels}{crop}-{fingerprint}"


def describe_size(count: int, crop_resize: CropResize) -> str:
    """Describe the size of a pack on disk and in memory: "202,599 images at 64 x 64 x 3 take 2.49 GB"."""
    height, width, channels = crop_resize.shape
    needed = pixel_bytes(count, crop_resize)
    return f"{count:,} images at {height} x {width} x {channels} take " + (
        f"{needed / 1e9:.2f} GB" if needed >= 1e8 else f"{needed / 1e6:.2f} MB"
    )


def pixel_bytes(count: int, crop_resize: CropResize) -> int:
    """Return the number of bytes of the pixels of a pack."""
    return count * math.prod(crop_resize.shape)
