"""Labels of images: from folders, attributes, MNIST's files and streams."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gan_lightning.data.celeba import CelebA
from gan_lightning.data.image_data_module import ImageDataModule
from gan_lightning.data.image_folder import ImageFolder
from gan_lightning.data.labels import labels_of_attributes
from gan_lightning.data.listing import read_folder
from gan_lightning.data.mnist import MNIST
from gan_lightning.data.synthetic_faces import SyntheticFaces
from gan_lightning.errors import InputError
from tests.data.conftest import write_image

CLASSES = ("10", "2", "cat")  # in the order of their names as text


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Write five images of each class; return their root."""
    root = tmp_path / "classes"
    for number, name in enumerate(CLASSES):
        for image in range(5):
            write_image(root / name / "below" / f"{image}.png", seed=10 * number + image, size=(16, 16))
    return root


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Any]:
    def call(kind: type[ImageDataModule], root: Path, stage: str | None = "fit", **settings: Any) -> Any:
        common = {"image_size": 16, "batch_size": 3, "cache_dir": str(tmp_path / "cache")}
        data = kind(root=str(root), **{**common, **settings})
        data.prepare_data()
        data.setup(stage)
        return data

    return call


def test_labels_are_the_folders(classes: Path, opened: Callable[..., Any]) -> None:
    data = opened(ImageFolder, classes, labels="folder", split_fractions=(0.8, 0.2, 0))
    assert data.class_names == CLASSES
    names, seen = data.read_files().names, 0
    for batch in [*data.train_dataloader(), *data.val_dataloader()]:
        moved = data.on_after_batch_transfer(batch, 0)
        for row, label in zip(moved["index"].tolist(), moved["label"].tolist(), strict=True):
            assert names[row].startswith(f"{CLASSES[label]}/")
            seen += 1
    assert seen == 15
    counts = data.class_counts()
    rows = data.dataset("train").rows
    assert counts.tolist() == [sum(names[row].startswith(f"{name}/") for row in rows) for name in CLASSES]
    resident = opened(ImageFolder, classes, labels="folder", split_fractions=(0.8, 0.2, 0), resident=True)
    for one, other in zip(data.train_dataloader(), resident.train_dataloader(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_without_labels_batches_and_content_are_those_of_before(classes: Path, opened: Callable[..., Any]) -> None:
    plain, labeled = (opened(ImageFolder, classes, labels=labels) for labels in (None, "folder"))
    assert plain.class_names == ()
    assert plain.class_counts() is None
    batches = [next(iter(data.train_dataloader())) for data in (plain, labeled)]
    assert set(batches[0]) == {"image", "index", "flip"}
    assert set(batches[1]) == {"image", "index", "flip", "label"}
    assert plain.packed.folder == labeled.packed.folder  # labels are read beside the pack
    assert plain.protocol("train")["content"] != labeled.protocol("train")["content"]


def test_folders_that_are_no_classes_are_refused(classes: Path, opened: Callable[..., Any]) -> None:
    (classes / ".hidden").mkdir()
    (classes / "empty").mkdir()
    with pytest.raises(InputError, match=r"^the class folder .*empty holds no image: add images, or remove it$"):
        opened(ImageFolder, classes, labels="folder")
    opened(ImageFolder, classes)
    (classes / "empty").rmdir()
    beside = write_image(classes / "alone.png", seed=99, size=(16, 16))
    with pytest.raises(InputError, match=r"^alone.png lies in .* itself and has no label: expected CLASS/IMAGE"):
        opened(ImageFolder, classes, labels="folder")
    beside.unlink()
    with pytest.raises(InputError, match="holds one class folder: labels need two or more"):
        opened(ImageFolder, classes / "cat", labels="folder")


def test_a_class_without_training_images_is_refused(classes: Path, opened: Callable[..., Any]) -> None:
    for image in range(1, 5):
        (classes / "cat" / "below" / f"{image}.png").unlink()
    for seed in range(100):  # until the only cat is in the val split
        listing = read_folder(classes, (0.5, 0.5, 0), seed)
        if not any(listing.names[row].startswith("cat") for row in listing.splits["train"]):
            break
    with pytest.raises(InputError, match=r"^the class cat has no image in the train split of .*: add images of it"):
        opened(ImageFolder, classes, labels="folder", split_fractions=(0.5, 0.5, 0), split_seed=seed)


def test_each_combination_of_attributes_is_a_class() -> None:
    values = np.array([[-1, -1, -1], [1, -1, -1], [-1, 1, -1], [1, 1, -1], [1, -1, 1]], np.int8)
    labels, names = labels_of_attributes(values, ["Smiling", "Eyeglasses", "Male"])
    assert labels.tolist() == [0, 1, 2, 3, 5]
    assert names[:4] == ("none", "Smiling", "Eyeglasses", "Smiling+Eyeglasses")
    assert names[5] == "Smiling+Male"
    assert len(names) == 8
    with pytest.raises(InputError, match="are 7 attributes, whose combinations are 128 classes: choose 6 or fewer"):
        labels_of_attributes(np.ones((1, 7), np.int8), list("abcdefg"))


@pytest.mark.parametrize("kind", [CelebA, SyntheticFaces])
def test_labels_of_faces_are_their_attributes(
    kind: type[ImageDataModule], make_celeba: Callable[..., Path], faces_root: Path, opened: Callable[..., Any]
) -> None:
    root, more = (make_celeba(30), {}) if kind is CelebA else (faces_root, {"count": 60})
    attributes = ["Smiling", "Eyeglasses"]
    data = opened(kind, root, None, labels=attributes, attributes=["Smiling", "Male", "Eyeglasses"], **more)
    batch = next(iter(data.val_dataloader()))
    smiling, _, glasses = (batch["attributes"] > 0).T
    assert torch.equal(batch["label"], smiling + 2 * glasses)
    listing = data.read_files()
    assert listing.attribute_names == ("Smiling", "Male", "Eyeglasses")
    assert len(listing.labels) == len(listing)
    with pytest.raises(InputError, match="No attribute 'Hat'"):
        opened(kind, root, None, labels=["Hat"], **more)


def write_digits(root: Path, labels: list[int], kind: str = "MNIST") -> None:
    """Write MNIST's four files, with images whose gray level is ten times their label."""
    folder = root / kind / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "t10k"):
        images = np.repeat(np.array(labels, np.uint8) * 10, 784).tobytes()
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 0x803, len(labels), 28, 28) + images)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, len(labels)) + bytes(labels))


