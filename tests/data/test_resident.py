from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
import torch.distributed
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader

from gan_lightning.data import image_data_module, resident
from gan_lightning.data.batches import ImageDataset
from gan_lightning.data.celeba import CelebA
from gan_lightning.data.image_data_module import ImageDataModule
from gan_lightning.data.resident import ResidentImages, free_memory
from gan_lightning.errors import InputError
from gan_lightning.modules.ddp import leave_ranks_at_exit

Open = Callable[..., ImageDataModule]


@pytest.fixture
def open_celeba(make_celeba: Callable[..., Path], tmp_path: Path) -> Open:
    def call(count: int = 45, **settings: object) -> CelebA:
        root = tmp_path / "celeba_root"
        if not root.exists():
            make_celeba(count)
        defaults = {"image_size": 16, "batch_size": 4, "cache_dir": str(tmp_path / "cache")}
        return CelebA(str(root), **{**defaults, **settings})

    return call


class Keeper(L.LightningModule):
    """Records every training batch as it is on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.batches: list[dict[str, Tensor]] = []
        self.validated: list[int] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.batches.append(batch)
        return self.layer(batch["image"].mean().view(1)).sum()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.validated += batch["index"].tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data: ImageDataModule, model: Keeper, tmp_path: Path, **settings: object) -> list[dict[str, Tensor]]:
    defaults = {"accelerator": "cpu", "devices": 1, "max_epochs": 2, "default_root_dir": tmp_path}
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    L.Trainer(**{**defaults, **dict.fromkeys(quiet, False), "num_sanity_val_steps": 0, **settings}).fit(
        model, datamodule=data
    )
    return model.batches


@pytest.mark.parametrize("settings", [{}, {"channels": 1}, {"attributes": ["Male"]}, {"flip": False}])
def test_batches_are_those_of_the_mapped_path_bit_for_bit(
    open_celeba: Open, tmp_path: Path, settings: dict[str, object]
) -> None:
    mapped, moved = (fit(open_celeba(resident=choice, **settings), Keeper(), tmp_path) for choice in (False, True))
    assert len(mapped) == 2 * (27 // 4)
    for one, other in zip(mapped, moved, strict=True):
        assert set(one) == set(other)
        for name in one:
            torch.testing.assert_close(other[name], one[name], rtol=0, atol=0)
        assert other["image"].is_contiguous(memory_format=torch.channels_last)


def test_an_epoch_touches_no_loader_and_no_packed_image(
    open_celeba: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, model = open_celeba(resident=True), Keeper()
    data.prepare_data()
    data.setup("fit")
    assert not isinstance(data.train_dataloader(), DataLoader)
    data.setup = lambda stage: monkeypatch.setattr(ImageDataset, "read", None)  # calling it would fail
    monkeypatch.setattr(DataLoader, "__init__", None)
    fit(data, model, tmp_path, limit_val_batches=0)
    assert len(model.batches) == 2 * (27 // 4)


def test_validation_stays_mapped_and_in_order(open_celeba: Open, tmp_path: Path) -> None:
    data, model = open_celeba(resident=True), Keeper()
    fit(data, model, tmp_path, max_epochs=1)
    assert model.validated == data.dataset("val").rows.tolist()


def test_bytes_are_stated_before_they_move(open_celeba: Open, caplog: pytest.LogCaptureFixture) -> None:
    data = open_celeba(resident=True)
    data.prepare_data()
    with caplog.at_level(logging.INFO, logger="gan_lightning"):
        data.setup("fit")
    assert "27 images at 16 x 16 x 3 take 0.02 MB (20,736 bytes) on cpu" in caplog.text


def test_a_device_too_small_is_reported_before_the_first_step(
    open_celeba: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident, "free_memory", lambda device: 20_735)
    model = Keeper()
    with pytest.raises(
        InputError, match=r"27 images .* take 0.02 MB \(20,736 bytes\) on cpu, 20,735 are free: set resident: false"
    ):
        fit(open_celeba(resident=True), model, tmp_path)
    assert not model.batches
    fit(open_celeba(resident=False), model, tmp_path, max_epochs=1)


def test_memory_that_another_process_takes_first_is_reported_too(
    open_celeba: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_celeba(resident=True)
    data.prepare_data()

    def out_of_memory(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(resident.torch, "empty", out_of_memory)
    with pytest.raises(InputError, match="set resident: false"):
        data.setup("fit")


@pytest.mark.parametrize(("free", "fits"), [(4 * 20_736, True), (4 * 20_736 - 1, False), (None, False)])
def test_images_are_resident_where_a_quarter_of_the_memory_of_a_gpu_suffices(
    open_celeba: Open, monkeypatch: pytest.MonkeyPatch, free: int | None, fits: bool
) -> None:
    data = open_celeba()
    data.prepare_data()
    data.setup("fit")
    monkeypatch.setattr(resident, "free_memory", lambda device: free)
    assert resident.fit_easily(data.dataset("train"), torch.device("cuda")) == fits
    assert not resident.fit_easily(data.dataset("train"), torch.device("cpu"))


@pytest.mark.parametrize(("settings", "moved"), [({}, True), ({"resident": False}, False), ({"num_workers": 1}, False)])
def test_by_default_the_memory_decides(
    open_celeba: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], moved: bool
) -> None:
    monkeypatch.setattr(image_data_module, "fit_easily", lambda dataset, device: True)
    expected = fit(open_celeba(resident=False), Keeper(), tmp_path, max_epochs=1)
    data = open_celeba(**settings)
    loaders = []
    monkeypatch.setattr(data, "teardown", lambda stage: loaders.append(data._resident))
    batches = fit(data, Keeper(), tmp_path, max_epochs=1)
    assert (loaders[0] is not None) == moved
    for one, other in zip(expected, batches, strict=True):
        assert one["image"].equal(other["image"])


@pytest.mark.parametrize("resident", [False, True])
def test_loaders_that_are_requested_again_begin_whole_epochs(open_celeba: Open, tmp_path: Path, resident: bool) -> None:
    """Lightning requests loaders again for each fit, and for each epoch if configured to."""
    model = Keeper()
    data = open_celeba(resident=resident)
    settings = {"max_epochs": 3, "reload_dataloaders_every_n_epochs": 1, "limit_val_batches": 0}
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = L.Trainer(accelerator="cpu", default_root_dir=tmp_path, **settings, **dict.fromkeys(quiet, False))
    trainer.fit(model, datamodule=data)
    assert len(model.batches) == 3 * (27 // 4)
    trainer.fit_loop.max_epochs = 5
    trainer.fit(model, datamodule=data)
    assert len(model.batches) == 5 * (27 // 4)
    epochs = torch.cat([batch["index"] for batch in model.batches]).view(5, -1).tolist()
    assert all(len(set(epoch)) == 24 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5


def test_free_memory_is_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (device.index + 5, 100))
    assert free_memory(torch.device("cuda", 2)) == 7
    monkeypatch.setattr(resident, "Path", lambda path: SimpleNamespace(is_file=lambda: False))
    assert free_memory(torch.device("cpu")) is None
    table = "MemTotal:       100 kB\nMemAvailable:    60 kB\n"
    monkeypatch.setattr(resident, "Path", lambda path: SimpleNamespace(is_file=lambda: True, read_text=lambda: table))
    assert free_memory(torch.device("cpu")) == 60 * 1024


def test_images_that_cannot_be_read_move_no_others(
    open_celeba: Open, make_celeba: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_celeba(45)
    for name in ("000001.jpg", "000008.jpg"):
        (root / "celeba" / "img_align_celeba" / name).write_bytes(b"x")
    monkeypatch.setattr(resident, "CHUNK", 4)
    data = open_celeba(resident=True)
    with pytest.warns(UserWarning, match="2 of 45"):
        data.prepare_data()
    data.setup()
    split = data.dataset("train")
    assert len(split) == 25
    images = ResidentImages(split, torch.device("cpu"))
    positions = np.random.default_rng(0).permutation(25)
    torch.testing.assert_close(images.read(torch.from_numpy(positions)), split.read(positions), rtol=0, atol=0)


def test_memory_is_freed_and_stays_out_of_pickles(open_celeba: Open) -> None:
    data = open_celeba(resident=True)
    data.prepare_data()
    data.setup("fit")
    assert len(pickle.dumps(data)) < 20_000
    loader, images = data.train_dataloader(), data._resident  # a Trainer keeps the former after fit
    assert next(iter(loader))["image"].shape == (4, 3, 16, 16)
    assert images is not None
    data.teardown("fit")
    assert images._pixels.nbytes == 0
    with pytest.raises(InputError, match="setup"):
        data.train_dataloader()


def test_overfit_batches_is_refused(open_celeba: Open, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="limit_train_batches"):
        fit(open_celeba(resident=True), Keeper(), tmp_path, overfit_batches=1)


class GatheringKeeper(Keeper):
    """Checks on all ranks that they share the images, and that each image is the one that its index names."""

    def __init__(self, pixels: Tensor) -> None:
        super().__init__()
        self.pixels = pixels

    def on_fit_end(self) -> None:
        leave_ranks_at_exit()
        rows = torch.cat([batch["index"] for batch in self.batches])
        images = torch.cat([batch["image"] for batch in self.batches])
        torch.testing.assert_close(images, self.pixels[rows], rtol=0, atol=1e-6)
        seen: list[list[int]] = [[]] * self.trainer.world_size
        torch.distributed.all_gather_object(seen, rows.tolist())
        assert len(set(seen[0]) | set(seen[1])) == 24 == len(seen[0]) + len(seen[1])


@pytest.mark.slow
def test_two_ranks_share_the_images(open_celeba: Open, tmp_path: Path) -> None:
    data = open_celeba(resident=True, flip=False)
    data.prepare_data()
    data.setup()
    pixels = data.dataset("all").read(np.arange(45)).float() / 127.5 - 1
    strategy = DDPStrategy(process_group_backend="gloo", start_method="forkserver")
    fit(data, GatheringKeeper(pixels), tmp_path, devices=2, strategy=strategy, max_epochs=1)
