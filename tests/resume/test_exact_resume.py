"""A run that was stopped at any point, in any way, and resumed ends in the same state as an uninterrupted run."""

import contextlib
import errno
import multiprocessing
import os
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from gan_lightning import DCGAN, SyntheticFaces
from gan_lightning.callbacks import curves
from gan_lightning.callbacks.evaluation import GenerationMetrics
from gan_lightning.errors import DivergedError
from gan_lightning.loggers.metrics_file import MetricsFile
from gan_lightning.messages import dead_worker
from gan_lightning.resume.last_checkpoint import LastCheckpoint
from tests.conftest import FACES


class Trouble(Callback):
    """Calls a function at a batch of training or validation, counted over all epochs."""

    def __init__(self, batch, action, where="train"):
        self.batch, self.action, self.where, self.count = batch, action, where, 0

    def on_train_batch_start(self, trainer, *_):
        if self.where == "step" and trainer.fit_loop.total_batch_idx == self.batch:
            self.action()

    def on_train_batch_end(self, trainer, *_):
        if self.where == "train" and trainer.fit_loop.total_batch_idx == self.batch:
            self.action()

    def on_validation_batch_start(self, *_):
        self.count += 1
        if self.where == "validation" and self.count == self.batch:
            self.action()

    def on_validation_epoch_end(self, *_):
        if self.where == "validation end" and self.count >= self.batch:
            self.action()