def test_labels_of_mnist_are_those_of_its_files(tmp_path: Path, opened: Callable[..., Any]) -> None:
    pytest.importorskip("torchvision")
    labels = [*range(10)] * 3
    write_digits(tmp_path, labels)
    data = opened(MNIST, tmp_path, labels=True, image_size=32, channels=1)
    assert data.class_names == tuple("0123456789")
    for batch in [*data.train_dataloader(), *data.test_dataloader()]:
        assert torch.equal(batch["image"][:, 0, 16, 16].long(), 10 * batch["label"])
    assert "label" not in next(iter(opened(MNIST, tmp_path, image_size=32, channels=1).train_dataloader()))
    write_digits(tmp_path, [*labels[:-1], 12])
    opened(MNIST, tmp_path, image_size=32, channels=1)
    with pytest.raises(InputError, match=r"the labels of MNIST in .* are not those of its 60 images"):
        opened(MNIST, tmp_path, labels=True, image_size=32, channels=1)


def test_labels_of_a_stream_are_those_of_its_items(tmp_path: Path, opened: Callable[..., Any]) -> None:
    pytest.importorskip("litdata")
    from gan_lightning.data.streamed_images import StreamedImages
    from tests.data.test_streaming import write_split

    items = [{"image": np.full((16, 16, 3), 20 * item, np.uint8), "label": item % 3} for item in range(9)]
    for split in ("train", "val"):
        write_split(tmp_path / split, list(items))
    data = opened(StreamedImages, tmp_path, num_classes=3, num_workers=0, flip=False)
    for batch in [*data.train_dataloader(), *data.val_dataloader()]:
        assert torch.equal(batch["image"][:, 0, 0, 0].long() // 20 % 3, batch["label"])
    with pytest.raises(
        InputError, match=r"has the label 2: data.num_classes is 2, so that every item needs an integer"
    ):
        list(opened(StreamedImages, tmp_path, num_classes=2, num_workers=0).val_dataloader())
    with pytest.raises(InputError, match="resident images of a stream have no labels"):
        StreamedImages(str(tmp_path), num_classes=3, resident=True)
