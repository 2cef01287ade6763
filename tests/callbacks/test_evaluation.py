import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from gan_lightning.callbacks.evaluation import GenerationMetrics
from gan_lightning.errors import InputError
from gan_lightning.images import to_uint8
from gan_lightning.metrics import RandomFeatures

COUNT = 101  # which no world size and no batch size divides

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*too few to estimate the covariance"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval"),
]


class FakeImages:
    """Smooth random images, and a record of those that were read."""

    def __init__(self, count: int, seed: int) -> None:
        rng = torch.Generator().manual_seed(seed)
        coarse = torch.randn(count, 3, 4, 4, generator=rng)
        self.pixels = to_uint8(nn.functional.interpolate(coarse, (16, 16), mode="bilinear") / 2)
        self.positions_read: list[int] = []

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, positions: np.ndarray) -> Tensor:
        self.positions_read += positions.tolist()
        return self.pixels[torch.from_numpy(positions)]


class FakeData(LightningDataModule):
    image_size, channels = 16, 3

    def __init__(self, count: int = COUNT, crop: int = 178, content: str = "c0ffee") -> None:
        super().__init__()
        self.splits = {name: FakeImages(count, seed) for seed, name in enumerate(("train", "val", "test", "all"))}
        self.crop, self.content = crop, content

    def real_images(self, split: str) -> FakeImages:
        return self.splits[split]

    def protocol(self, split: str) -> dict[str, str | int]:
        names = {"dataset": "fake", "split": split, "resizer": "none", "content": self.content}
        sizes = {"crop": self.crop, "image_size": 16, "channels": 3, "images": len(self.splits[split])}
        return {**names, **sizes}

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader([torch.zeros(1)] * 4)

    val_dataloader = test_dataloader = train_dataloader


class FakeModule(LightningModule):
    """Draws noise whose amplitude falls with training; `best_at` is the step at which it is right."""

    ema_decay = 0.25

    def __init__(self, best_at: int = 10**6) -> None:
        super().__init__()
        self.amplitude = nn.Parameter(torch.tensor(0.0))
        self.best_at = best_at
        self.counts: list[int] = []

    @torch.no_grad()
    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        self.counts.append(count)
        coarse = torch.randn(count, 3, 4, 4, generator=rng).to(self.device)
        images = nn.functional.interpolate(coarse, (16, 16), mode="bilinear") / 2
        return images + self.wrongness()

    def wrongness(self) -> float:
        return abs(self.best_at - self.global_step) / 20 if self.best_at < 10**6 else 0.3

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.amplitude.square()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None: ...

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("GAN_LIGHTNING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make_metrics(**settings: Any) -> GenerationMetrics:
    return GenerationMetrics(**{"num_images": COUNT, "extractor": "random", "batch_size": 16, **settings})


def make_trainer(metrics: GenerationMetrics, folder: Path, **settings: Any) -> Trainer:
    settings = {"max_epochs": 3, "logger": False, "enable_checkpointing": False, **settings}
    callbacks = [metrics, *settings.pop("callbacks", [])]
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(accelerator="cpu", devices=1, default_root_dir=folder, callbacks=callbacks, **quiet, **settings)


def validate(folder: Path, data: FakeData | None = None, module: FakeModule | None = None, **settings: Any) -> float:
    trainer = make_trainer(make_metrics(**settings), folder)
    (values,) = trainer.validate(module or FakeModule(), data or FakeData(), verbose=False)
    return values["val/fd_random"]


def scipy_reference(data: FakeData, module: FakeModule, split: str = "val", seed: int = 0) -> float:
    """Frechet distance by SciPy of the images that the callback must have seen, drawn and read here again."""
    import scipy.linalg

    batches = [min(16, COUNT - start) for start in range(0, COUNT, 16)]
    fakes = []
    for index, count in enumerate(batches):
        state = int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0]) >> 1
        fakes.append(to_uint8(module.sample(count, torch.Generator().manual_seed(int(state)))))
    extractor = RandomFeatures()
    real = extractor(data.splits[split].pixels).double().numpy()
    fake = extractor(torch.cat(fakes)).double().numpy()
    # The covariance of 101 images has no full rank, where sqrtm fails: tr sqrt(AB) from the roots of A and B.
    roots = []
    for features in (real, fake):
        centred = (features - features.mean(0)) / np.sqrt(COUNT - 1)
        roots.append(scipy.linalg.svd(centred, full_matrices=False))
    (_, s_real, v_real), (_, s_fake, v_fake) = roots
    cross = scipy.linalg.svdvals((s_real[:, None] * v_real) @ (s_fake[:, None] * v_fake).T).sum()
    shift = real.mean(0) - fake.mean(0)
    return float(shift @ shift + (s_real**2).sum() + (s_fake**2).sum() - 2 * cross)


@pytest.mark.parametrize("stage", ["val", "test"])
def test_value_is_the_distance_of_exactly_these_images(tmp_path: Path, stage: str) -> None:
    data, module = FakeData(), FakeModule()
    trainer = make_trainer(make_metrics(), tmp_path)
    (values,) = (trainer.validate if stage == "val" else trainer.test)(module, data, verbose=False)
    assert sum(module.counts) == COUNT
    assert sorted(data.splits[stage].positions_read) == list(range(COUNT))
    assert values[f"{stage}/fd_random"] == pytest.approx(scipy_reference(data, module, stage), rel=1e-5)


