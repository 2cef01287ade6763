"""CelebA, in the official layout and in Kaggle's, read without a checksum of the images.

Liu, Luo, Wang, Tang: Deep Learning Face Attributes in the Wild, ICCV 2015.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan_lightning.data.cache import exclusive_root
from gan_lightning.data.labels import labels_of_attributes
from gan_lightning.data.listing import SPLITS, ImageListing, stays_inside
from gan_lightning.data.packed_data_module import PackedDataModule
from gan_lightning.errors import InputError, first_line

IMAGE_FOLDER = "img_align_celeba"
PARTITION_LIST = "list_eval_partition"
ATTRIBUTE_LIST = "list_attr_celeba"


class CelebA(PackedDataModule):
    """Aligned faces of CelebA with their official split, in the official layout or in Kaggle's.

    Args:
        root: Folder that contains celeba/, or that folder itself.
        crop: Side of the centered square that is cropped from each 178x218 file: 178, 148 and 108 are common; null for
            the largest square, 178.
        attributes: Names of the attributes in batches (Smiling, Eyeglasses, ...). The list of attributes is only needed
            if there are any.
        labels: Names of the attributes whose combinations are the classes of the images: [Smiling, Eyeglasses] give
            four classes, "none", "Smiling", "Eyeglasses" and "Smiling+Eyeglasses".
        download: Download missing files with torchvision, which needs gdown and often exceeds the quota of the server.
        **common: Options of PackedDataModule.
    """

    def __init__(
        self,
        root: str,
        *,
        crop: int | None = 178,
        attributes: list[str] | None = None,
        labels: list[str] | None = None,
        download: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(root, crop=crop, **common)
        self.attributes, self.labels = attributes or [], labels or []
        self.download = download

    def read_files(self) -> ImageListing:
        """List CelebA below the root."""
        return read_celeba(self.root, self.attributes, self.labels)

    def prepare_data(self) -> None:
        """Download CelebA if it is missing and `download` is set, then pack it."""
        if self.download:
            with exclusive_root(self.root, self.cache_dir):
                self._download()
        super().prepare_data()

    def _download(self) -> None:
        try:
            self.read_files()
            return
        except InputError:
            from torchvision.datasets import CelebA as TorchvisionCelebA
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            TorchvisionCelebA(str(self.root), download=True)
        except Exception as error:  # no gdown, no network, a quota, a web page instead of a file
            reason = first_line(error)
            raise InputError(
                f"CelebA cannot be downloaded ({reason}): fetch img_align_celeba.zip and list_eval_partition.txt from "
                f"mmlab.ie.cuhk.edu.hk/projects/CelebA.html, put them in {self.root / 'celeba'} and unzip the archive."
            ) from error


def read_celeba(
    root: str | os.PathLike[str], attributes: Sequence[str] = (), labels: Sequence[str] = ()
) -> ImageListing:
    """List the aligned images of a copy of CelebA with the official train, val and test split.

    The lists may be the official `.txt` or Kaggle's `.csv`, and the image folder may be nested in one of the same name;
    the result is the same. Images that are listed but missing are detected when they are read.

    Args:
        root: Folder that contains `celeba/`, or that folder itself.
        attributes: Names of the attributes to read (`Smiling`, ...). Their list is only needed if there are any.
        labels: Names of the attributes whose combinations are the classes.

    Raises:
        InputError: If the root, the image folder or a required list does not exist; if a list is malformed, names a
            file outside of the image folder, or lacks an attribute.
    """
    base = _find_base(Path(root).expanduser())
    folder = base / IMAGE_FOLDER
    if (folder / IMAGE_FOLDER).is_dir():
        folder = folder / IMAGE_FOLDER
    names, partition = _read_partition(_find_list(base, PARTITION_LIST))
    splits = {split: np.flatnonzero(partition == number).astype(np.int64) for number, split in enumerate(SPLITS)}
    listing = ImageListing("celeba", folder, names, splits)
    if not attributes and not labels:
        return listing
    values = _read_attributes(_find_list(base, ATTRIBUTE_LIST), names, [*attributes, *labels])
    if attributes:
        requested = values[:, : len(attributes)]
        listing = replace(listing, attributes=requested, attribute_names=tuple(attributes))
    if labels:
        numbers, class_names = labels_of_attributes(values[:, len(attributes) :], labels)
        listing = replace(listing, labels=numbers, class_names=class_names)
    return listing


def _find_base(root: Path) -> Path:
    if not root.is_dir():
        raise InputError(f"folder {root} does not exist: set data.root to the folder that holds CelebA's celeba/.")
    for base in (root / "celeba", root):
        if (base / IMAGE_FOLDER).is_dir():
            return base
    raise InputError(
        f"{root} does not hold CelebA: there is neither celeba/{IMAGE_FOLDER} nor {IMAGE_FOLDER} in it. "
        "Unpack img_align_celeba.zip there, or set another root."
    )


def _find_list(base: Path, stem: str) -> Path:
    for suffix in (".txt", ".csv"):
        if (base / (stem + suffix)).is_file():
            return base / (stem + suffix)
    raise InputError(f"No {stem}.txt or {stem}.csv in {base}: put CelebA's list there, beside {IMAGE_FOLDER}.")


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield number and fields of each nonempty line, split at commas in a .csv file and at whitespace otherwise."""
    separator = "," if path.suffix == ".csv" else None
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            if fields := line.strip().split(separator):
                yield number, fields


def _read_partition(path: Path) -> tuple[list[str], NDArray[np.int8]]:
    names: list[str] = []
    partition: list[int] = []
    for number, fields in _lines(path):
        if number == 1 and path.suffix == ".csv":
            continue
        if len(fields) != 2 or fields[1] not in ("0", "1", "2"):
            raise InputError(
                f"{path}, line {number}: expected a file name and 0, 1 or 2, but got {' '.join(fields)!r}."
            )
        if not stays_inside(fields[0]):
            raise InputError(f"{path}, line {number}: {fields[0]!r} is not inside {IMAGE_FOLDER}: correct the list.")
        names.append(fields[0])
        partition.append(int(fields[1]))
    if not names:
        raise InputError(f"{path} lists no images.")
    return names, np.array(partition, dtype=np.int8)


def _read_attributes(path: Path, names: list[str], attributes: Sequence[str]) -> NDArray[np.int8]:
    lines = _lines(path)
    _, header = next(lines, (0, [""]))
    if path.suffix == ".csv":
        header = header[1:]
    else:  # the first line of the official list is the number of images
        _, header = next(lines, (0, [""]))
    if unknown := [attribute for attribute in attributes if attribute not in header]:
        raise InputError(f"No attribute {unknown[0]!r} in {path}; it has {', '.join(header)}.")
    columns = [header.index(attribute) for attribute in attributes]
    row_of = {name: row for row, name in enumerate(names)}
    values = np.zeros((len(names), len(columns)), dtype=np.int8)
    for number, (name, *fields) in lines:
        if len(fields) != len(header) or any(fields[column] not in ("-1", "1") for column in columns):
            raise InputError(f"{path}, line {number}: expected a file name and {len(header)} values of -1 or 1.")
        if name in row_of:
            values[row_of[name]] = [int(fields[column]) for column in columns]
    if missing := np.flatnonzero((values == 0).any(axis=1)).tolist():
        raise InputError(f"{path} has no attributes of {names[missing[0]]} and {len(missing) - 1} more.")
    return values