def train(faces_root, folder, ckpt_path=None, *, trouble=None, d_steps=1, every=None, seed=3, data=None, **limits):
    """Train on epochs of six batches, with validation after every fourth batch."""
    seed_everything(seed)
    module = DCGAN(image_size=16, base_channels=4, latent_dim=6, d_steps=d_steps)
    sizes = {"image_size": 16, "batch_size": 16, "eval_batch_size": 4}
    data = SyntheticFaces(str(faces_root), count=FACES, **sizes, **(data or {}))
    callbacks = [
        GenerationMetrics(num_images=8, metrics=["kid"], extractor="random"),  # fd takes longer
        ModelCheckpoint(folder / "checkpoints", "best", "val/kid_random", enable_version_counter=False),
        ModelCheckpoint(folder / "steps", "{step}", every_n_train_steps=1, save_top_k=-1),
        LastCheckpoint(every),
        *([trouble] if trouble else []),
    ]
    trainer = Trainer(
        accelerator="cpu",
        **({"max_steps": 11} | limits),
        val_check_interval=4,
        check_val_every_n_epoch=None,
        log_every_n_steps=1,
        logger=MetricsFile(folder),
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return trainer


def rows(folder):
    """Return the rows of metrics.csv without the columns that depend on the clock."""
    log = MetricsFile(folder)
    return [{name: value for name, value in row.items() if "per_second" not in name} for row in log._rows()]


def assert_same(whole, resumed, best=True):
    """Check that networks, averages, optimizers, best checkpoint and metrics are equal to the bit."""
    for name, tensor in whole.lightning_module.state_dict().items():
        assert tensor.equal(resumed.lightning_module.state_dict()[name]), name
    for one, other in zip(whole.optimizers, resumed.optimizers, strict=True):
        torch.testing.assert_close(one.state_dict()["state"], other.state_dict()["state"], rtol=0, atol=0)
    folder, folder_resumed = whole.default_root_dir, resumed.default_root_dir
    assert rows(folder) == rows(folder_resumed)
    if not best:
        return
    best = [torch.load(f"{f}/checkpoints/best.ckpt", weights_only=True) for f in (folder, folder_resumed)]
    assert best[0]["global_step"] == best[1]["global_step"]
    for name, tensor in best[0]["state_dict"].items():
        assert tensor.equal(best[1]["state_dict"][name]), name


@pytest.fixture(scope="module")
def whole(faces_root, tmp_path_factory):
    """Uninterrupted runs, by their options."""
    kept = {}

    def get(options):
        key = tuple(options.items())
        if key not in kept:
            kept[key] = train(faces_root, tmp_path_factory.mktemp("whole"), **options)
        return kept[key]

    return get


def fail():
    raise RuntimeError("a failure")


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


STOPS = [  # within an epoch, at its end, at a validation, within one, in the last step, and after it
    ({}, fail, "train", 2),
    ({}, interrupt, "train", 5),
    ({}, terminate, "step", 7),
    ({}, fail, "validation", 3),
    ({}, terminate, "validation end", 1),
    ({}, terminate, "step", 10),
    ({"max_steps": 12}, fail, "validation", 8),
    ({"max_steps": -1, "max_epochs": 2}, fail, "train", 5),
    ({"max_steps": 5, "d_steps": 3}, fail, "train", 7),
]


def name(case):
    options, action, where, batch = case
    return "-".join([*(f"{key}={value}" for key, value in options.items()), action.__name__, where, str(batch)])


def check_case(faces_root, folder, whole, case):
    options, action, where, batch = case
    trouble = Trouble(batch, action, where)
    with contextlib.suppress(RuntimeError, SystemExit):
        train(faces_root, folder, trouble=trouble, **options)
    last = folder / "checkpoints" / "last.ckpt"
    steps = torch.load(last, weights_only=True)["global_step"] if last.exists() else 0
    if where in ("train", "step"):  # nothing is lost but the step under way
        done = (batch + 1) // options.get("d_steps", 1)
        assert steps == min(done, whole(options).global_step)  # some runs end before that batch
    resumed = train(faces_root, folder, last if last.exists() else None, **options)
    assert_same(whole(options), resumed)


@pytest.mark.parametrize("case", STOPS, ids=name)
def test_a_run_resumed_after_any_stop_equals_an_uninterrupted_one(faces_root, tmp_path, whole, case):
    check_case(faces_root, tmp_path, whole, case)


def kill_the_workers():
    for process in multiprocessing.active_children():
        process.kill()


@pytest.mark.slow
def test_the_last_whole_step_is_kept_when_data_workers_are_killed(faces_root, tmp_path, whole):
    """Batches loaded in advance are still trained on; more are asked for at the end of the epoch at the latest."""
    with pytest.raises((RuntimeError, ConnectionError, EOFError)) as caught:
        train(faces_root, tmp_path, trouble=Trouble(2, kill_the_workers), data={"num_workers": 2})
    assert dead_worker(caught.value) is not None  # torch's own error, or that of a tensor yet to be handed over
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert 3 <= torch.load(last, weights_only=True)["global_step"] <= 6
    assert_same(whole({}), train(faces_root, tmp_path, last, data={"num_workers": 2}))


class TerminatedEarly(Callback):
    """Sends SIGTERM while the untrained networks are validated."""

    def on_train_start(self, *_):
        terminate()


def test_a_signal_before_the_first_step_stops_the_run_after_it(faces_root, tmp_path, whole):
    with pytest.raises(SystemExit):
        train(faces_root, tmp_path, trouble=TerminatedEarly())
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 1
    assert_same(whole({}), train(faces_root, tmp_path, last))


@pytest.mark.parametrize("data", [{"resident": True}, {"num_workers": 2}], ids=str)
def test_the_same_with_data_loaded_in_other_ways(faces_root, tmp_path, whole, data):
    with contextlib.suppress(RuntimeError):
        train(faces_root, tmp_path, trouble=Trouble(7, fail), data=data)
    assert_same(whole({}), train(faces_root, tmp_path, tmp_path / "checkpoints" / "last.ckpt", data=data))


@pytest.mark.parametrize("step", [1, 4, 6])
def test_resumed_from_a_checkpoint_of_any_step(faces_root, tmp_path, whole, step):
    """Step 6 ends an epoch; step 4 is followed by its checkpoint and then by validation."""
    source = Path(whole({}).default_root_dir)
    shutil.copyfile(source / "metrics.csv", tmp_path / "metrics.csv")
    assert_same(whole({}), train(faces_root, tmp_path, source / "steps" / f"step={step}.ckpt"), best=False)


def test_a_killed_run_loses_at_most_every_n_steps(faces_root, tmp_path, whole):
    """SIGKILL leaves what was written: here a checkpoint, and rows of metrics.csv after it."""
    with contextlib.suppress(RuntimeError):
        train(faces_root, tmp_path, trouble=Trouble(10, fail), every=3)
    last, previous = (tmp_path / "checkpoints" / f"{name}.ckpt" for name in ("last", "previous"))
    assert torch.load(last, weights_only=True)["global_step"] == 11
    assert torch.load(previous, weights_only=True)["global_step"] == 11 - 3  # validation
    assert_same(whole({}), train(faces_root, tmp_path, previous, every=3))


def test_a_resumed_run_keeps_its_seed_when_another_is_given(faces_root, tmp_path, whole):
    source = Path(whole({}).default_root_dir)
    shutil.copyfile(source / "metrics.csv", tmp_path / "metrics.csv")
    resumed = train(faces_root, tmp_path, source / "steps" / "step=4.ckpt", seed=4)
    assert_same(whole({}), resumed, best=False)


class Draws(Callback):
    """A user's callback that draws from the generators of Python, NumPy and torch after each batch."""

    def __init__(self):
        self.drawn = []

    def on_train_batch_end(self, trainer, *_):
        self.drawn.append((random.random(), np.random.rand(), float(torch.rand(()))))


def test_global_random_generators_are_resumed(faces_root, tmp_path):
    whole, first, second = (Draws() for _ in range(3))
    train(faces_root, tmp_path / "whole", trouble=whole)
    train(faces_root, tmp_path / "cut", trouble=first, max_steps=5)
    train(faces_root, tmp_path / "cut", tmp_path / "cut" / "steps" / "step=5.ckpt", trouble=second, seed=4)
    assert len(whole.drawn) == 11
    assert first.drawn + second.drawn == whole.drawn


@pytest.mark.parametrize("stop", [terminate, fail])
def test_a_checkpoint_is_saved_even_if_the_curves_cannot_be_drawn(faces_root, tmp_path, monkeypatch, caplog, stop):
    """Lightning calls checkpoint callbacks last, and not at all if another callback has failed."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(curves, "draw_curves", full)
    with contextlib.suppress(RuntimeError, SystemExit):
        train(faces_root, tmp_path, trouble=BesideCurves(2, stop))
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3
    assert "curves.png could not be written (No space left on device)" in caplog.text


class BesideCurves(Trouble, curves.Curves):
    """Fails and draws the curves."""


def test_a_finished_run_can_be_extended(faces_root, tmp_path, whole):
    train(faces_root, tmp_path, max_steps=3)
    longer = train(faces_root, tmp_path, tmp_path / "checkpoints" / "last.ckpt")
    for key, tensor in whole({}).lightning_module.state_dict().items():
        assert tensor.equal(longer.lightning_module.state_dict()[key]), key


def test_networks_that_diverged_are_not_saved(faces_root, tmp_path):
    def diverge():
        raise DivergedError("a loss became NaN")

    with pytest.raises(DivergedError):
        train(faces_root, tmp_path, trouble=Trouble(5, diverge))
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4


def test_an_error_within_a_step_keeps_the_last_checkpoint(faces_root, tmp_path, caplog):
    with pytest.raises(RuntimeError, match="a failure"):
        train(faces_root, tmp_path, trouble=Trouble(6, fail, "step"))
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4
    assert "in the middle of step 7: last.ckpt is of step 4" in caplog.text
