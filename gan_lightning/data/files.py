"""A listing of image files with their splits: what every source of images is reduced to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "val", "test")
_PLAIN = re.compile(r"\w+(\.\w+)*\Z", re.ASCII)


@dataclass(frozen=True, eq=False)
class ImageFiles:
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
