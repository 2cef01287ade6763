"""Packed images: decoded, cropped and resized once (see packing.py), then read by memory map, a batch at a time.

A pack is a folder in the cache, named by a fingerprint of its source: `pixels.npy`, uint8 (N,H,W,C), one row for each
file of the listing (zeros where a file could not be read), and `pack.json`.
"""

from __future__ import annotations

import hashlib
import json
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

FORMAT_VERSION = 4


class Skipped(NamedTuple):
    """An image that could not be read: its row in the listing, its name, and why."""

    row: int
    name: str
    reason: str


class PackedImages:
    """A pack on disk, opened for reading. Pickles as its path, so workers and ranks map the same pages.

    Args:
        folder: The pack.

    Attributes:
        framing: Crop, size and channels of the pixels.
        digest: SHA-256 of the pixels, in hex: what statistics of the images are keyed by.
        skipped: The images that could not be read.
        rows: The rows that hold an image, int64, ascending: all but the skipped.

    Raises:
        FileNotFoundError: If there is no pack.
        InputError: If it is damaged, of another version, or renamed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        try:
            header: dict[str, Any] = json.loads((self.folder / "pack.json").read_text(encoding="utf-8"))
            version = header["format_version"]
            if version != FORMAT_VERSION:
                raise ValueError(f"it is of version {version}, this program reads {FORMAT_VERSION}")
            if header["fingerprint"] != fingerprint_of(self.folder):
                raise ValueError("it is of other images or other settings than its name says")
            self.framing = CropResize(**header["framing"])
            self.digest: str = header["digest"]
            self.skipped = [Skipped(*entry) for entry in header["skipped"]]
            pixels = np.load(self.folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
            if pixels.dtype != np.uint8 or pixels.shape != (header["images"], *self.framing.shape):
                raise ValueError(f"its pixels are {pixels.dtype} {pixels.shape}")
        except (KeyError, TypeError, ValueError, EOFError) as error:
            raise InputError(
                f"The packed images {self.folder} cannot be used ({error}): delete that folder."
            ) from error
        # A plain array on the same map: the subclass would cost a microsecond or two on each index.
        self._pixels: NDArray[np.uint8] = np.asarray(pixels)
        self.rows = np.delete(np.arange(len(pixels)), [entry.row for entry in self.skipped])

    def __reduce__(self) -> tuple[type[PackedImages], tuple[Path]]:
        return PackedImages, (self.folder,)

    def read(self, rows: NDArray[np.int64]) -> Tensor:
        """Read a batch by one index operation.

        Args:
            rows: (B) rows of the listing, in any order, each one of `rows`.

        Returns:
            (B,C,H,W) uint8 in channels_last memory.
        """
        return torch.from_numpy(self._pixels[rows]).permute(0, 3, 1, 2)


def fingerprint_of(folder: Path) -> str:
    """The fingerprint that the name of a pack ends with, and its header holds."""
    return folder.name.rpartition("-")[2]


def open_packed(
    files: ImageListing,
    *,
    image_size: int,
    crop: int | None,
    channels: int,
    cache_dir: str | os.PathLike[str] | None = None,
) -> PackedImages:
    """Open the pack that `pack_images` made of this listing; the arguments are the same.

    Raises:
        InputError: If there is none (the images changed since, or were never packed), or it is damaged.
    """
    folder = pack_folder(files, CropResize(image_size, crop, channels), make_cache_dir(cache_dir))
    try:
        return PackedImages(folder)
    except FileNotFoundError as error:
        raise InputError(
            f"{files.root} is not packed in {folder.parent} as it is now: run `gan-lightning pack` with the same "
            "options, or leave auto_pack on and call prepare_data()."
        ) from error


def pack_folder(files: ImageListing, framing: CropResize, cache: Path) -> Path:
    """Where the pack of these very files lies, if there is one.

    Args:
        files: The images; each is read if it was not before, or was written to since.
        framing: Crop, size and channels.
        cache: Folder of the packs.

    Returns:
        The folder, whose name changes with any name and any byte of the files, and with any setting.
    """
    settings = [FORMAT_VERSION, RESIZER, PIL.__version__.split(".")[0], asdict(framing)]
    fingerprint = hashlib.sha256(json.dumps([*settings, len(files), content_of(files, cache)]).encode())
    crop = f"-crop{framing.crop}" if framing.crop else ""
    return cache / f"{files.name}-{framing.image_size}x{framing.channels}{crop}-{fingerprint.hexdigest()[:16]}"
