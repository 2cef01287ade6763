"""What a subclass or a callback logs by Lightning's own means lands on the axis of our metrics."""

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from gan_lightning import DCGAN
from gan_lightning.loggers.metrics_file import MetricsFile
from gan_lightning.resume.last_checkpoint import LastCheckpoint
from tests.modules.test_dcgan import BATCH, TINY, loader, train


class Logs(DCGAN):
    """Logs before and after the step, for the step and for the epoch, in training and in validation."""

    def training_step(self, batch, batch_idx):
        self.log("mine/before", float(self.global_step))
        super().training_step(batch, batch_idx)
        self.log_dict({"mine/after": float(self.global_step)})
        self.log("mine/epoch", float(batch_idx), on_step=False, on_epoch=True)

    def on_validation_epoch_end(self):
        super().on_validation_epoch_end()
        self.log("mine/val", float(self.global_step))


class OfACallback(Callback):
    def on_train_batch_end(self, trainer, module, *args):
        module.log("mine/callback", float(trainer.global_step))


def history(tmp_path, d_steps, cls=Logs, steps=12, ckpt_path=None, callbacks=(), logging=(OfACallback,), **options):
    logger = MetricsFile(tmp_path)
    torch.manual_seed(0)
    options = {
        "logger": [logger, CSVLogger(tmp_path)],
        "callbacks": [*(callback() for callback in logging), LearningRateMonitor("step"), *callbacks],
        "val_check_interval": 4 * d_steps,
        "check_val_every_n_epoch": None,
        "log_every_n_steps": 3,
        "enable_checkpointing": bool(callbacks),
    } | options
    data = loader(BATCH * 6), loader(BATCH)
    trainer = train(cls(**TINY, d_steps=d_steps), steps, tmp_path, data, ckpt_path, **options)
    return logger.history(), trainer


@pytest.mark.parametrize("d_steps", [1, 3])
def test_everything_is_logged_against_iterations_of_the_generator(tmp_path, d_steps):
    ours, trainer = history(tmp_path, d_steps)
    assert {step for step, _ in ours["train/loss_g"]} == {1, 3, 6, 9, 12}
    for name in ("mine/after", "mine/callback", "mine/val"):
        assert ours[name], name
        assert all(step == value for step, value in ours[name]), name
    # before the first iteration there are batches of D alone
    assert {step for step, _ in ours["mine/after"]} - ({0} if d_steps > 1 else set()) == {3, 6, 9, 12}
    assert {step for step, _ in ours["mine/val"]} == {4, 8, 12}
    # the rate of the next iteration, beside the number of those that were made
    assert {step for step, _ in ours["lr-Adam"]} == {2, 5, 8, 11}
    assert all(step in range(6 // d_steps - 1, 13) for step, _ in ours["mine/epoch"])
    assert "step" not in trainer.logged_metrics or float(trainer.logged_metrics["step"]) <= 12


def test_a_resumed_run_stays_on_the_axis(tmp_path):
    history(tmp_path, 3, steps=5, callbacks=[LastCheckpoint()])
    ours, _ = history(tmp_path, 3, steps=12, ckpt_path=tmp_path / "last.ckpt")
    for name in ("mine/after", "mine/val"):
        assert all(step == value for step, value in ours[name]), name
    assert {step for step, _ in ours["lr-Adam"]} == {2, 5, 8, 11}


class LogsInValidation(DCGAN):
    def on_validation_epoch_end(self):
        super().on_validation_epoch_end()
        self.log("mine/val", 1.0)


class LogsBefore(DCGAN):
    def training_step(self, batch, batch_idx):
        if batch_idx % 4 == 0:  # not in each step
            self.log("mine/before", float(self.global_step))
        super().training_step(batch, batch_idx)


@pytest.mark.parametrize("logging", [[], [OfACallback]], ids=["alone", "beside-a-callback"])
def test_what_is_logged_before_a_step_stands_at_its_end(tmp_path, logging):
    # A callback that logs after the step moves the axis on, too, and would hide a module that does not.
    ours, _ = history(tmp_path, 1, LogsBefore, log_every_n_steps=1, logging=logging)
    assert [point for point in ours["mine/before"] if point[0] in (1, 5)] == [(1, 0.0), (5, 4.0)]
    assert [step for step, _ in ours["mine/before"]] == list(range(1, 13))  # Lightning repeats the last value


@pytest.mark.parametrize("cls", [DCGAN, Logs, LogsBefore, LogsInValidation])
def test_names_of_checkpoints_have_the_step_of_the_moment(tmp_path, cls):
    checkpoint = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=3, save_top_k=-1)
    history(tmp_path, 2, cls, callbacks=[checkpoint])
    assert {path.name for path in tmp_path.glob("*.ckpt")} == {f"step={step}.ckpt" for step in (3, 6, 9, 12)}


def test_a_row_of_the_file_always_has_a_metric(tmp_path):
    history(tmp_path, 2, LogsInValidation)
    header, *rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert header.startswith("step,")
    assert all(any(row.split(",")[1:]) for row in rows)


def test_without_a_trainer_there_is_a_warning_and_no_error():
    with pytest.warns(UserWarning, match="reference is not registered"):
        DCGAN(**TINY).log("mine", 1.0)
