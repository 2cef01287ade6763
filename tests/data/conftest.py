"""Small trees of JPEGs in the layouts that the package reads, created for each test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ATTRIBUTES = ("Eyeglasses", "Male", "Smiling")


def write_image(path: Path, seed: int, size: tuple[int, int] = (178, 218), mode: str = "RGB") -> Path:
    """Write a smooth random image of this width and height; the suffix selects the format."""
    random = np.random.default_rng(seed)
    bands = len(Image.new(mode, (1, 1)).getbands())
    coarse = random.integers(0, 256, (7, 6, bands), dtype=np.uint8).squeeze()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse, mode).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def make_image() -> Callable[..., Path]:
    return write_image


@pytest.fixture
def make_celeba(tmp_path: Path) -> Callable[..., Path]:
    """Write `count` images, 3 in 5 for train, 1 in 5 each for val and test; return the root."""

    def make(count: int = 10, layout: str = "official", name: str = "celeba_root") -> Path:
        root = tmp_path / name
        kaggle = layout == "kaggle"
        base = root if kaggle else root / "celeba"
        folder = base / "img_align_celeba" / "img_align_celeba" if kaggle else base / "img_align_celeba"
        names = [f"{number:06d}.jpg" for number in range(1, count + 1)]
        partition = [max(0, row % 5 - 2) for row in range(count)]
        values = np.random.default_rng(count).choice([-1, 1], (count, len(ATTRIBUTES)))
        for row, image in enumerate(names):
            write_image(folder / image, seed=row)
        if kaggle:
            lists = [["image_id,partition"], [",".join(["image_id", *ATTRIBUTES])]]
            separator, suffix = ",", ".csv"
        else:
            lists, separator, suffix = [[], [str(count), " ".join(ATTRIBUTES)]], " ", ".txt"
        lists[0] += [f"{image}{separator}{part}" for image, part in zip(names, partition, strict=True)]
        lists[1] += [separator.join([image, *map(str, row)]) for image, row in zip(names, values, strict=True)]
        (base / f"list_eval_partition{suffix}").write_text("\n".join(lists[0]) + "\n")
        (base / f"list_attr_celeba{suffix}").write_text("\n".join(lists[1]) + "\n")
        return root

    return make
