from __future__ import annotations

import contextlib
import io
import json
import pickle
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
import torch.distributed
from lightning.pytorch.strategies import DDPStrategy
from PIL import Image
from torch import Tensor, nn

from gan_lightning.commands.data_sets import main
from gan_lightning.data import streamed_images
from gan_lightning.data.decode import CropResize, to_pixels
from gan_lightning.data.streamed_images import StreamedImages
from gan_lightning.errors import InputError
from gan_lightning.modules.ddp import leave_ranks_at_exit
from tests.processes import run

pytest.importorskip("litdata")
from litdata.utilities.env import _DistributedEnv

COUNTS = {"train": 30, "val": 7, "test": 5}
Open = Callable[..., StreamedImages]


def picture(number: int) -> Image.Image:
    random = np.random.default_rng(number)
    return Image.fromarray(random.integers(0, 256, (20 + number % 3, 24, 3), dtype=np.uint8))


def as_bytes(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def write_split(folder: Path, items: list[object]) -> None:
    from litdata.streaming import Cache

    folder.mkdir(parents=True)
    cache = Cache(str(folder), chunk_size=4)
    for position, item in enumerate(items):
        cache[position] = item
    cache.done()
    cache.merge()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A source whose item i of a split that starts at row s is `picture(s + i)`."""
    start = 0
    for split, count in COUNTS.items():
        write_split(tmp_path / "faces" / split, [{"image": picture(start + item)} for item in range(count)])
        start += count
    return tmp_path / "faces"


@pytest.fixture
def opened(root: Path, tmp_path: Path) -> Open:
    def call(url: str | None = None, stage: str | None = "fit", **settings: object) -> StreamedImages:
        defaults = {"image_size": 16, "batch_size": 4, "num_workers": 0, "cache_dir": str(tmp_path / "cache")}
        data = StreamedImages(url or str(root), **{**defaults, **settings})
        data.prepare_data()
        data.setup(stage)
        return data

    return call


def pixels(number: int, crop_resize: CropResize) -> Tensor:
    return torch.from_numpy(to_pixels(picture(number), crop_resize, "").copy()).permute(2, 0, 1)


def epoch_of(data: StreamedImages) -> list[int]:
    return torch.cat([batch["index"] for batch in data.train_dataloader()]).tolist()


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_hold_the_images_of_the_source(root: Path, opened: Open, remote: bool, num_workers: int) -> None:
    data = opened(f"local:{root}" if remote else None, num_workers=num_workers)  # local: is fetched, as s3: is
    seen: list[int] = []
    for batch in data.train_dataloader():
        assert batch["image"].shape == (4, 3, 16, 16)
        assert batch["image"].is_contiguous(memory_format=torch.channels_last)
        for image, row in zip(batch["image"], batch["index"].tolist(), strict=True):
            torch.testing.assert_close(image, pixels(row, data.crop_resize), rtol=0, atol=0)
            seen.append(row)
    assert len(seen) == len(set(seen)) == 28
    assert seen != sorted(seen)


def test_orders_are_seeded_and_change_with_the_epoch(opened: Open) -> None:
    loader, orders = opened(seed=1).train_dataloader(), []
    for epoch in (0, 1, 0):
        loader.set_epoch(epoch)
        orders.append([batch["index"].tolist() for batch in loader])
    first, second, again = orders
    assert first == again != second
    assert list(chain(*first)) == epoch_of(opened(seed=1)) != epoch_of(opened(seed=2))


def test_flips_are_seeded_and_only_where_asked(opened: Open) -> None:
    one, other = ([batch["flip"].tolist() for batch in opened().train_dataloader()] for _ in range(2))
    assert one == other
    assert 3 < sum(chain(*one)) < 25
    assert not any(batch["flip"].any() for batch in opened(flip=False).train_dataloader())


def test_evaluation_sees_each_image_once_in_order(opened: Open) -> None:
    data = opened()
    batches = list(data.val_dataloader())
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(7))
    assert not any(batch["flip"].any() for batch in batches)
    torch.testing.assert_close(batches[0]["image"][0], pixels(30, data.crop_resize), rtol=0, atol=0)
    real = data.real_images("test")
    assert len(real) == 5
    torch.testing.assert_close(real.read(np.array([3]))[0], pixels(40, data.crop_resize), rtol=0, atol=0)


def test_protocol_tells_sources_apart(root: Path, opened: Open) -> None:
    def contents() -> set[str]:
        return {opened(image_size=size).protocol(split)["content"] for size in (8, 16) for split in ("train", "val")}

    before = contents()
    assert len(before) == 4
    assert contents() == before
    index = root / "val" / "index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "updated_at": "1"}))  # as if written anew
    assert len(before & contents()) == 2
    protocol = opened().protocol("val")
    assert (protocol["dataset"], protocol["images"], protocol["resizer"]) == ("faces", 7, "pillow-bicubic")


@pytest.mark.parametrize(
    "convert",
    [
        as_bytes,
        np.asarray,
        lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous(),
        lambda image: {"image": as_bytes(image), "label": 3},
    ],
)
def test_items_may_be_of_several_kinds(tmp_path: Path, opened: Open, convert: Callable[[Image.Image], object]) -> None:
    write_split(tmp_path / "other" / "val", [convert(picture(number)) for number in range(3)])
    data = opened(str(tmp_path / "other"), stage="validate")
    for number, image in enumerate(data.real_images("val").read(np.arange(3))):
        torch.testing.assert_close(image, pixels(number, data.crop_resize), rtol=0, atol=0)


def test_resident_images_are_those_of_the_source(opened: Open) -> None:
    data = opened(resident=True, flip=False)
    for batch in data.train_dataloader():
        rows = batch["index"]
        result = data.on_after_batch_transfer(dict(batch), 0)["image"]
        expected = torch.stack([pixels(row, data.crop_resize) for row in rows.tolist()]).float() / 127.5 - 1
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


def test_without_litdata_it_says_what_to_install(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_images, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'gan-lightning\[streaming\]'"):
        opened()


def test_what_cannot_be_streamed_is_reported(tmp_path: Path, opened: Open) -> None:
    with pytest.raises(InputError, match=r"nowhere/train cannot be streamed .*: give the folder or address"):
        opened(str(tmp_path / "nowhere"))
    write_split(tmp_path / "broken" / "val", [{"image": "a text"}, {"image": "another"}])
    data = opened(str(tmp_path / "broken"), stage="validate")
    with pytest.raises(InputError, match=r"Image 0 of .*broken/val cannot be read \(a str is not an image\)"):
        data.real_images("val").read(np.arange(2))
    with pytest.raises(InputError, match="smaller than the crop of 30"):
        opened(crop=30).real_images("val").read(np.arange(2))
    with pytest.raises(InputError, match="batch of 31"):
        opened(batch_size=31)
    with pytest.raises(InputError, match="no split 'all'"):
        opened().dataset("all")


def test_there_is_nothing_to_pack(root: Path) -> None:
    with pytest.raises(InputError, match="nothing to pack"):
        main(["pack", "--data", "StreamedImages", "--data.root", str(root)])


def test_pickles_small(opened: Open) -> None:
    data = opened()
    data.real_images("val").read(np.arange(2))
    content = pickle.dumps((data, data.dataset("val")))
    assert len(content) < 10_000
    copy, val = pickle.loads(content)
    assert epoch_of(copy) == epoch_of(data)
    torch.testing.assert_close(val.read(np.arange(3)), data.dataset("val").read(np.arange(3)))


class Keeper(L.LightningModule):
    """Records the content of each training batch; saves a checkpoint after some steps, and stops."""

    def __init__(self, stop: int = -1) -> None:
        super().__init__()
        self.layer, self.stop = nn.Linear(1, 1), stop
        self.batches: list[tuple[list[int], Tensor]] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.batches.append((batch["index"].tolist(), batch["image"]))
        return self.layer(batch["image"].mean().view(1)).sum()

    def on_train_batch_end(self, *_: object) -> None:
        if self.trainer.global_step == self.stop:
            self.trainer.save_checkpoint(Path(self.trainer.default_root_dir) / "middle.ckpt")
            raise KeyboardInterrupt

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data: StreamedImages, tmp_path: Path, stop: int = -1, ckpt_path: Path | None = None) -> list:
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    settings = {"accelerator": "cpu", "devices": 1, "max_epochs": 3, "limit_val_batches": 0}
    model = Keeper(stop)
    trainer = L.Trainer(default_root_dir=tmp_path, **settings, **dict.fromkeys(quiet, False))
    with contextlib.suppress(SystemExit, KeyboardInterrupt):
        trainer.fit(model, datamodule=data, ckpt_path=ckpt_path)
    return model.batches


@pytest.mark.parametrize(("num_workers", "stop"), [(0, 3), (0, 7), (0, 10), (2, 9), (2, 12)])
def test_a_run_resumed_in_mid_epoch_sees_the_batches_of_one_never_stopped(
    opened: Open, tmp_path: Path, num_workers: int, stop: int
) -> None:
    def data() -> StreamedImages:
        return opened(stage=None, num_workers=num_workers)

    whole = fit(data(), tmp_path)
    assert len(whole) == 3 * 7
    parts = fit(data(), tmp_path, stop) + fit(data(), tmp_path, ckpt_path=tmp_path / "middle.ckpt")
    assert [rows for rows, _ in parts] == [rows for rows, _ in whole]
    for (_, one), (_, other) in zip(parts, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)  # the flips, too


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [30, 31])
def test_ranks_share_an_epoch_and_none_has_more_batches(
    tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch, world_size: int, count: int
) -> None:
    write_split(tmp_path / "some" / "train", [{"image": picture(number)} for number in range(count)])
    write_split(tmp_path / "some" / "val", [{"image": picture(0)}])
    ranks = []
    for rank in range(world_size):
        monkeypatch.setattr(_DistributedEnv, "detect", lambda rank=rank: _DistributedEnv(world_size, rank, 1))
        loader = opened(str(tmp_path / "some"), batch_size=2).train_dataloader()
        loader.set_epoch(1)
        whole = [batch["index"].tolist() for batch in loader]
        assert len(whole) == len(loader) == count // (2 * world_size)
        loader.resume(1, 2)
        assert [batch["index"].tolist() for batch in loader] == whole[2:]
        ranks.append(list(chain(*whole)))
    together = list(chain(*ranks))
    assert len(set(together)) == len(together) > count - 2 * world_size


@pytest.fixture
def broken(tmp_path: Path) -> str:
    """A source of 12 images, of which the fifth is truncated, and the eighth is not an image."""
    items: list[object] = [as_bytes(picture(number)) for number in range(12)]
    items[4], items[7] = items[4][:200], b"no image"
    write_split(tmp_path / "broken" / "train", items)
    write_split(tmp_path / "broken" / "val", items[3:6])
    return str(tmp_path / "broken")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_images_that_cannot_be_read_are_named_counted_and_replaced_in_their_batch(
    broken: str, opened: Open, caplog: pytest.LogCaptureFixture, num_workers: int
) -> None:
    data = opened(broken, num_workers=num_workers, flip=False)
    seen = []
    for batch in data.train_dataloader():
        batch = data.on_after_batch_transfer(batch, 0)
        assert len(batch["index"]) == 4
        for image, row in zip(batch["image"], batch["index"].tolist(), strict=True):
            expected = pixels(row, data.crop_resize).float() / 127.5 - 1
            torch.testing.assert_close(image, expected, rtol=0, atol=1e-6)
            seen.append(row)
    assert set(seen) == set(range(12)) - {4, 7}
    data.teardown("fit")
    lines = [record.getMessage() for record in caplog.records]
    assert sum("Image 4 of" in line and "truncated" in line and "takes its place" in line for line in lines) == 1
    assert sum("Image 7 of" in line and "takes its place" in line for line in lines) == 1
    assert "2 times an image of" in lines[-1]


def test_strict_refuses_what_cannot_be_read_and_so_does_evaluation(broken: str, opened: Open) -> None:
    data = opened(broken, strict=True)
    batch = next(batch for batch in data.train_dataloader() if "unreadable" in batch)
    with pytest.raises(InputError, match=r"Image \d of .*train cannot be read .*: write the source again without it"):
        data.on_after_batch_transfer(batch, 0)
    with pytest.raises(InputError, match=r"Image 1 of .*val cannot be read .*: write that split again without it"):
        data.real_images("val").read(np.arange(3))


def test_a_batch_without_a_single_image_is_refused(tmp_path: Path, opened: Open) -> None:
    for split in ("train", "val"):
        write_split(tmp_path / "none" / split, [b"no image"] * 4)
    data = opened(str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"Image \d of .*none/train cannot be read"):
        data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)


def test_a_store_that_is_gone_is_no_fault_of_the_image(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise TimeoutError(110, "Connection timed out")

    data = opened()
    monkeypatch.setattr("litdata.StreamingDataset.__getitem__", fail)
    with pytest.raises(InputError, match=r"cannot be fetched .*timed out.* resume with --ckpt_path last"):
        next(iter(data.train_dataloader()))


def test_photographs_are_upright_and_bombs_are_not_decoded(
    tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    file = io.BytesIO()
    picture(0).save(file, format="PNG", exif=exif)
    write_split(tmp_path / "turned" / "val", [file.getvalue(), as_bytes(Image.new("1", (4000, 4000)))])
    real = opened(str(tmp_path / "turned"), stage="validate").real_images("val")
    expected = to_pixels(picture(0).rotate(-90, expand=True), CropResize(16, None, 3), "")
    np.testing.assert_array_equal(real.read(np.array([0]))[0].permute(1, 2, 0).numpy(), expected)
    monkeypatch.setattr("gan_lightning.data.decode.MAX_PIXELS", 1_000_000)
    with pytest.raises(InputError, match="4000 x 4000 pixels are more than the limit"):
        real.read(np.array([1]))


KILLS_ITS_WORKERS = """
import multiprocessing, os, signal, sys
from pathlib import Path
import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from gan_lightning.__main__ import dead_worker
from gan_lightning.resume.last_checkpoint import LastCheckpoint
from gan_lightning.data.streamed_images import StreamedImages
from gan_lightning.modules.dcgan import DCGAN

class Deadly(DCGAN):
    def _generator_step(self, *arguments):
        if self.global_step == 9:
            for worker in multiprocessing.active_children():
                worker.kill()
        return super()._generator_step(*arguments)

root, run = Path(sys.argv[1]), Path(sys.argv[2])
data = StreamedImages(str(root), image_size=16, batch_size=4, num_workers=2, cache_dir=str(run / "cache"))
callbacks = [ModelCheckpoint(run, save_top_k=0), LastCheckpoint()]
trainer = L.Trainer(
    accelerator="cpu", devices=1, max_steps=50, limit_val_batches=0, callbacks=callbacks, logger=False,
    default_root_dir=run, enable_progress_bar=False, enable_model_summary=False,
)
try:
    trainer.fit(Deadly(image_size=16, base_channels=4), datamodule=data)
except Exception as error:
    print(dead_worker(error))
"""


def test_when_a_data_worker_is_killed_the_last_whole_step_is_saved(root: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(KILLS_ITS_WORKERS)
    result = run(script, root, tmp_path / "run")
    assert result.stdout.splitlines()[-1].startswith("a process that reads images"), result.stderr
    checkpoint = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert 10 <= checkpoint["global_step"] <= 14  # those that were read in advance are still trained on


class GatheringCounter(L.LightningModule):
    """Checks on all ranks that they share the images."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.rows: dict[str, list[int]] = {"train": [], "val": []}

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.rows["train"] += batch["index"].tolist()
        return self.layer(batch["image"].mean().view(1)).sum()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.rows["val"] += batch["index"].tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def on_fit_end(self) -> None:
        leave_ranks_at_exit()
        ranks: list[dict[str, list[int]]] = [{}] * self.trainer.world_size
        torch.distributed.all_gather_object(ranks, self.rows)
        train, val = (list(chain(*(rank[kind] for rank in ranks))) for kind in ("train", "val"))
        assert [len(rank["train"]) for rank in ranks] == [12, 12]
        assert len(set(train)) == 24
        assert sorted(val) == list(range(7))


@pytest.mark.slow
def test_two_ranks_share_the_images(opened: Open, tmp_path: Path) -> None:
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    L.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=DDPStrategy(process_group_backend="gloo", start_method="forkserver"),
        max_epochs=1,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
        **dict.fromkeys(quiet, False),
    ).fit(GatheringCounter(), datamodule=opened(stage=None))
