"""MNIST and Fashion-MNIST as torchvision stores them, padded from 28 to 32 pixels.

LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition, 1998. Xiao, Rasul, Vollgraf:
Fashion-MNIST, 2017.
"""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gan_lightning.data.cache import exclusive_root
from gan_lightning.data.listing import ImageArrays, ImageListing
from gan_lightning.data.packed_data_module import PackedDataModule
from gan_lightning.errors import InputError, first_line

PADDED_SIZE = 32

MnistKind = Literal["MNIST", "FashionMNIST"]
CLASS_NAMES: dict[MnistKind, tuple[str, ...]] = {
    "MNIST": tuple("0123456789"),
    "FashionMNIST": ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"),
}


class MNIST(PackedDataModule):
    """Handwritten digits, 28 x 28 padded with zeros, as torchvision stores them. The test split is the official one.

    Args:
        root: Folder that contains MNIST/raw.
        image_size: Height and width in pixels; the padded images are resized unless it is 32.
        channels: 1 for grayscale, 3 for three equal channels.
        val_fraction: Fraction of the official training set that becomes the val split.
        split_seed: Seed of that split.
        flip: Mirror each training image left to right with probability one half; a mirrored digit is not a digit.
        labels: Whether batches include the class of each image: the digit, or the article of clothing.
        download: Download missing files with torchvision.
        **common: Options of PackedDataModule, except crop.
    """

    kind: MnistKind = "MNIST"

    def __init__(
        self,
        root: str,
        *,
        image_size: int = PADDED_SIZE,
        channels: int = 1,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        flip: bool = False,
        labels: bool = False,
        download: bool = False,
        **common: Any,
    ) -> None:
        if common.pop("crop", None) is not None:
            raise InputError(f"{self.kind} is not cropped: set crop to null.")
        super().__init__(root, image_size=image_size, channels=channels, flip=flip, **common)
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.labels = labels
        self.download = download

    def read_files(self) -> ImageListing:
        """Read the images below the root."""
        images = read_mnist(self.root, self.kind, val_fraction=self.val_fraction, seed=self.split_seed)
        if not self.labels:
            return replace(images, labels=None, class_names=())
        labels, classes = images.labels, len(images.class_names)
        assert labels is not None
        if len(labels) != len(images) or not 0 <= labels.min() <= labels.max() < classes:
            raise InputError(
                f"the labels of {self.kind} in {self.root} are not those of its {len(images)} images: put its four "
                "files there, unpacked, or leave data.labels out."
            )
        return images

    def prepare_data(self) -> None:
        """Download the files if they are missing and `download` is set, then pack the images."""
        if self.download:
            with exclusive_root(self.root, self.cache_dir):
                read_mnist(self.root, self.kind, download=True)
        super().prepare_data()


class FashionMNIST(MNIST):
    """Articles of clothing, 28 x 28 padded with zeros, as torchvision stores them. The test split is the official one.

    Args:
        root: Folder that contains FashionMNIST/raw.
        **common: Options of MNIST.
    """

    kind = "FashionMNIST"

    def __init__(self, root: str, **common: Any) -> None:
        super().__init__(root, **common)


def read_mnist(
    root: str | os.PathLike[str], kind: MnistKind, *, val_fraction: float = 0.1, seed: int = 0, download: bool = False
) -> ImageArrays:
    """Read all images, padded with zeros (black) to 32 x 32, with a seeded split of the official training set.

    Rows are those of the official training set, followed by those of the official test set, which is the test split.

    Args:
        root: Folder that contains `MNIST/raw` or `FashionMNIST/raw`.
        kind: Which of the two datasets to read.
        val_fraction: Fraction of the official training set that becomes the val split, in [0, 1).
        seed: Seed of the split.
        download: Download missing files.

    Raises:
        InputError: If the files are missing and `download` is off, cannot be downloaded, or are damaged, or if the
            fraction is out of range.
    """
    if not 0 <= val_fraction < 1:
        raise InputError(f"val_fraction is {val_fraction}: set it to 0 or more, and less than 1.")
    root = Path(root).expanduser()
    (train, train_labels), (test, test_labels) = (
        _read_set(root, kind, official, download) for official in ("train", "test")
    )
    order = np.random.default_rng(seed).permutation(len(train))
    val = max(1, round(val_fraction * len(train))) if val_fraction > 0 else 0
    splits = {
        "train": np.sort(order[val:]),
        "val": np.sort(order[:val]),
        "test": np.arange(len(train), len(train) + len(test)),
    }
    names = [f"{split}/{row:05d}" for split, images in (("train", train), ("test", test)) for row in range(len(images))]
    return ImageArrays(
        kind.lower(),
        root,
        names,
        {split: rows.astype(np.int64) for split, rows in splits.items()},
        pixels=_pad(np.concatenate([train, test])),
        sources=tuple(f"{kind}/raw/{part}-images-idx3-ubyte" for part in ("train", "t10k")),
        labels=np.concatenate([train_labels, test_labels]),
        class_names=CLASS_NAMES[kind],
    )


def _read_set(
    root: Path, kind: MnistKind, official: str, download: bool
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    from torchvision import datasets

    folder = root / kind / "raw"
    try:
        dataset = getattr(datasets, kind)(str(root), train=official == "train", download=download)
        images: NDArray[np.uint8] = dataset.data.numpy()
        labels: NDArray[np.int64] = dataset.targets.numpy().astype(np.int64)
    except Exception as error:  # torchvision raises nearly any class on a missing or damaged file
        if not download and "not found" in str(error):
            raise InputError(
                f"{kind} was not found in {root}: set download: true, or put its four files, unpacked, in {folder}."
            ) from error
        reason = first_line(error)
        raise InputError(
            f"{kind} in {root} is damaged, or cannot be downloaded ({reason}): remove {folder}, and set download: true "
            "or put its four files there, unpacked."
        ) from error
    if images.ndim != 3 or images.dtype != np.uint8 or max(images.shape[1:]) > PADDED_SIZE:
        raise InputError(f"expected {kind} in {folder} but got {images.dtype} {images.shape}: put its files there.")
    return images, labels


def _pad(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    gaps = [PADDED_SIZE - side for side in images.shape[1:]]
    return np.pad(images, [(0, 0), *((gap // 2, math.ceil(gap / 2)) for gap in gaps)])
