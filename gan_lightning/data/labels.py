"""Labels of images, from their folders or their attributes, and counts and splits by class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gan_lightning.data.batches import ImageDataset
from gan_lightning.data.listing import SYSTEM_FOLDERS, ImageListing
from gan_lightning.errors import InputError
from gan_lightning.file_names import printable

MAX_ATTRIBUTES = 6  # each combination of them is a class
NO_ATTRIBUTE = "none"  # name of the class without any attribute


def labeled_by_folder(listing: ImageListing) -> ImageListing:
    """Return a listing whose labels are the folders of the images below the root, in the order of their names.

    Args:
        listing: Images, each at `CLASS/...` relative to the root.

    Raises:
        InputError: If an image is not in such a folder, a folder contains no image, or there are fewer than two.
    """
    folders = [name.partition("/")[0] for name in listing.names]
    for name, folder in zip(listing.names, folders, strict=True):
        if name == folder:
            raise InputError(
                f"{printable(name)} lies in {printable(listing.root)} itself and has no label: expected "
                "CLASS/IMAGE below data.root; move it, or leave data.labels out"
            )
    names = sorted(set(folders))
    with os.scandir(listing.root) as entries:
        below = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    for folder in below:
        if folder not in names and not folder.startswith(".") and folder not in SYSTEM_FOLDERS:
            raise InputError(
                f"the class folder {printable(listing.root / folder)} holds no image: add images, or remove it"
            )
    if len(names) < 2:
        raise InputError(f"{printable(listing.root)} holds one class folder: labels need two or more")
    numbers = {folder: number for number, folder in enumerate(names)}
    labels = np.array([numbers[folder] for folder in folders], dtype=np.int64)
    return replace(listing, labels=labels, class_names=tuple(map(printable, names)))


def labels_of_attributes(
    values: NDArray[np.int8], attributes: Sequence[str]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return labels, and the names of the classes: one for each combination of attributes.

    Args:
        values: (N,A) of the attributes, -1 or 1.
        attributes: (A) names. The class with the first and the third of them is called "FIRST+THIRD", and is number 5.

    Raises:
        InputError: If there are too many attributes.
    """
    if len(attributes) > MAX_ATTRIBUTES:
        raise InputError(
            f"data.labels are {len(attributes)} attributes, whose combinations are {2 ** len(attributes):,} classes: "
            f"choose {MAX_ATTRIBUTES} or fewer"
        )
    bits = 2 ** np.arange(len(attributes), dtype=np.int64)
    names = []
    for number in range(2 ** len(attributes)):
        present = [name for name, bit in zip(attributes, bits.tolist(), strict=True) if number & bit]
        names.append("+".join(present) or NO_ATTRIBUTE)
    return (values > 0) @ bits, tuple(names)


def count_classes(dataset: ImageDataset, class_names: Sequence[str], source: str) -> NDArray[np.int64]:
    """Return the number of images of each class in a split.

    Args:
        dataset: A split with labels.
        class_names: Names of the classes.
        source: Source of the images, for the message.

    Raises:
        InputError: If a class has no image.
    """
    assert dataset.labels is not None
    counts = np.bincount(dataset.labels[dataset.rows], minlength=len(class_names))
    if len(missing := np.flatnonzero(counts == 0)):
        raise InputError(
            f"the class {class_names[missing[0]]} has no image in the train split of {source}: add images of it, leave "
            "it out of data.labels, or give the train split a larger part"
        )
    return counts.astype(np.int64)


def of_class(dataset: ImageDataset, label: int) -> ImageDataset:
    """Return the images of a split that have the given label."""
    assert dataset.labels is not None
    rows = dataset.rows[dataset.labels[dataset.rows] == label]
    return ImageDataset(dataset.images, rows, dataset.attributes, dataset.labels)
