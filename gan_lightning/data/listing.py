"""A listing of images with their splits: what every source of images on disk is reduced to."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gan_lightning.data.decode import CropResize, decode_image, to_pixels
from gan_lightning.errors import InputError

SPLITS = ("train", "val", "test")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
# Errors that are an image's own fault; all others (an I/O error, a stale handle) are the machine's.
IMAGE_ERRORS = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.ELOOP)
_PLAIN = re.compile(r"\w+(\.\w+)*\Z", re.ASCII)


@dataclass(frozen=True, eq=False)
class ImageListing:
    """Image files below one folder in a fixed order, and the rows of each split.

    Attributes:
        name: Name of the dataset as it appears in the protocol of a metric.
        root: Folder of the images.
        names: (N) paths relative to `root`, with forward slashes. The row of a file is its position in this list.
        splits: Rows of "train", "val" and "test": int64, ascending, disjoint.
        attributes: (N,A) int8, -1 or 1, or None if no attributes were requested.
        attribute_names: (A) names of the columns of `attributes`.
    """

    name: str
    root: Path
    names: list[str]
    splits: dict[str, NDArray[np.int64]]
    attributes: NDArray[np.int8] | None = None
    attribute_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def source_names(self) -> list[str]:
        """Return the paths, relative to `root`, of the files that hold the images."""
        return self.names

    def stamps(self) -> Iterator[str]:
        """Yield a line for each source file with its name, size and times, which changes when the file is written to.

        The files are not opened.
        """
        for name in self.source_names():
            yield _stamp(os.path.join(self.root, name), name)

    def decode(self, row: int, crop_resize: CropResize) -> NDArray[np.uint8]:
        """Decode one image to (H,W,C) uint8; raises what `decode_image` raises."""
        return decode_image(self.root / self.names[row], crop_resize)


@dataclass(frozen=True, eq=False)
class ImageArrays(ImageListing):
    """Images that are stored together in a few files and read at once. Their names are made up.

    Attributes:
        pixels: (N,H,W) or (N,H,W,C) uint8.
        sources: Paths of the files relative to `root`.
    """

    pixels: NDArray[np.uint8] = field(kw_only=True)
    sources: tuple[str, ...] = field(kw_only=True)

    def source_names(self) -> list[str]:
        """Return the paths, relative to `root`, of the few files that hold all images."""
        return list(self.sources)

    def decode(self, row: int, crop_resize: CropResize) -> NDArray[np.uint8]:
        """Crop and resize one image, as `ImageListing.decode`."""
        return to_pixels(Image.fromarray(self.pixels[row]), crop_resize, self.names[row])


def _stamp(path: str, name: str) -> str:
    try:
        status = os.stat(path)
    except OSError as error:
        if error.errno not in IMAGE_ERRORS:
            raise
        return f"\n{name}\0missing"
    # The change time too: nobody can set it back, whereas copying and unpacking set back the time of the last write.
    return f"\n{name}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}"


def stays_inside(name: str) -> bool:
    """Return whether a relative path, joined to a folder, stays inside that folder on any system.

    Args:
        name: The path as a list or an archive states it.
    """
    if _PLAIN.match(name):  # the usual case, a hundred times faster
        return True
    if not name or "\0" in name:
        return False
    paths = PurePosixPath(name), PureWindowsPath(name)
    return not any(path.anchor or ".." in path.parts for path in paths)


def read_folder(
    root: str | os.PathLike[str], split_fractions: Sequence[float] = (0.9, 0.05, 0.05), seed: int = 0
) -> ImageListing:
    """List every image file below a folder, sorted by name, with a seeded split.

    Files are ordered by the SHA-256 of seed and name, and divided into test, val and train in that order. The split
    therefore depends only on seed, names and fractions, and adding a few files moves few of the others. A fraction
    above zero gets at least one image. Hidden files and folders, links to folders, and links to files outside of the
    root are skipped.

    Args:
        root: The folder.
        split_fractions: Fractions of train, val and test, which sum to 1.
        seed: Seed of the split.

    Raises:
        InputError: If the folder does not exist or holds no image, or the fractions are not three non-negative numbers
            that sum to 1.
    """
    fractions = [float(fraction) for fraction in split_fractions]
    if len(fractions) != len(SPLITS) or min(fractions) < 0 or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise InputError(f"split_fractions are {fractions}: set three (train, val, test) that sum to 1.")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise InputError(f"folder {folder} does not exist: set data.root to a folder of images.")
    names = sorted(_walk(folder.resolve()))
    if not names:
        raise InputError(
            f"No image below {folder}: looked for {', '.join(sorted(SUFFIXES))}; links that leave it are not followed."
        )
    return ImageListing(folder.resolve().name, folder.resolve(), names, _split(names, fractions, seed))


def _walk(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(folder, name)
            if name.startswith(".") or path.suffix.lower() not in SUFFIXES:
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                continue
            yield path.relative_to(root).as_posix()


def _split(names: list[str], fractions: list[float], seed: int) -> dict[str, NDArray[np.int64]]:
    order = sorted(range(len(names)), key=lambda row: hashlib.sha256(f"{seed}:{names[row]}".encode()).digest())
    val, test = (max(1, round(fraction * len(names))) if fraction > 0 else 0 for fraction in fractions[1:])
    parts = {"test": order[:test], "val": order[test : test + val], "train": order[test + val :]}
    return {split: np.sort(np.array(parts[split], dtype=np.int64)) for split in SPLITS}