def test_a_subset_is_spread_over_the_split(tmp_path: Path) -> None:
    data = FakeData()
    validate(tmp_path, data, num_images=25)
    positions = data.splits["val"].positions_read
    assert len(set(positions)) == 25
    assert set(np.diff(positions)) <= {4, 5}


def test_seed_and_split_choose_the_images(tmp_path: Path) -> None:
    value = validate(tmp_path)
    assert validate(tmp_path) == value
    assert validate(tmp_path, seed=1) != value
    assert validate(tmp_path, split="train") != value


def test_real_statistics_are_computed_once_for_equal_data(tmp_path: Path) -> None:
    def reads(data: FakeData, **settings: Any) -> bool:
        before = len(data.splits["val"].positions_read)
        validate(tmp_path, data, **settings)
        return len(data.splits["val"].positions_read) > before

    assert reads(FakeData())
    assert not reads(FakeData())
    assert not reads(FakeData(), seed=1, batch_size=32)
    assert reads(FakeData(), num_images=50)
    assert reads(FakeData(), metrics=["kid", "fd"])
    assert reads(FakeData(content="beef"))
    assert reads(FakeData(crop=148))
    assert reads(FakeData(count=COUNT + 1))
    assert reads(FakeData(), cache_dir=str(tmp_path / "elsewhere"))
    assert not reads(FakeData())


def test_another_extractor_has_other_statistics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    validate(tmp_path)
    monkeypatch.setattr(RandomFeatures, "name", "random-v2")
    data = FakeData()
    validate(tmp_path, data)
    assert data.splits["val"].positions_read


def test_damaged_cache_is_computed_again(tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    value = validate(tmp_path)
    (file,) = (cache / "statistics").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert validate(tmp_path) == value
    assert "damaged" in caplog.text
    caplog.clear()
    assert validate(tmp_path) == value
    assert "damaged" not in caplog.text


def test_checkpoints_are_chosen_by_the_value(tmp_path: Path) -> None:
    """Four steps an epoch: the module is best at step 8, the end of the second of four epochs."""
    best = ModelCheckpoint(
        tmp_path, filename="{step}", monitor="val/fd_random", mode="min", auto_insert_metric_name=False
    )
    trainer = make_trainer(make_metrics(), tmp_path, max_epochs=4, callbacks=[best], enable_checkpointing=True)
    trainer.fit(FakeModule(best_at=8), FakeData())
    assert Path(best.best_model_path).stem == "8"
    state = torch.load(best.best_model_path, weights_only=True)
    assert set(state["state_dict"]) == {"amplitude"}  # no extractor
    kept = [content for key, content in state["callbacks"].items() if "GenerationMetrics" in key]
    assert kept == [{"measured_at": 8}]  # nor here


def test_loggers_get_steps_the_untrained_value_and_the_protocol(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module, logger = FakeModule(best_at=12), CSVLogger(tmp_path)
    caplog.set_level(logging.INFO, logger="gan_lightning")
    seen: list[float] = []

    class Spy(GenerationMetrics):
        def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
            seen.append(float(trainer.callback_metrics["val/fd_random"]))

    spy = Spy(num_images=COUNT, extractor="random", metrics=["fd", "kid"], batch_size=16)
    trainer = make_trainer(spy, tmp_path, logger=logger, num_sanity_val_steps=1)
    trainer.fit(module, FakeData())
    rows = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    table = [dict(zip(rows[0].split(","), row.split(","), strict=True)) for row in rows[1:]]
    values = {int(row["step"]): float(row["val/fd_random"]) for row in table if row["val/fd_random"]}
    assert list(values) == [0, 4, 8, 12]  # steps, not batches; the sanity check left no value
    assert values[0] > values[4] > values[8] > values[12]
    assert seen[0] == pytest.approx(values[0], rel=1e-6)
    assert all("val/kid_random" in row for row in table)
    assert float(trainer.callback_metrics["val/fd_random"]) == pytest.approx(values[12], rel=1e-6)
    stated = spy.protocol["val/fd_random"]
    assert stated["num_images"] == COUNT
    assert {"dataset", "split", "crop", "image_size", "resizer", "torchmetrics", "seed"} <= stated.keys()
    assert (stated["extractor"], stated["antialias"], stated["ema_decay"]) == ("random-v1", False, 0.25)
    assert spy.protocol["val/kid_random"]["subset_size"] == COUNT
    json.dumps(spy.protocol)  # goes into summary.json
    assert "protocol/val/fd_random" in (Path(logger.log_dir) / "hparams.yaml").read_text()
    assert caplog.text.count("101 generated and 101 real images") == 4


def test_resumed_run_measures_no_untrained_value(tmp_path: Path) -> None:
    module = FakeModule()
    first = make_trainer(make_metrics(), tmp_path, max_epochs=1, check_val_every_n_epoch=9)
    first.fit(module, FakeData())
    assert sum(module.counts) == 2 * COUNT  # untrained, and at the end
    first.save_checkpoint(tmp_path / "last.ckpt")
    module.counts.clear()
    second = make_trainer(make_metrics(), tmp_path, max_epochs=2, check_val_every_n_epoch=9)
    second.fit(module, FakeData(), ckpt_path=tmp_path / "last.ckpt")
    assert second.global_step == 8
    assert sum(module.counts) == COUNT  # at the end alone


def test_without_validation_nothing_is_measured(tmp_path: Path) -> None:
    module = FakeModule()
    make_trainer(make_metrics(num_images=10**6), tmp_path, max_epochs=1, limit_val_batches=0).fit(module, FakeData())
    assert not module.counts


def test_modes_and_random_state_are_left_alone(tmp_path: Path) -> None:
    metrics, module = make_metrics(metrics=["fd", "kid"]), FakeModule()
    trainer = make_trainer(metrics, tmp_path)
    trainer.validate(module, FakeData(), verbose=False)
    module.train()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[union-attr]
    metrics._measure(trainer, module, "val")
    assert module.training
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])


