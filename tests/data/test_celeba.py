from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gan_lightning.data.celeba import read_celeba
from gan_lightning.data.decode import CropResize
from gan_lightning.data.listing import ImageListing, stays_inside
from gan_lightning.errors import InputError

Make = Callable[..., Path]


def assert_same(first: ImageListing, second: ImageListing) -> None:
    assert first.name == second.name
    assert first.names == second.names
    assert first.attribute_names == second.attribute_names
    for split in ("train", "val", "test"):
        np.testing.assert_array_equal(first.splits[split], second.splits[split])
    assert (first.attributes is None) == (second.attributes is None)
    if first.attributes is not None and second.attributes is not None:
        np.testing.assert_array_equal(first.attributes, second.attributes)


@pytest.mark.parametrize("attributes", [(), ("Smiling", "Eyeglasses")])
def test_official_and_kaggle_layouts_read_the_same(make_celeba: Make, attributes: tuple[str, ...]) -> None:
    official = read_celeba(make_celeba(layout="official", name="a"), attributes)
    kaggle = read_celeba(make_celeba(layout="kaggle", name="b"), attributes)
    assert_same(official, kaggle)
    for files in (official, kaggle):
        assert all((files.root / name).is_file() for name in files.names)


def test_root_may_be_the_celeba_folder_itself(make_celeba: Make) -> None:
    root = make_celeba()
    assert_same(read_celeba(root), read_celeba(root / "celeba"))


def test_splits_are_those_of_torchvision(make_celeba: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    root = make_celeba(12)
    base = root / "celeba"
    names = [line.split()[0] for line in (base / "list_eval_partition.txt").read_text().splitlines()]
    for stem, header in (("identity_CelebA", 0), ("list_bbox_celeba", 2), ("list_landmarks_align_celeba", 2)):
        (base / f"{stem}.txt").write_text("\n".join([str(len(names)), "x"][:header] + [f"{name} 1" for name in names]))
    monkeypatch.setattr(datasets.CelebA, "_check_integrity", lambda self: True)
    files = read_celeba(root, ("Eyeglasses", "Male", "Smiling"))
    for split, theirs in (("train", "train"), ("val", "valid"), ("test", "test")):
        reference = datasets.CelebA(str(root), split=theirs)
        assert [files.names[row] for row in files.splits[split]] == list(reference.filename)
        np.testing.assert_array_equal(files.attributes[files.splits[split]] > 0, reference.attr.numpy() > 0)


def test_splits_are_disjoint_and_complete(make_celeba: Make) -> None:
    files = read_celeba(make_celeba(11))
    rows = np.concatenate(list(files.splits.values()))
    np.testing.assert_array_equal(np.sort(rows), np.arange(11))


def test_attribute_list_is_needed_only_for_attributes(make_celeba: Make) -> None:
    root = make_celeba()
    (root / "celeba" / "list_attr_celeba.txt").unlink()
    assert read_celeba(root).attributes is None
    with pytest.raises(InputError, match=r"list_attr_celeba\.txt or list_attr_celeba\.csv"):
        read_celeba(root, ("Smiling",))


def test_attributes_go_by_name_not_by_line(make_celeba: Make) -> None:
    root = make_celeba()
    before = read_celeba(root, ("Smiling",)).attributes
    path = root / "celeba" / "list_attr_celeba.txt"
    count, header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([count, header, *reversed(rows)]))
    np.testing.assert_array_equal(read_celeba(root, ("Smiling",)).attributes, before)


def test_unknown_or_absent_attributes_are_refused(make_celeba: Make) -> None:
    root = make_celeba()
    with pytest.raises(InputError, match=r"No attribute 'Smile' .* Smiling"):
        read_celeba(root, ("Smile",))
    path = root / "celeba" / "list_attr_celeba.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))
    with pytest.raises(InputError, match=r"000010\.jpg"):
        read_celeba(root, ("Smiling",))


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "/etc/secret.jpg", "a/../../secret.jpg", r"..\secret.jpg", "C:/x.jpg"]
)
def test_a_list_cannot_leave_the_image_folder(make_celeba: Make, name: str) -> None:
    root = make_celeba()
    with (root / "celeba" / "list_eval_partition.txt").open("a") as file:
        file.write(f"{name} 0\n")
    with pytest.raises(InputError, match=r"list_eval_partition\.txt, line 11: "):
        read_celeba(root)


@pytest.mark.parametrize("name", ["a.jpg", "a/b.jpg", "..a.jpg", "a..b/c.jpg"])
def test_innocent_names_stay_inside(name: str) -> None:
    assert stays_inside(name)


@pytest.mark.parametrize("line", ["000011.jpg", "000011.jpg 3", "000011.jpg 0 1"])
def test_a_malformed_line_is_named(make_celeba: Make, line: str) -> None:
    root = make_celeba()
    with (root / "celeba" / "list_eval_partition.txt").open("a") as file:
        file.write(line)
    with pytest.raises(InputError, match=r"line 11: expected"):
        read_celeba(root)


def test_missing_files_are_reported(tmp_path: Path, make_celeba: Make) -> None:
    with pytest.raises(InputError, match=r"does not exist: set data\.root"):
        read_celeba(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"does not hold CelebA.*img_align_celeba"):
        read_celeba(tmp_path)
    root = make_celeba()
    (root / "celeba" / "list_eval_partition.txt").unlink()
    with pytest.raises(InputError, match="list_eval_partition"):
        read_celeba(root)


def test_names_that_are_not_utf8_are_found(make_celeba: Make) -> None:
    base = make_celeba() / "celeba"
    images = base / "img_align_celeba"
    (images / "000001.jpg").rename(images / os.fsdecode(b"caf\xe9.jpg"))
    names = base / "list_eval_partition.txt"
    names.write_bytes(names.read_bytes().replace(b"000001.jpg", b"caf\xe9.jpg"))
    files = read_celeba(base)
    assert files.names[0] == os.fsdecode(b"caf\xe9.jpg")
    assert files.decode(0, CropResize(8, 178, 3)).shape == (8, 8, 3)
