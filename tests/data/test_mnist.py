from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

from gan_lightning.data.image_data_module import ImageDataModule
from gan_lightning.data.mnist import MNIST, FashionMNIST, read_mnist
from gan_lightning.errors import InputError

pytest.importorskip("torchvision")
Write = Callable[..., np.ndarray]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def write_idx(root: Path) -> Write:
    """Write the four files of tiny sets of random digits, and return all images, train first."""

    def write(kind: str = "MNIST", train: int = 30, test: int = 6, seed: int = 0) -> np.ndarray:
        images = np.random.default_rng(seed).integers(0, 256, (train + test, 28, 28), dtype=np.uint8)
        folder = root / kind / "raw"
        folder.mkdir(parents=True, exist_ok=True)
        for part, some in (("train", images[:train]), ("t10k", images[train:])):
            header = struct.pack(">4i", 0x803, *some.shape)
            (folder / f"{part}-images-idx3-ubyte").write_bytes(header + some.tobytes())
            (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, len(some)) + bytes(len(some)))
        return images

    return write


@pytest.fixture
def opened(root: Path, tmp_path: Path) -> Callable[..., ImageDataModule]:
    def call(kind: type[MNIST] = MNIST, **settings: object) -> ImageDataModule:
        data = kind(str(root), batch_size=4, cache_dir=str(tmp_path / "cache"), **settings)
        data.prepare_data()
        data.setup("fit")
        return data

    return call


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_images_are_padded_with_minus_one(write_idx: Write, opened: Write, kind: type[MNIST]) -> None:
    images = write_idx(kind.__name__)
    data = opened(kind)
    for batch in data.train_dataloader():
        indices = batch["index"].numpy()
        result = data.on_after_batch_transfer(batch, 0)["image"]
        assert result.shape == (4, 1, 32, 32)
        inside = torch.from_numpy(images[indices]).float() / 127.5 - 1
        torch.testing.assert_close(result[:, 0, 2:30, 2:30], inside, rtol=0, atol=1e-6)
        result[:, :, 2:30, 2:30] = -1
        assert (result == -1).all()


def test_splits_are_a_partition_and_test_is_the_official_one(write_idx: Write, opened: Write) -> None:
    write_idx()
    data = opened(val_fraction=0.2)
    train, val, test = (data.dataset(split).rows for split in ("train", "val", "test"))
    assert (len(train), len(val)) == (24, 6)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, val])), np.arange(30))
    np.testing.assert_array_equal(test, np.arange(30, 36))
    np.testing.assert_array_equal(opened(val_fraction=0.2).dataset("val").rows, val)
    assert not np.array_equal(opened(val_fraction=0.2, split_seed=1).dataset("val").rows, val)
    assert data.protocol("test")["dataset"] == "mnist"


def test_no_digit_is_mirrored_unless_asked(write_idx: Write, opened: Write) -> None:
    write_idx()
    for flip in (False, True):
        batches = list(opened(flip=flip).train_dataloader())
        assert any(batch["flip"].any() for batch in batches) is flip


def test_other_sizes_and_channels_and_resident(write_idx: Write, opened: Write) -> None:
    write_idx()
    batch = next(iter(opened(image_size=16, channels=3).train_dataloader()))
    assert batch["image"].shape == (4, 3, 16, 16)
    mapped, moved = opened(), opened(resident=True)
    for one, other in zip(mapped.train_dataloader(), moved.train_dataloader(), strict=True):
        one, other = mapped.on_after_batch_transfer(one, 0), moved.on_after_batch_transfer(other, 0)
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_new_files_are_packed_anew(write_idx: Write, opened: Write) -> None:
    write_idx()
    before = opened().protocol("test")["content"]
    write_idx(seed=1)
    assert opened().protocol("test")["content"] != before


def test_missing_and_damaged_files_are_reported(root: Path, write_idx: Write, opened: Write) -> None:
    with pytest.raises(InputError, match=r"^MNIST was not found in .*: set download: true, or put its four files"):
        opened()
    write_idx()
    path = root / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"^MNIST in .* is damaged.*: remove .*raw"):
        opened()
    path.write_bytes(struct.pack(">4i", 0x803, 1, 40, 40) + bytes(1600))
    with pytest.raises(InputError, match=r"expected MNIST in .*raw but got uint8 \(1, 40, 40\)"):
        opened()
    with pytest.raises(InputError, match="val_fraction is 1"):
        read_mnist(root, "MNIST", val_fraction=1)
    with pytest.raises(InputError, match="not cropped"):
        MNIST(str(root), crop=20)


def test_a_download_that_fails_says_what_to_do(opened: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Error downloading train-images\nTried a mirror")

    monkeypatch.setattr("torchvision.datasets.MNIST.download", fail)
    with pytest.raises(InputError, match=r"cannot be downloaded \(Error downloading train-images\): remove"):
        opened(download=True)


def test_options_are_those_of_the_command_line() -> None:
    parser = ArgumentParser()
    parser.add_subclass_arguments(ImageDataModule, "data")
    arguments = ["--data=FashionMNIST", "--data.root=x", "--data.flip=true", "--data.resident=true"]
    options = parser.parse_args([*arguments, "--data.val_fraction=0.2"]).data.init_args
    assert (options.image_size, options.channels, options.flip, options.val_fraction) == (32, 1, True, 0.2)