def test_autocast_changes_nothing(tmp_path: Path) -> None:
    value = validate(tmp_path / "plain")
    with torch.autocast("cpu", torch.bfloat16):
        assert validate(tmp_path / "cast", cache_dir=str(tmp_path / "cast")) == value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metrics": ["is"]}, "is cannot be measured with extractor: random"),
        ({"metrics": ["fid"]}, "some of fd, kid, is, precision, recall, density, coverage, mifid, not fid"),
        ({"extractor": "vgg"}, "inception or random"),
        ({"num_images": 1}, "at least 2"),
    ],
)
def test_choices_that_cannot_be_measured_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_metrics(**settings)


def test_too_few_images_are_said_before_the_first_step(tmp_path: Path) -> None:
    module = FakeModule()
    with pytest.raises(InputError, match=r"102 images, but the val split has 101"):
        make_trainer(make_metrics(num_images=102), tmp_path).fit(module, FakeData())
    assert not module.counts


def test_missing_inception_weights_are_said_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    module, started = FakeModule(), time.monotonic()
    with pytest.raises(InputError, match=f"{tmp_path}.*extractor: random"):
        make_trainer(make_metrics(extractor="inception"), tmp_path).fit(module, FakeData())
    assert not module.counts
    assert time.monotonic() - started < 5


def test_a_data_module_without_real_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="data module"):
        make_trainer(make_metrics(), tmp_path).fit(FakeModule(), DataLoader([torch.zeros(1)]))


def measure_on_rank(rank: int, world_size: int, folder: str) -> None:
    os.environ["GAN_LIGHTNING_CACHE"] = folder
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size
    )
    from gan_lightning.metrics import StatisticsCache
    from gan_lightning.metrics.generation import GenerationEvaluator

    data, module, values = FakeData(), FakeModule(), []
    for _ in range(2):  # the second reads the real statistics from disk, on one rank alone
        cache = StatisticsCache(Path(folder) / "statistics")
        evaluator = GenerationEvaluator(RandomFeatures(), ["fd", "kid"], COUNT, 16, 0, cache)
        values.append(evaluator.measure(module.sample, data, "val", torch.device("cpu")))
    one_batch = GenerationEvaluator(RandomFeatures(), ["fd", "kid"], COUNT, COUNT, 0, cache)  # rank 1 has no image
    values_of_one_batch = one_batch.measure(FakeModule().sample, data, "val", torch.device("cpu"))
    report = {"values": values, "values_of_one_batch": values_of_one_batch}
    report |= {"drawn": sum(module.counts), "read": data.splits["val"].positions_read}
    (Path(folder) / f"rank{rank}.json").write_text(json.dumps(report))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_measure_what_one_does(tmp_path: Path) -> None:
    metrics = make_metrics(metrics=["fd", "kid"])
    (alone,) = make_trainer(metrics, tmp_path).validate(FakeModule(), FakeData(), verbose=False)
    torch.multiprocessing.start_processes(measure_on_rank, (2, str(tmp_path)), nprocs=2, start_method="forkserver")
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert ranks[0]["values"] == ranks[1]["values"]
    assert sorted(ranks[0]["read"] + ranks[1]["read"]) == list(range(COUNT))  # each image once, in the first pass
    assert ranks[0]["drawn"] + ranks[1]["drawn"] == 2 * COUNT
    for values in ranks[0]["values"]:
        assert values["fd"] == pytest.approx(alone["val/fd_random"], rel=1e-5)
        assert values["kid"] == pytest.approx(alone["val/kid_random"], rel=1e-5)
    assert ranks[0]["values_of_one_batch"] == ranks[1]["values_of_one_batch"]
    metrics = make_metrics(metrics=["fd", "kid"], batch_size=COUNT)
    (alone,) = make_trainer(metrics, tmp_path).validate(FakeModule(), FakeData(), verbose=False)
    for name, value in ranks[0]["values_of_one_batch"].items():
        assert value == pytest.approx(alone[f"val/{name}_random"], rel=1e-5)
