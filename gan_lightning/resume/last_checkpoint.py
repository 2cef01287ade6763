"""last.ckpt: the state from which a run is resumed, regardless of metrics."""

from __future__ import annotations

import logging
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from gan_lightning.errors import DivergedError, InputError, StorageError
from gan_lightning.loggers.metrics_file import MetricsFile
from gan_lightning.resume.checkpoint_io import LAST, WholeCheckpoints
from gan_lightning.resume.data_identity import check_same_data, data_identity
from gan_lightning.resume.lightning_internals import set_max_steps
from gan_lightning.resume.progress_state import set_to_batch_boundary
from gan_lightning.resume.random_states import random_states, set_random_states
from gan_lightning.resume.same_start import check_same_start
from gan_lightning.resume.signals import StepSignals
from gan_lightning.resume.training_position import TrainingPosition

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResumeNotes:
    """Notes in a checkpoint for the run that resumes from it; the defaults are for checkpoints without notes."""

    metrics_rows: int | None = None  # number of rows in metrics.csv; None for those up to the checkpoint's step
    validation_due: bool = False  # before the next step
    ended: bool = True  # whether nothing was left to do after the last step


class LastCheckpoint(Checkpoint):  # Lightning calls checkpoint callbacks last, after all others
    """Callback that writes checkpoints/last.ckpt after each validation, at the end, and when a run is stopped or fails.

    Every checkpoint contains complete steps: Ctrl-C and SIGTERM wait for the end of the current step. When a run fails,
    the state after its last complete step is saved, unless the networks have diverged. With several ranks, a signal to
    any of them stops all at the same step; after an error on one rank nothing is saved, because the others may be at
    another step.

    Lightning's `save_last` writes last.ckpt only together with a new best checkpoint, and loses all later steps.
    """

    def __init__(self, every_n_steps: int | None = None) -> None:
        """Configure how much work is lost when a job is killed without a warning.

        Args:
            every_n_steps: Number of generator iterations after which last.ckpt is also written between validations. By
                default it is only written after validations.

        Raises:
            InputError: If the interval is less than 1.
        """
        if every_n_steps is not None and every_n_steps < 1:
            raise InputError(
                f"last_checkpoint.every_n_steps must be at least 1, or null for never, but got {every_n_steps}"
            )
        self.every_n_steps = every_n_steps
        self._position: TrainingPosition
        self._signals: StepSignals | None = None  # from the first step on
        self._saved_step = -1
        self._saved_state: tuple[int, bool] | None = None
        self._rows_before_validation: int | None = 0
        self._ended = False
        self._data: dict[str, Any] | None = None  # identity of the training images
        self._resumed_notes, self._resumed_step = ResumeNotes(metrics_rows=0), 0  # of a run that starts anew
        self._resumed_random_states: list[dict[str, Any]] = []

    # Content of a checkpoint

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the notes and random states, and set Lightning's counters to the end of a complete step."""
        if trainer.state.fn != "fit":
            return
        due = self._position.validation_is_due
        set_to_batch_boundary(checkpoint["loops"]["fit_loop"], trainer.num_training_batches, due)
        rows = rows_logged(trainer)
        if due and trainer.validating:  # the validation will be repeated, and write its rows again
            rows = self._rows_before_validation
        checkpoint["last_checkpoint"] = asdict(ResumeNotes(rows, due, self._ended))
        checkpoint["random_states"] = random_states()
        checkpoint["data"] = self._data

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Read the notes and random states that `on_save_checkpoint` added.

        Raises:
            InputError: If the run was trained on different data.
        """
        self._resumed_notes = ResumeNotes(**checkpoint.get("last_checkpoint", {}))
        self._resumed_step = checkpoint["global_step"]
        self._resumed_random_states = checkpoint.get("random_states", [])
        if trainer.state.fn == "fit" and (path := trainer.ckpt_path) is not None:
            resumes = Path(path).resolve().parent == self._folder(trainer).resolve()
            if resumes or trainer.is_global_zero:
                check_same_data(checkpoint.get("data"), self._data, str(path), resumes)

    # When a run starts or resumes

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write all checkpoints atomically, unless the user has chosen another plugin."""
        self._position = TrainingPosition(trainer)
        self._data = data_identity(trainer) if stage == "fit" else None
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeCheckpoints()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the rows of metrics.csv that the resumed run will write again.

        Raises:
            InputError: If the ranks have started from different checkpoints.
        """
        check_same_start(trainer, self._resumed_step)
        if trainer.is_global_zero:
            for log in metrics_files(trainer):
                log.rewind(self._resumed_notes.metrics_rows, self._resumed_step)
        self._max_steps = trainer.max_steps
        if not self._resumed_notes.ended and self._resumed_step >= self._max_steps > 0:
            # All steps were taken, but the validation or the end of the training was still missing. Lightning skips a
            # fit without remaining steps, so one more is allowed until the training has started.
            set_max_steps(trainer, self._resumed_step + 1)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the random states; from here on signals wait for the end of a step."""
        self._saved_step = trainer.global_step
        if not self._resumed_notes.validation_due:
            self._position.end_validation()
            set_max_steps(trainer, self._max_steps)
        self._signals = StepSignals(trainer, self._position)
        set_random_states(self._resumed_random_states, trainer.global_rank)
        self._resumed_random_states = []

    # When last.ckpt is written

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Record that a step has started."""
        self._position.begin_step()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop if a signal has come; save if the interval has passed and no validation is about to save."""
        self._position.end_step()
        if self._signals is not None:
            ends = trainer.is_last_batch or trainer.global_step == trainer.max_steps or trainer.should_stop
            self._signals.act(at_once=ends or self._position.validation_is_due)
        passed = self.every_n_steps is not None and trainer.global_step - self._saved_step >= self.every_n_steps
        if passed and not self._position.validation_is_due:
            self._save(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the number of rows in metrics.csv before the validation adds its own."""
        if trainer.state.fn == "fit":
            set_max_steps(trainer, self._max_steps)
        else:
            check_same_start(trainer, self._resumed_step)
        self._rows_before_validation = rows_logged(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the state that was validated."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save(trainer)
            self._position.end_validation()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the steps after the last validation."""
        self._ended = True
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        state = (trainer.fit_loop.total_batch_idx, self._position.validation_is_due)
        if state == self._saved_state or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        trainer.save_checkpoint(self._folder(trainer) / LAST)
        self._saved_step, self._saved_state = trainer.global_step, state

    def _folder(self, trainer: Trainer) -> Path:
        """Return the folder of last.ckpt: that of other checkpoints, if there are any."""
        others = [callback for callback in trainer.checkpoint_callbacks if callback is not self]
        folder = getattr(others[0], "dirpath", None) if others else None
        return Path(folder or trainer.default_root_dir)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that all ranks measure, or sample from, the same checkpoint.

        Raises:
            InputError: If they do not.
        """
        check_same_start(trainer, self._resumed_step)

    on_predict_start = on_test_start

    # When a run is stopped

    def on_predict_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop `predict` after the batch if SIGTERM has come; Lightning's loop does not.

        Raises:
            SIGTERMException: If the process has received SIGTERM.
        """
        if trainer.received_sigterm:
            raise SIGTERMException

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save the last complete step if all ranks have reached it; otherwise kill ranks that would wait for it."""
        if trainer.state.fn != "fit" or self._signals is None:
            return
        self._position.fail()
        asked = isinstance(exception, SIGTERMException | KeyboardInterrupt)
        agreed = trainer.world_size == 1 or (asked and self._signals.agreed)
        if agreed and not isinstance(exception, DivergedError | StorageError):
            self._save_whole_step(trainer)
        if not agreed and trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGKILL)  # the processes that this one has started

    def _save_whole_step(self, trainer: Trainer) -> None:
        kept = f"last.ckpt is of step {self._saved_step}" if self._saved_state else "it wrote no last.ckpt"
        if not self._position.step_is_whole:
            _log.warning("The run was stopped in the middle of step %d: %s.", trainer.global_step + 1, kept)
            return
        try:
            self._save(trainer)
        except Exception as error:  # must not hide the error that stopped the run
            _log.warning("The last step could not be saved, %s: %s", kept, error)
        else:
            if trainer.is_global_zero:
                step = trainer.global_step
                _log.info("The run stopped after step %d, which was saved: resume it with --ckpt_path last", step)


def metrics_files(trainer: Trainer) -> list[MetricsFile]:
    """Return the loggers that write metrics.csv: one in every run of the command line."""
    return [logger for logger in trainer.loggers if isinstance(logger, MetricsFile)]


def rows_logged(trainer: Trainer) -> int | None:
    """Return the number of rows in metrics.csv; None if this run does not write it."""
    logs = metrics_files(trainer)
    return logs[0].rows if logs else None
