from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import lightning as L
import numpy as np
import pytest
import torch
import torch.distributed
from lightning.pytorch.strategies import DDPStrategy
from PIL import Image
from torch import Tensor, nn

from gan_lightning.data.celeba import CelebA
from gan_lightning.data.image_data_module import ImageDataModule
from gan_lightning.data.image_folder import ImageFolder
from gan_lightning.data.synthetic_faces import SyntheticFaces
from gan_lightning.errors import InputError
from gan_lightning.modules.ddp import leave_ranks_at_exit

Make = Callable[..., Path]
Open = Callable[..., ImageDataModule]


@pytest.fixture
def open_celeba(make_celeba: Make, tmp_path: Path) -> Open:
    """Return a packed CelebA of `count` images, set up for `stage`."""

    def call(count: int = 20, stage: str | None = None, **settings: object) -> CelebA:
        root = tmp_path / "celeba_root"
        if not root.exists():
            make_celeba(count)
        defaults = {"image_size": 16, "batch_size": 4, "cache_dir": str(tmp_path / "cache")}
        data = CelebA(str(root), **{**defaults, **settings})
        data.prepare_data()
        data.setup(stage)
        return data

    return call


class Recorder(L.LightningModule):
    """Trains a batch-normalized weight, and records which images it saw in which epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1))
        self.seen: dict[str, list[tuple[int, list[int]]]] = {"train": [], "val": [], "test": []}
        self.image: Tensor | None = None

    def step(self, kind: str, batch: dict[str, Tensor]) -> Tensor:
        self.image = batch["image"]
        self.seen[kind].append((self.current_epoch, batch["index"].tolist()))
        return self.layer(batch["image"]).square().mean()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self.step("train", batch)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.log("val", self.step("val", batch), sync_dist=True)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.step("test", batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def rows(self, kind: str, epoch: int = 0) -> list[int]:
        return [row for seen_in, rows in self.seen[kind] for row in rows if seen_in == epoch]


def trainer(tmp_path: Path, **settings: object) -> L.Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    defaults = {"accelerator": "cpu", "devices": 1, "max_epochs": 2, "default_root_dir": tmp_path, **quiet}
    return L.Trainer(**{**defaults, **settings})


def test_fit_sees_every_image_once_an_epoch_in_new_orders(open_celeba: Open, tmp_path: Path) -> None:
    data, model = open_celeba(20), Recorder()
    data.setup("fit")
    trainer(tmp_path, num_sanity_val_steps=0).fit(model, datamodule=data)
    train, val = data.dataset("train").rows.tolist(), data.dataset("val").rows.tolist()
    assert len(train) == 12
    for epoch in (0, 1):
        assert sorted(model.rows("train", epoch)) == train
        assert model.rows("val", epoch) == val
    assert model.rows("train", 0) != model.rows("train", 1)


def test_the_same_seed_gives_the_same_order(open_celeba: Open, tmp_path: Path) -> None:
    orders = []
    for seed in (1, 1, 2):
        model = Recorder()
        L.seed_everything(len(orders), verbose=False)
        trainer(tmp_path, max_epochs=1).fit(model, datamodule=open_celeba(20, seed=seed))
        orders.append(model.rows("train"))
    assert orders[0] == orders[1] != orders[2]


def test_test_sees_the_test_split_in_order(open_celeba: Open, tmp_path: Path) -> None:
    data, model = open_celeba(25), Recorder()
    trainer(tmp_path).test(model, datamodule=data, verbose=False)
    assert model.rows("test") == data.dataset("test").rows.tolist()


def test_pixels_on_the_device_are_those_of_the_file(open_celeba: Open, tmp_path: Path) -> None:
    model = Recorder()
    data = open_celeba(20, image_size=64, crop=178, eval_batch_size=3)
    trainer(tmp_path).validate(model, datamodule=data, verbose=False)
    assert model.image is not None
    assert model.image.dtype == torch.float32
    assert model.image.is_contiguous(memory_format=torch.channels_last)
    files = data.read_files()
    for row, image in zip(model.seen["val"][-1][1], model.image, strict=True):
        with Image.open(files.root / files.names[row]) as opened:
            square = opened.crop((0, 20, 178, 198)).resize((64, 64), Image.Resampling.BICUBIC)
        expected = torch.from_numpy(np.asarray(square).transpose(2, 0, 1) / 255 * 2 - 1)
        torch.testing.assert_close(image, expected.float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_flips_mirror_left_and_right_where_they_are_drawn(open_celeba: Open, channels: int) -> None:
    data = open_celeba(20, channels=channels)
    batch = next(iter(data.train_dataloader()))
    batch["flip"] = torch.tensor([True, False, True, False])
    pixels = batch["image"].clone()
    result = data.on_after_batch_transfer(dict(batch), 0)
    assert set(result) == {"image", "index"}
    assert result["image"].is_contiguous(memory_format=torch.channels_last)
    as_bytes = result["image"].add(1).mul(127.5).round().to(torch.uint8)
    for position, flipped in enumerate([True, False, True, False]):
        expected = pixels[position].flip(-1) if flipped else pixels[position]
        torch.testing.assert_close(as_bytes[position], expected, rtol=0, atol=0)


def test_only_training_flips_and_only_if_asked(open_celeba: Open) -> None:
    def drawn(data: ImageDataModule, loader: str) -> bool:
        return any(batch["flip"].any() for batch in getattr(data, loader)())

    data = open_celeba(40)
    assert drawn(data, "train_dataloader")
    assert not drawn(data, "val_dataloader")
    assert not drawn(open_celeba(40, flip=False), "train_dataloader")


def test_reading_in_worker_processes_changes_nothing(open_celeba: Open) -> None:
    here, there = (list(open_celeba(20, num_workers=workers).train_dataloader()) for workers in (0, 1))
    for one, other in zip(here, there, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_attributes_go_with_their_images(open_celeba: Open) -> None:
    data = open_celeba(20, attributes=["Smiling", "Male"])
    files = data.read_files()
    assert files.attributes is not None
    for batch in data.train_dataloader():
        torch.testing.assert_close(batch["attributes"], torch.from_numpy(files.attributes[batch["index"].numpy()]))
    assert "attributes" not in next(iter(open_celeba(20).train_dataloader()))


def test_unreadable_images_are_in_no_split(open_celeba: Open, make_celeba: Make) -> None:
    root = make_celeba(20)
    (root / "celeba" / "img_align_celeba" / "000001.jpg").write_bytes(b"x")
    with pytest.warns(UserWarning, match=r"1 of 20 .*000001\.jpg"):
        data = open_celeba()
    assert len(data.dataset("all")) == 19
    assert 0 not in data.dataset("train").rows
    with pytest.raises(InputError, match=r"000001\.jpg cannot be read"):
        open_celeba(strict=True)


def test_real_images_and_their_protocol(open_celeba: Open) -> None:
    data = open_celeba(20)
    real = data.real_images("all")
    assert len(real) == 20
    assert real.read(np.array([3, 1])).dtype == torch.uint8
    protocols = [data.protocol(split) for split in ("train", "val", "test", "all")]
    protocols += [open_celeba(20, **change).protocol("all") for change in ({"crop": 148}, {"channels": 1})]
    assert len({protocol["content"] for protocol in protocols}) == 6
    assert open_celeba(20).protocol("all") == protocols[3]
    expected = {"dataset": "celeba", "split": "train", "images": 12, "crop": 178, "image_size": 16, "channels": 3}
    assert {key: protocols[0][key] for key in expected} == expected
    assert protocols[0]["resizer"] == "pillow-bicubic"
    assert all(type(value) in (str, int) for protocol in protocols for value in protocol.values())


def test_setup_without_prepare_data_says_so(make_celeba: Make, tmp_path: Path) -> None:
    data = CelebA(str(make_celeba(5)), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(InputError, match="prepare_data"):
        data.setup("fit")
    with pytest.raises(InputError, match="prepare_data"):
        data.train_dataloader()


def test_data_that_cannot_train_are_refused_before_the_first_step(open_celeba: Open, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"batch of 13 .* 12 images .* batch_size to 12 or less"):
        trainer(tmp_path).fit(Recorder(), datamodule=open_celeba(20, batch_size=13))
    path = tmp_path / "celeba_root" / "celeba" / "list_eval_partition.txt"
    path.write_text(path.read_text().replace(" 1\n", " 0\n"))
    with pytest.raises(InputError, match=r"val split .* is empty"):
        trainer(tmp_path).fit(Recorder(), datamodule=open_celeba())
    trainer(tmp_path, max_epochs=1, limit_val_batches=0).fit(Recorder(), datamodule=open_celeba())
    path.write_text(path.read_text().replace(" 2\n", " 0\n"))
    with pytest.raises(InputError, match=r"test split .* is empty"):
        trainer(tmp_path).test(Recorder(), datamodule=open_celeba())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 0}, "image_size is 0"),
        ({"channels": 4}, "channels is 4"),
        ({"crop": -1}, "crop is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_arguments_out_of_range_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CelebA("anywhere", **settings)


def test_unknown_splits_are_refused(open_celeba: Open) -> None:
    with pytest.raises(InputError, match="no split 'valid': choose train, val, test or all"):
        open_celeba().dataset("valid")


def test_overfit_batches_is_refused_with_the_way_out(open_celeba: Open, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="limit_train_batches"):
        trainer(tmp_path, overfit_batches=1).fit(Recorder(), datamodule=open_celeba(20))


def test_image_folder_trains(tmp_path: Path, make_image: Make) -> None:
    for number in range(20):
        make_image(tmp_path / "images" / f"{number % 3}" / f"{number}.png", number, size=(20 + number, 30))
    data = ImageFolder(str(tmp_path / "images"), image_size=16, batch_size=4, cache_dir=str(tmp_path / "cache"))
    model = Recorder()
    trainer(tmp_path, max_epochs=1).fit(model, datamodule=data)
    assert len(set(model.rows("train"))) == 16
    assert data.protocol("train")["dataset"] == "images"


def test_synthetic_faces_are_made_once_and_cut_to_count(
    make_celeba: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    synthesis = ModuleType("gan_lightning.faces.synthesis")
    synthesis.synthesize = lambda root, count, seed: calls.append((count, seed)) or make_celeba(20, name=root.name)
    monkeypatch.setitem(sys.modules, "gan_lightning.faces.synthesis", synthesis)
    data = SyntheticFaces(
        str(tmp_path / "faces"),
        count=15,
        faces_seed=3,
        attributes=["Male"],
        image_size=16,
        cache_dir=str(tmp_path / "c"),
    )
    data.prepare_data()
    data.setup()
    assert calls == [(15, 3)]
    assert data.dataset("all").rows.tolist() == list(range(15))
    assert data.protocol("all")["dataset"] == "synthetic_faces"
    assert data.read_files().attributes.shape == (15, 1)


def test_a_download_that_fails_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("torchvision.datasets")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("quota exceeded\nsecond line")

    monkeypatch.setattr(datasets, "CelebA", fail)
    with pytest.raises(InputError, match=r"quota exceeded\): fetch img_align_celeba\.zip"):
        CelebA(str(tmp_path / "new"), download=True, cache_dir=str(tmp_path / "cache")).prepare_data()


def test_download_keeps_an_existing_copy(open_celeba: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    monkeypatch.setattr(datasets, "CelebA", None)  # calling it would raise
    assert len(open_celeba(20, download=True).dataset("all")) == 20


def test_pickles_small(open_celeba: Open) -> None:
    data = open_celeba(20, stage="fit")
    copy = pickle.loads(pickle.dumps(data))
    torch.testing.assert_close(next(iter(copy.train_dataloader())), next(iter(data.train_dataloader())))


class GatheringRecorder(Recorder):
    """Checks on all ranks that the ranks together see each image once."""

    def on_fit_end(self) -> None:
        leave_ranks_at_exit()
        seen: list[dict[str, list[tuple[int, list[int]]]]] = [{}] * self.trainer.world_size
        torch.distributed.all_gather_object(seen, self.seen)
        for epoch in (0, 1):
            train = [row for rank in seen for at, rows in rank["train"] for row in rows if at == epoch]
            assert len(train) == len(set(train)) == 24
            val = [row for rank in seen for at, rows in rank["val"] for row in rows if at == epoch]
            assert sorted(val) == [3, 8, 13, 18, 23, 28, 33, 38, 43]
        assert seen[0]["train"] != seen[1]["train"]


@pytest.mark.slow
def test_two_ranks_see_every_image_once(open_celeba: Open, tmp_path: Path) -> None:
    data = open_celeba(45, eval_batch_size=4)  # 27 for training, 9 for validation: neither divides
    strategy = DDPStrategy(process_group_backend="gloo", start_method="forkserver")
    trainer(tmp_path, devices=2, strategy=strategy, num_sanity_val_steps=0).fit(GatheringRecorder(), datamodule=data)
