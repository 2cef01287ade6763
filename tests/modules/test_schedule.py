"""Schedules over images seen, the average's half-life, and batches of another size for the generator."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from gan_lightning import DCGAN, InputError
from gan_lightning.modules.image_batches import repeated
from gan_lightning.modules.schedule import RAMP, Schedule, half_life_decay

BATCH = 4
SMALL: dict[str, Any] = {"image_size": 16, "latent_dim": 4, "base_channels": 2}


def fit(folder: Path, steps: int, ckpt_path: str | None = None, **options: Any) -> DCGAN:
    """Train on images that are all alike, because a resumed DataLoader begins anew."""
    L.seed_everything(0, verbose=False)
    model = DCGAN(**SMALL, **options)
    images = (torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1).repeat(64, 1, 1, 1)
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(model, DataLoader(images, batch_size=BATCH), ckpt_path=ckpt_path)  # type: ignore[arg-type]
    trainer.save_checkpoint(folder / "end.ckpt")
    return model


def test_rates_rise_then_fall_to_their_last_value() -> None:
    schedule = Schedule(images=100, warmup=20, lr=0.2, shape="linear")
    assert schedule.rate_factor(0) == 0
    assert schedule.rate_factor(10) == pytest.approx(0.5 * (1 - 0.8 * 0.1))
    assert schedule.rate_factor(50) == pytest.approx(0.6)
    assert schedule.rate_factor(100) == schedule.rate_factor(10**9) == pytest.approx(0.2)


def test_a_cosine_is_half_way_in_the_middle_and_flat_at_both_ends() -> None:
    schedule = Schedule(images=1000, lr=0.0)
    assert schedule.rate_factor(500) == pytest.approx(0.5)
    assert schedule.rate_factor(1) == pytest.approx(1, abs=1e-5)
    assert schedule.rate_factor(250) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


def test_lengths_of_adams_averages_move_by_equal_factors() -> None:
    schedule = Schedule(images=100, shape="linear", betas=(0.0, 0.99))
    assert schedule.betas_at((0.0, 0.9), 0) == pytest.approx((0.0, 0.9))
    assert schedule.betas_at((0.0, 0.9), 50) == pytest.approx((0.0, 1 - math.sqrt(0.1 * 0.01)))
    assert schedule.betas_at((0.0, 0.9), 100) == pytest.approx((0.0, 0.99))


def test_optimizers_follow_the_schedule(tmp_path: Path) -> None:
    schedule = Schedule(images=4 * BATCH, shape="linear", lr=0.5, betas=(0.5, 0.9), penalties=0.0)
    model = fit(tmp_path, 6, lr_g=1e-3, lr_d=4e-3, r1=1.0, penalty_interval=3, schedule=schedule)
    assert model.images_seen == 6 * BATCH
    for optimizer, rate in zip(model.trainer.optimizers, (1e-3, 4e-3), strict=True):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * rate)
        assert optimizer.param_groups[0]["betas"] == pytest.approx((0.5, 0.9))
    assert float(model.penalty_weight) == 0


def test_the_last_rate_is_that_of_the_images_before_the_step(tmp_path: Path) -> None:
    model = fit(tmp_path, 2, lr_g=1e-3, schedule=Schedule(images=4 * BATCH, shape="linear", lr=0.0))
    assert model.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.75e-3)


def test_a_schedule_that_changes_nothing_leaves_the_weights_as_they_are(tmp_path: Path) -> None:
    options: dict[str, Any] = {"r1": 1.0, "penalty_interval": 2}
    plain, scheduled = fit(tmp_path, 3, **options), fit(tmp_path, 3, schedule=Schedule(images=8), **options)
    for one, other in zip(plain.parameters(), scheduled.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_resumed_run_goes_on_within_the_schedule(tmp_path: Path) -> None:
    options: dict[str, Any] = {"schedule": Schedule(images=20, lr=0.1, warmup=8), "ema_half_life": 8.0}
    whole = fit(tmp_path, 6, **options)
    fit(tmp_path, 3, **options)
    resumed = fit(tmp_path, 6, str(tmp_path / "end.ckpt"), **options)
    for name, value in whole.state_dict().items():
        if "batches_tracked" not in name:
            assert torch.equal(value, resumed.state_dict()[name]), name
    assert resumed.images_seen == whole.images_seen == 6 * BATCH


def test_a_checkpoint_holds_the_schedule(tmp_path: Path) -> None:
    schedule = Schedule(images=20, lr=0.1)
    fit(tmp_path, 1, schedule=schedule)
    assert DCGAN.load_from_checkpoint(tmp_path / "end.ckpt").training_schedule == schedule


def test_the_past_of_the_average_halves_in_its_half_life() -> None:
    late, weight = 10**9, 1.0
    for _ in range(10):
        weight *= half_life_decay(1000, 100, late)
    assert weight == pytest.approx(0.5)
    assert half_life_decay(1000, 100, 2000) == 0.5 ** (100 / (RAMP * 2000))


@pytest.mark.parametrize("count", [2, BATCH, 9])
def test_the_generator_may_have_a_batch_of_its_own(tmp_path: Path, count: int) -> None:
    seen: list[int] = []

    class Watched(DCGAN):
        def _generator_step(self, fake: Any, real: Any, latents: Any, *labels: Any) -> dict[str, Any]:
            seen.append(len(latents))
            assert len(real) == len(latents)
            return super()._generator_step(fake, real, latents, *labels)

    model = Watched(**SMALL, objective="relativistic", generator_batch=count)
    trainer = L.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(model, DataLoader(torch.zeros(8, 3, 16, 16), batch_size=BATCH))  # type: ignore[arg-type]
    assert seen == [count]


def test_rows_start_again_in_the_same_order() -> None:
    rows, labels = repeated(5, torch.arange(6).reshape(2, 3), torch.tensor([7, 8]))
    assert rows[:, 0].tolist() == [0, 3, 0, 3, 0]
    assert labels.tolist() == [7, 8, 7, 8, 7]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"images": 0}, "images must be at least 1"),
        ({"images": 10, "warmup": 11}, "must end before"),
        ({"images": 10, "lr": -1}, "lr must not be negative"),
        ({"images": 10, "shape": "step"}, "cosine or linear"),
        ({"images": 10, "betas": (0.0, 1.0)}, "betas must be"),
    ],
)
def test_impossible_schedules_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Schedule(**options)


def test_two_schedules_are_refused(tmp_path: Path) -> None:
    class Own(DCGAN):
        def configure_optimizers(self) -> Any:
            optimizers = super().configure_optimizers()
            return optimizers, [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9) for optimizer in optimizers]

    model = Own(**SMALL, schedule=Schedule(images=10))
    trainer = L.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path
    )
    with pytest.raises(InputError, match="two schedules"):
        trainer.fit(model, DataLoader(torch.zeros(8, 3, 16, 16), batch_size=BATCH))  # type: ignore[arg-type]
