"""Any tree of image files, split by a seed."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gan_lightning.data.listing import SPLITS, ImageListing
from gan_lightning.errors import InputError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


def read_folder(
    root: str | os.PathLike[str], split_fractions: Sequence[float] = (0.9, 0.05, 0.05), seed: int = 0
) -> ImageListing:
    """List every image file below a folder, sorted by name, with a seeded split.

    Files are ordered by the SHA-256 of seed and name, and cut into test, val and train in that order, so the split
    depends on nothing but seed, names and fractions, and a few new files move few of the old ones. A fraction above
    zero gets at least one image. Hidden files and folders are skipped; so are links to folders, and links to files
    outside the root.

    Args:
        root: The folder.
        split_fractions: Fractions of train, val and test, which sum to 1.
        seed: Seed of the split.

    Raises:
        InputError: If there is no such folder or no image in it, or the fractions are not three, not negative, that sum
            to 1.
    """
    fractions = [float(fraction) for fraction in split_fractions]
    if len(fractions) != len(SPLITS) or min(fractions) < 0 or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise InputError(f"split_fractions are {fractions}: give three (train, val, test) that sum to 1.")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise InputError(f"No folder {folder}: give a folder of images.")
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
