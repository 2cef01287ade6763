"""A listing of images with their splits, the common description of all sources of images on disk."""

from __future__ import annotations

import errno
import hashlib
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gan_lightning.data.decode import CropResize, decode_image, to_pixels
from gan_lightning.errors import InputError
from gan_lightning.file_names import IMAGE_SUFFIXES, printable

SPLITS = ("train", "val", "test")
# Other files that are common beside images, and are ignored silently.
COMPANIONS = frozenset(
    {".txt", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".md", ".html", ".log", ".db", ".ini", ".py"}
    | {".npy", ".npz", ".mat"}
)
RESTORATION = "records", "settings.json"  # of a folder of results, which are nobody's photographs
SYSTEM_FOLDERS = frozenset({"__MACOSX", "System Volume Information", "$RECYCLE.BIN", "lost+found"})
# Errors that are caused by the image; all others (an I/O error, a stale handle) are caused by the machine.
IMAGE_ERRORS = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.ELOOP)
logger = logging.getLogger(__name__)

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
        left_out: Number of files below `root` that are not listed, by kind: ".heic", "links to folders".
        labels: (N) int64, the class of each image, or None if no labels were requested.
        class_names: Names of the classes, by label.
    """

    name: str
    root: Path
    names: list[str]
    splits: dict[str, NDArray[np.int64]]
    attributes: NDArray[np.int8] | None = None
    attribute_names: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    labels: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def source_names(self) -> list[str]:
        """Return the paths, relative to `root`, of the files that contain the images."""
        return self.names

    def stamps(self) -> Iterator[str]:
        """Yield a line for each source file with its name, size and times, without opening the files.

        The line changes when the file is written to.
        """
        for name in self.source_names():
            yield _stamp(os.path.join(self.root, name), name)

    def report_left_out(self) -> None:
        """Log one line about the other files below the folder, which are left out."""
        if self.left_out:
            logger.warning("%s: left out %s", printable(self.root), describe_left_out(self.left_out))

    def decode(self, row: int, crop_resize: CropResize) -> NDArray[np.uint8]:
        """Decode one image to (H,W,C) uint8; raises the exceptions of `decode_image`."""
        return decode_image(self.root / self.names[row], crop_resize)


@dataclass(frozen=True, eq=False)
class ImageArrays(ImageListing):
    """Images that are stored together in a few files and read at once. Their names are generated.

    Attributes:
        pixels: (N,H,W) or (N,H,W,C) uint8.
        sources: Paths of the files relative to `root`.
    """

    pixels: NDArray[np.uint8] = field(kw_only=True)
    sources: tuple[str, ...] = field(kw_only=True)

    def source_names(self) -> list[str]:
        """Return the paths, relative to `root`, of the few files that contain all images."""
        return list(self.sources)

    def decode(self, row: int, crop_resize: CropResize) -> NDArray[np.uint8]:
        """Crop and resize one image, see `ImageListing.decode`."""
        return to_pixels(Image.fromarray(self.pixels[row]), crop_resize, self.names[row])


def _stamp(path: str, name: str) -> str:
    try:
        status = os.stat(path)
    except OSError as error:
        if error.errno not in IMAGE_ERRORS:
            raise
        return f"\n{name}\0missing"
    # Includes the change time, which cannot be set back, whereas copying and unpacking restore the modification time.
    return f"\n{name}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}"


def stays_inside(name: str) -> bool:
    """Return whether a relative path, joined to a folder, stays inside that folder on any system.

    Args:
        name: The path in a list or an archive.
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
    above zero gets at least one image. Hidden files and folders, those of operating systems, and text files are
    ignored. Files of other kinds, links to folders, links to files outside of the root, and folders of results of a
    restoration are counted in `left_out`.

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
    if folder.is_file():
        raise InputError(f"{printable(folder)} is a file: set data.root to the folder that holds it.")
    if not folder.is_dir():
        raise InputError(f"folder {printable(folder)} does not exist: set data.root to a folder of images.")
    folder = Path(os.path.realpath(folder))
    left_out: Counter[str] = Counter()
    names = sorted(_walk(folder, left_out))
    if not names:
        found = f"; it holds {describe_left_out(left_out)}" if left_out else ""
        wanted = ", ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(
            f"No image below {printable(root)}: looked for {wanted}; links that leave it are not followed{found}."
        )
    splits = _split(names, fractions, seed)
    return ImageListing(printable(folder.name), folder, names, splits, left_out=dict(left_out))


