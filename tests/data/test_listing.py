from __future__ import annotations

import errno
import os
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
    with pytest.raises(InputError, match=r"is a file: set data\.root to the folder"):
        read_folder(__file__)
    for fractions in [(0.5, 0.5), (0.9, 0.2, 0.1), (1.1, -0.1, 0.0)]:
        with pytest.raises(InputError, match="sum to 1"):
            read_folder(tmp_path, fractions)


def test_less_common_suffixes_of_images_are_listed(tmp_path: Path) -> None:
    images = ["1.jfif", "2.GIF", "3.avif", "4.jp2", "5.ppm", "6.pgm", "7.jpe", "8.pbm", "9.pnm"]
    touch(tmp_path, *images)
    assert read_folder(tmp_path).names == images


def test_what_is_left_out_is_counted_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    touch(outside, "b.jpg")
    touch(root, "a.jpg", "b.heic", "c.HEIC", "d.mp4", "README", "sub/e")
    (root / "f.jpg").symlink_to(outside / "b.jpg")
    (root / "g").symlink_to(outside)
    listing = read_folder(root)
    assert listing.names == ["a.jpg"]
    assert not caplog.text
    listing.report_left_out()
    (said,) = caplog.messages
    assert said == (
        f"{root}: left out 7 other files (.heic: 2, without a suffix: 2, .mp4: 1, links out of the folder: 1, "
        "links to folders: 1)"
    )


def test_of_what_nobody_misses_nothing_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(
        tmp_path, "a.jpg", "Thumbs.db", "desktop.ini", ".DS_Store", "__MACOSX/a.jpg", "__MACOSX/._a.jpg", "captions.csv"
    )
    touch(tmp_path, "a.txt", "a.json", ".git/x.heic", "lost+found/x")
    listing = read_folder(tmp_path)
    assert (listing.names, listing.left_out) == (["a.jpg"], {})
    listing.report_left_out()
    assert not caplog.messages


def test_a_folder_without_an_image_says_what_it_holds(tmp_path: Path) -> None:
    touch(tmp_path, "a.heic", "b.heic", "below/c.mov")
    with pytest.raises(InputError, match=r"; it holds 3 other files \(\.heic: 2, \.mov: 1\)\.$"):
        read_folder(tmp_path)


def test_names_that_are_not_utf8_are_listed_and_split(tmp_path: Path) -> None:
    names = sorted(os.fsdecode(name) for name in (b"caf\xe9.jpg", b"\xff.jpg", b"a.jpg", "写真.jpg".encode()))
    touch(tmp_path, *names)
    listing = read_folder(tmp_path, (0.5, 0.25, 0.25))
    assert listing.names == names
    assert sorted(np.concatenate(list(listing.splits.values()))) == [0, 1, 2, 3]


def test_a_folder_whose_name_is_not_utf8_has_a_name_that_can_be_written(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"caf\xe9")
    touch(root, "a.jpg")
    assert read_folder(root).name == r"caf\xe9"


def test_links_in_a_loop_are_listed_once_or_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "c.jpg")
    (tmp_path / "c.jpg").symlink_to(tmp_path / "b.jpg")
    (tmp_path / "up").symlink_to(tmp_path)
    listing = read_folder(tmp_path)
    assert listing.names == ["a.jpg", "b.jpg", "c.jpg"]  # the loops cannot be read: they are named when they are
    assert listing.left_out == {"links to folders": 1}


def test_folders_that_cannot_be_opened_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.jpg", "closed/b.jpg")
    scandir = os.scandir

    def scan(path: str) -> object:
        if str(path).endswith("closed"):
            raise OSError(number, os.strerror(number), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    number = errno.EACCES
    assert read_folder(tmp_path).left_out == {"folders that cannot be opened": 1}
    number = errno.EIO  # no fault of the folder
    with pytest.raises(OSError, match="Input/output error"):
        read_folder(tmp_path)


def test_names_that_people_had_before_keep_their_split(tmp_path: Path) -> None:
    """Figures that were measured on a split stay comparable."""
    touch(tmp_path, "a/1.jpg", "a/2.PNG", "b/1.jpg", "été.webp", "写真.jpeg", "x y.bmp", "7.jpg")
    splits = read_folder(tmp_path, (0.4, 0.3, 0.3), seed=3).splits
    assert {split: rows.tolist() for split, rows in splits.items()} == {
        "train": [1, 2, 3],
        "val": [4, 6],
        "test": [0, 5],
    }


def test_results_of_a_restoration_are_no_photographs(tmp_path: Path) -> None:
    """A second run over the folder that holds the first one's would restore them again."""
    touch(
        tmp_path, "a.jpg", "runs/r/restored/a.png", "runs/r/records/settings.json", "runs/r/notes/b.jpg", "runs/c.jpg"
    )
    listing = read_folder(tmp_path)
    assert listing.names == ["a.jpg", "runs/c.jpg"]
    assert listing.left_out == {"folders of restorations": 1}
    assert read_folder(tmp_path / "runs" / "r" / "restored").names == ["a.png"]  # asked for
    assert "restored/a.png" in read_folder(tmp_path / "runs" / "r").names
