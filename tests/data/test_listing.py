from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gan_lightning.data.listing import read_folder
from gan_lightning.errors import InputError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_finds_images_sorted_and_nothing_else(tmp_path: Path) -> None:
    images = ["a/2.PNG", "a/1.jpg", "b/c/3.webp", "4.jpeg", "5.bmp", "6.tif"]
    touch(tmp_path, *images, "notes.txt", ".hidden.jpg", ".cache/7.jpg", "a/._1.jpg")
    assert read_folder(tmp_path).names == sorted(images)


def test_links_do_not_leave_the_root(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    touch(root, "a.jpg")
    touch(outside, "b.jpg")
    (root / "to_file.jpg").symlink_to(outside / "b.jpg")
    (root / "to_folder").symlink_to(outside)
    (root / "inner.jpg").symlink_to(root / "a.jpg")
    assert read_folder(root).names == ["a.jpg", "inner.jpg"]


@pytest.mark.parametrize("count", [3, 10, 101])
def test_split_is_a_partition_of_the_right_sizes(tmp_path: Path, count: int) -> None:
    touch(tmp_path, *(f"{number:03d}.jpg" for number in range(count)))
    splits = read_folder(tmp_path, (0.8, 0.1, 0.1)).splits
    np.testing.assert_array_equal(np.sort(np.concatenate(list(splits.values()))), np.arange(count))
    assert len(splits["val"]) == len(splits["test"]) == max(1, round(count * 0.1))


def test_split_depends_on_the_seed_and_on_names_alone(tmp_path: Path) -> None:
    for root in (tmp_path / "a", tmp_path / "b"):
        touch(root, *(f"{number:03d}.jpg" for number in range(100)))
    first, second = (read_folder(tmp_path / name, seed=1).splits for name in "ab")
    other = read_folder(tmp_path / "a", seed=2).splits
    for split in first:
        np.testing.assert_array_equal(first[split], second[split])
    assert not np.array_equal(first["val"], other["val"])


def test_a_new_file_moves_few_old_ones(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{number:03d}.jpg" for number in range(200)))
    before = read_folder(tmp_path)
    touch(tmp_path, "000a.jpg")
    after = read_folder(tmp_path)
    split_of = [
        {files.names[row]: split for split, rows in files.splits.items() for row in rows} for files in (before, after)
    ]
    assert sum(split_of[0][name] != split_of[1][name] for name in before.names) <= 2


def test_what_cannot_be_read_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not exist: set data\.root"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"No image .*\.jpg"):
        read_folder(tmp_path)
    for fractions in [(0.5, 0.5), (0.9, 0.2, 0.1), (1.1, -0.1, 0.0)]:
        with pytest.raises(InputError, match="sum to 1"):
            read_folder(tmp_path, fractions)
