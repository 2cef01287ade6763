"""MNIST and Fashion-MNIST as torchvision keeps them on disk, padded from 28 to 32 pixels.

LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition, 1998. Xiao, Rasul, Vollgraf:
Fashion-MNIST, 2017.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gan_lightning.data.listing import ImageArrays
from gan_lightning.errors import InputError

PADDED_SIZE = 32

MnistKind = Literal["MNIST", "FashionMNIST"]


def read_mnist(
    root: str | os.PathLike[str], kind: MnistKind, *, val_fraction: float = 0.1, seed: int = 0, download: bool = False
) -> ImageArrays:
    """Read all images, framed in zeros (black) to 32 x 32, with a seeded split of the official training set.

    Rows are those of the official training set, then those of the official test set, which is the test split.

    Args:
        root: The folder that holds `MNIST/raw` or `FashionMNIST/raw`.
        kind: Which of the two.
        val_fraction: Fraction of the official training set that becomes the val split, in [0, 1).
        seed: Seed of the split.
        download: Download what is missing.

    Raises:
        InputError: If the files are absent and not to be downloaded, cannot be downloaded, or are damaged; if the
            fraction is out of range.
    """
    if not 0 <= val_fraction < 1:
        raise InputError(f"val_fraction is {val_fraction}: give 0 or more, and less than 1.")
    root = Path(root).expanduser()
    train, test = (_read_set(root, kind, official, download) for official in ("train", "test"))
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
    )


def _read_set(root: Path, kind: MnistKind, official: str, download: bool) -> NDArray[np.uint8]:
    from torchvision import datasets

    folder = root / kind / "raw"
    try:
        dataset = getattr(datasets, kind)(str(root), train=official == "train", download=download)
        images: NDArray[np.uint8] = dataset.data.numpy()
    except Exception as error:  # torchvision raises nearly anything on an absent, half-written or foreign file
        if not download and "not found" in str(error):
            raise InputError(
                f"{kind} is not in {root}: set download: true, or put its four files, unpacked, in {folder}."
            ) from error
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise InputError(
            f"{kind} in {root} is damaged, or cannot be downloaded ({reason}): remove {folder}, and set download: true "
            "or put its four files there, unpacked."
        ) from error
    if images.ndim != 3 or images.dtype != np.uint8 or max(images.shape[1:]) > PADDED_SIZE:
        raise InputError(f"{folder} holds {images.dtype} {images.shape}, not {kind}: put its files there.")
    return images


def _pad(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    gaps = [PADDED_SIZE - side for side in images.shape[1:]]
    return np.pad(images, [(0, 0), *((gap // 2, math.ceil(gap / 2)) for gap in gaps)])
