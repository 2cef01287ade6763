from __future__ import annotations

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

from gan_lightning.data import modules
from gan_lightning.data.decode import Framing, frame_image
from gan_lightning.data.modules import StreamedImages
from gan_lightning.data.pack_command import main
from gan_lightning.errors import InputError

pytest.importorskip("litdata")

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


def pixels(number: int, framing: Framing) -> Tensor:
    return torch.from_numpy(frame_image(picture(number), framing, "").copy()).permute(2, 0, 1)


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
            torch.testing.assert_close(image, pixels(row, data.framing), rtol=0, atol=0)
            seen.append(row)
    assert len(seen) == len(set(seen)) == 28
    assert seen != sorted(seen)


def test_orders_are_seeded_and_change_with_the_epoch(opened: Open) -> None:
    loader = opened(seed=1).train_dataloader()
    first, second = ([batch["index"].tolist() for batch in loader] for _ in range(2))
    assert first != second
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
    torch.testing.assert_close(batches[0]["image"][0], pixels(30, data.framing), rtol=0, atol=0)
    real = data.real_images("test")
    assert len(real) == 5
    torch.testing.assert_close(real.read(np.array([3]))[0], pixels(40, data.framing), rtol=0, atol=0)


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
        torch.testing.assert_close(image, pixels(number, data.framing), rtol=0, atol=0)


def test_resident_images_are_those_of_the_source(opened: Open) -> None:
    data = opened(resident=True, flip=False)
    for batch in data.train_dataloader():
        rows = batch["index"]
        result = data.on_after_batch_transfer(dict(batch), 0)["image"]
        expected = torch.stack([pixels(row, data.framing) for row in rows.tolist()]).float() / 127.5 - 1
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


def test_without_litdata_it_says_what_to_install(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'gan-lightning\[streaming\]'"):
        opened()


def test_what_cannot_be_streamed_is_said(tmp_path: Path, opened: Open) -> None:
    with pytest.raises(InputError, match=r"nowhere/train cannot be streamed .*: give the folder or address"):
        opened(str(tmp_path / "nowhere"))
    write_split(tmp_path / "broken" / "val", [{"image": "a text"}, {"image": "another"}])
    data = opened(str(tmp_path / "broken"), stage="validate")
    with pytest.raises(InputError, match=r"Image 0 of .*broken/val cannot be read \(a str is no image\)"):
        data.real_images("val").read(np.arange(2))
    with pytest.raises(InputError, match="smaller than the crop of 30"):
        opened(crop=30).real_images("val").read(np.arange(2))
    with pytest.raises(InputError, match="batch of 31"):
        opened(batch_size=31)
    with pytest.raises(InputError, match="no split 'all'"):
        opened().dataset("all")


def test_there_is_nothing_to_pack(root: Path) -> None:
    with pytest.raises(InputError, match="nothing to pack"):
        main(["--data", "StreamedImages", "--data.root", str(root)])


def test_pickles_small(opened: Open) -> None:
    data = opened()
    data.real_images("val").read(np.arange(2))
    content = pickle.dumps((data, data.dataset("val")))
    assert len(content) < 10_000
    copy, val = pickle.loads(content)
    assert epoch_of(copy) == epoch_of(data)
    torch.testing.assert_close(val.read(np.arange(3)), data.dataset("val").read(np.arange(3)))


class GatheringCounter(L.LightningModule):
    """Checks, on all ranks, that they share the images."""

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
        strategy=DDPStrategy(process_group_backend="gloo", start_method="spawn"),
        max_epochs=1,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
        **dict.fromkeys(quiet, False),
    ).fit(GatheringCounter(), datamodule=opened(stage=None))
