"""last.ckpt: the state to go on from, whatever the metrics say."""

from __future__ import annotations

import logging
import signal
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from lightning.pytorch.utilities.exceptions import SIGTERMException

from gan_lightning.errors import DivergedError, InputError, StorageError
from gan_lightning.loggers.metrics_file import MetricsFile
from gan_lightning.resume.checkpoint_io import LAST, WholeCheckpoints
from gan_lightning.resume.progress_state import set_to_batch_boundary
from gan_lightning.resume.random_states import random_states, set_random_states
from gan_lightning.resume.signals import StepSignals

_log = logging.getLogger(__name__)


class LastCheckpoint(Checkpoint):  # Lightning calls checkpoint callbacks last, when the others have done their part
    """Writes checkpoints/last.ckpt after each validation, at the end, and when the run is stopped or fails.

    Every checkpoint is of whole steps: Ctrl-C and SIGTERM wait for the end of the step that they come in. Of a run that
    fails the state after its last whole step is kept, unless the networks have diverged. With several ranks a signal to
    any of them stops all at the same step; an error of one, whose state the others don't have, keeps nothing.

    Lightning's `save_last` writes last.ckpt only together with a new best, and so loses all that came after the best.
    """

    def __init__(self, every_n_steps: int | None = None) -> None:
        """Choose how much a job that is killed without warning may lose.

        Args:
            every_n_steps: Write last.ckpt every n G iterations too; null for after validations alone.

        Raises:
            InputError: It is less than 1.
        """
        if every_n_steps is not None and every_n_steps < 1:
            raise InputError(
                f"last_checkpoint.every_n_steps must be at least 1, or null for never, not {every_n_steps}"
            )
        self.every_n_steps = every_n_steps
        self._signals: StepSignals | None = None  # none before the training starts
        self._failed = False
        self._step_under_way: int | None = None
        self._saved_step = -1
        self._saved_state: tuple[int, bool] | None = None
        self._validated_batch = -1
        self._rows_before_validation = 0
        self._ended = False
        self._random_states: list[dict[str, Any]] = []
        self._loaded: dict[str, Any] = {"metrics_rows": 0, "validation_due": False, "ended": True, "step": 0}

    # What a checkpoint holds

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Make the counters those of a whole step; note how far metrics.csv has come."""
        if trainer.state.fn != "fit":
            return
        due = self._validation_due(trainer)
        set_to_batch_boundary(checkpoint["loops"]["fit_loop"], trainer.num_training_batches, due)
        rows = next((log.rows for log in trainer.loggers if isinstance(log, MetricsFile)), 0)
        if due and trainer.validating:  # it will be done again, and its rows be written again
            rows = self._rows_before_validation
        checkpoint["last_checkpoint"] = {"metrics_rows": rows, "validation_due": due, "ended": self._ended}
        checkpoint["random_states"] = random_states()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the notes back; checkpoints without them have the rows of their step."""
        without = {"metrics_rows": None, "validation_due": False, "ended": True}
        self._loaded = without | checkpoint.get("last_checkpoint", {}) | {"step": checkpoint["global_step"]}
        self._random_states = checkpoint.get("random_states", [])

    def _validation_due(self, trainer: Trainer) -> bool:
        """Whether validation is to be done between the last whole step and the next."""
        if trainer.validating and not self._failed:  # saved by a hook at the end of it
            return False
        loop = trainer.fit_loop.epoch_loop
        fetcher = trainer.fit_loop._data_fetcher
        return (
            fetcher is not None and loop._should_check_val_fx(fetcher) and loop.total_batch_idx != self._validated_batch
        )

    # When it is written

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Have all checkpoints written whole, unless the user has chosen another way."""
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeCheckpoints()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take back the rows of metrics.csv that a resumed run writes again."""
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile) and trainer.is_global_zero:
                logger.rewind(self._loaded["metrics_rows"], self._loaded["step"])
        loop = trainer.fit_loop.epoch_loop
        self._max_steps = loop.max_steps
        if not self._loaded["ended"] and self._loaded["step"] >= loop.max_steps > 0:
            # It took its last step, but was stopped before it had measured what came of it. Lightning would leave out
            # the end of such a run; with one step more ahead it goes on.
            loop.max_steps = self._loaded["step"] + 1

    def _take_no_step_more(self, trainer: Trainer) -> None:
        trainer.fit_loop.epoch_loop.max_steps = self._max_steps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to keep the state; from here on signals wait for the end of a step."""
        self._saved_step = trainer.global_step
        self._validated_batch = -1 if self._loaded["validation_due"] else trainer.fit_loop.total_batch_idx
        self._signals = StepSignals(trainer, lambda: self._between_steps(trainer))
        if not self._loaded["validation_due"]:
            self._take_no_step_more(trainer)
        set_random_states(self._random_states, trainer.global_rank)
        self._random_states = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Remember that the networks are in the middle of a step."""
        self._step_under_way = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop if a signal has come; save if it is time to, and validation will not."""
        self._step_under_way = None
        if self._signals is not None:
            self._signals.act()
        due = self.every_n_steps is not None and trainer.global_step - self._saved_step >= self.every_n_steps
        if due and not self._validation_due(trainer):
            self._save(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what metrics.csv holds before validation writes to it."""
        if trainer.state.fn == "fit":
            self._take_no_step_more(trainer)
        self._rows_before_validation = next((log.rows for log in trainer.loggers if isinstance(log, MetricsFile)), 0)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save(trainer)
            self._validated_batch = trainer.fit_loop.total_batch_idx

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the steps after the last validation."""
        self._ended = True
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        state = (trainer.fit_loop.total_batch_idx, self._validation_due(trainer))
        if state == self._saved_state or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        others = [callback for callback in trainer.checkpoint_callbacks if callback is not self]
        folder = getattr(others[0], "dirpath", None) if others else None
        trainer.save_checkpoint(Path(folder or trainer.default_root_dir) / LAST)
        self._saved_step, self._saved_state = trainer.global_step, state

    # What stops a run

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Obey SIGTERM once the batch is written, which Lightning's loop of `predict` alone does not.

        Raises:
            SIGTERMException: It has come.
        """
        if trainer.received_sigterm:
            raise SIGTERMException

    def _between_steps(self, trainer: Trainer) -> bool:
        writing = getattr(trainer.strategy.checkpoint_io, "writing", False)
        return self._step_under_way is None and self._step_is_whole(trainer) and not writing

    def _step_is_whole(self, trainer: Trainer) -> bool:
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress.total
        taken = self._step_under_way is not None and trainer.global_step > self._step_under_way
        return taken or progress.processed == progress.ready

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save the last whole step, if all ranks stand there; leave none behind that waits for this one."""
        if trainer.state.fn != "fit" or self._signals is None:
            return
        self._failed = True
        asked = isinstance(exception, SIGTERMException | KeyboardInterrupt)
        agreed = trainer.world_size == 1 or (asked and self._signals.agreed)
        if agreed and not isinstance(exception, DivergedError | StorageError):
            self._save_whole_step(trainer)
        launcher = trainer.strategy.launcher
        if not agreed and isinstance(launcher, _SubprocessScriptLauncher):
            launcher.kill(signal.SIGKILL)  # the processes that this one started

    def _save_whole_step(self, trainer: Trainer) -> None:
        kept = f"last.ckpt is of step {self._saved_step}" if self._saved_state else "it wrote no last.ckpt"
        if not self._step_is_whole(trainer):
            _log.warning("The run was stopped in the middle of step %d: %s.", trainer.global_step + 1, kept)
            return
        try:
            self._save(trainer)
        except Exception as error:  # it must not hide the one that stopped the run
            _log.warning("The last step could not be saved, %s: %s", kept, error)
