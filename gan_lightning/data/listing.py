"""A listing of images with their splits: what every source of images is reduced to."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gan_lightning.data.decode import CropResize, decode_image, frame_image

SPLITS = ("train", "val", "test")
# Errors that are an image's own fault; all others (an input error, a stale handle) are the machine's.
OF_THE_IMAGE = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.ELOOP)
_PLAIN = re.compile(r"\w+(\.\w+)*\Z", re.ASCII)


@dataclass(frozen=True, eq=False)
class ImageListing:
    """Image files below one folder, in a fixed order, and the rows of each split.

    Attributes:
        name: Name of the dataset, as it appears in the protocol of a metric.
        root: Folder of the images.
        names: (N) paths relative to `root`, with forward slashes. A file's row is its position here.
        splits: For "train", "val" and "test" the rows, int64, ascending, disjoint.
        attributes: (N, A) int8, -1 or 1, or None where none were asked for.
        attribute_names: (A) names of the attributes' columns.
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
        """Paths, relative to `root`, of the files that the images are made of."""
        return self.names

    def stamps(self) -> Iterator[str]:
        """Lines that change whenever one of those files is written to: name, size and times of each.

        The files are looked at, not opened.
        """
        for name in self.source_names():
            yield _stamp(os.path.join(self.root, name), name)

    def decode(self, row: int, framing: CropResize) -> NDArray[np.uint8]:
        """Decode one image; raises what `decode_image` raises.

        Args:
            row: Its position in the listing.
            framing: Crop, size and channels.

        Returns:
            (H,W,C) uint8.
        """
        return decode_image(self.root / self.names[row], framing)


@dataclass(frozen=True, eq=False)
class ImageArrays(ImageListing):
    """Images that lie together in a few files and are read at once; the names are made up.

    Attributes:
        pixels: (N,H,W) or (N,H,W,C) uint8.
        sources: The files they come from, below `root`.
    """

    pixels: NDArray[np.uint8] = field(kw_only=True)
    sources: tuple[str, ...] = field(kw_only=True)

    def source_names(self) -> list[str]:
        """The few files that hold all images."""
        return list(self.sources)

    def decode(self, row: int, framing: CropResize) -> NDArray[np.uint8]:
        """Crop and resize one image; as `ImageListing.decode`."""
        return frame_image(Image.fromarray(self.pixels[row]), framing, self.names[row])


def _stamp(path: str, name: str) -> str:
    try:
        status = os.stat(path)
    except OSError as error:
        if error.errno not in OF_THE_IMAGE:
            raise
        return f"\n{name}\0missing"
    # The time of the last change, too: nobody can set it back, as copying and unpacking do with that of the last write.
    return f"\n{name}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}"


def stays_inside(name: str) -> bool:
    """Whether a relative path, joined to a folder, stays inside that folder on any system.

    Args:
        name: The path, as a list or an archive gives it.
    """
    if _PLAIN.match(name):  # the usual case, a hundred times quicker
        return True
    if not name or "\0" in name:
        return False
    paths = PurePosixPath(name), PureWindowsPath(name)
    return not any(path.anchor or ".." in path.parts for path in paths)