def read_paths(paths: Sequence[str | os.PathLike[str]]) -> ImageListing:
    """List image files, and those below folders, with names relative to the innermost folder that contains all.

    Args:
        paths: Files and folders. Files of other kinds are counted in `left_out`, also below folders.

    Raises:
        InputError: If a path does not exist, or there is no image.
    """
    left_out: Counter[str] = Counter()
    found: set[Path] = set()
    folders = []
    for given in paths:
        path = Path(os.path.abspath(Path(given).expanduser()))
        if path.is_dir():
            folders.append(Path(os.path.realpath(path)))
            found.update(folders[-1] / name for name in _walk(folders[-1], left_out))
        elif not path.exists():
            raise InputError(f"{printable(given)} does not exist: give a photograph, or a folder of photographs")
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            folders.append(path.parent)
            found.add(path)
        else:
            left_out[printable(path.suffix.lower()) or "without a suffix"] += 1
    if not found:
        some = printable(", ".join(str(path) for path in paths[:3]) + ", ..." * (len(paths) > 3))
        holds = f", only {describe_left_out(left_out)}" if left_out else ""
        raise InputError(f"there is no image in {some}{holds}: looked for {', '.join(sorted(IMAGE_SUFFIXES))}")
    root = Path(os.path.commonpath(folders))
    names = sorted(path.relative_to(root).as_posix() for path in found)
    return ImageListing(printable(root.name), root, names, _split(names, [1, 0, 0], 0), left_out=dict(left_out))


def describe_left_out(left_out: Mapping[str, int]) -> str:
    """Return a phrase such as "3 other files (.heic: 2, without a suffix: 1)"."""
    kinds = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    named = ", ".join(f"{kind}: {count:,}" for kind, count in kinds[:10])
    more = f", and {len(kinds) - 10} more kinds" if len(kinds) > 10 else ""
    count = sum(left_out.values())
    return f"{count:,} other file{'s' * (count > 1)} ({named}{more})"


def _walk(root: Path, left_out: Counter[str]) -> Iterator[str]:
    """Yield the names of the images, and count the other files."""

    def cannot_be_listed(error: OSError) -> None:
        if error.errno not in IMAGE_ERRORS:
            raise error
        left_out["folders that cannot be opened"] += 1

    for folder, folders, files in os.walk(root, onerror=cannot_be_listed):
        if Path(folder) != root and os.path.isfile(os.path.join(folder, *RESTORATION)):
            folders.clear()
            left_out["folders of restorations"] += 1
            continue
        folders[:] = [name for name in folders if not name.startswith(".") and name not in SYSTEM_FOLDERS]
        left_out.update("links to folders" for name in folders if os.path.islink(os.path.join(folder, name)))
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if name.startswith(".") or suffix in COMPANIONS:
                continue
            path = os.path.join(folder, name)
            if suffix not in IMAGE_SUFFIXES:
                left_out[printable(suffix) if suffix else "without a suffix"] += 1
            elif os.path.islink(path) and not Path(os.path.realpath(path)).is_relative_to(root):
                left_out["links out of the folder"] += 1
            else:
                yield Path(path).relative_to(root).as_posix()


def _split(names: list[str], fractions: list[float], seed: int) -> dict[str, NDArray[np.int64]]:
    keys = [hashlib.sha256(f"{seed}:{name}".encode(errors="surrogateescape")).digest() for name in names]
    order = sorted(range(len(names)), key=keys.__getitem__)
    val, test = (max(1, round(fraction * len(names))) if fraction > 0 else 0 for fraction in fractions[1:])
    parts = {"test": order[:test], "val": order[test : test + val], "train": order[test + val :]}
    return {split: np.sort(np.array(parts[split], dtype=np.int64)) for split in SPLITS}
