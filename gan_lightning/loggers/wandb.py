"""Weights & Biases, for runs that must not depend on it."""

from __future__ import annotations

import logging
import os
import signal
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from gan_lightning.errors import InputError, first_line

_log = logging.getLogger(__name__)
# W&B's own defaults are 90 s and no limit. Values in the environment take precedence.
LIMITS = {"WANDB_INIT_TIMEOUT": "10", "WANDB_FINISH_TIMEOUT": "60"}

STOPPED, INTERRUPTED = 128 + signal.SIGTERM, 255  # exit codes; W&B's own after Ctrl-C is 255


class SteadyWandbLogger(WandbLogger):
    """Lightning's WandbLogger, unable to block or to end a run.

    A run is logged offline if the server does not answer within 20 s. Later errors are reported once, and training
    continues; metrics.csv has the metrics too. Uploading stops 60 s after the run at the latest; `wandb sync` uploads
    the rest from disk.
    """

    def __init__(self, name: str | None = None, *, offline: bool = False, **kwargs: Any) -> None:
        super().__init__(name, offline=offline, **kwargs)
        self._online = not offline
        self._arguments = {"name": name, **kwargs}
        self._complained = self._begun = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B's run, started at the first access: online, or offline if the server cannot be reached.

        Raises:
            InputError: There is no API key.
        """
        run = self._start()
        if not self._begun:
            self._begun = True
            with suppress(Exception):  # a resumed run is no longer what its summary said at its end
                run.summary["status"] = "running"
        return run

    def _start(self) -> Any:
        if not self._online:
            return super().experiment
        for name, seconds in LIMITS.items():
            os.environ.setdefault(name, seconds)
        from wandb.errors import Error, UsageError  # slow to import

        try:
            return super().experiment
        except UsageError as error:
            raise InputError(
                f"W&B: {first_line(error)} Or log offline: --trainer.logger.init_args.offline true"
            ) from error
        except Error as error:
            _log.warning(
                "W&B cannot be reached (%s): this run is logged offline; upload it later with `wandb sync %s`",
                first_line(error),
                os.path.join(self.save_dir or ".", "wandb", "offline-run-*"),
            )
        super().__init__(**self._arguments | {"mode": "offline"})  # W&B has read its environment already
        self._online = False
        return super().experiment

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except InputError:
            raise
        except Exception as error:  # whatever it is, training matters more than its log
            if not self._complained:
                _log.warning("W&B failed (%s): training continues; metrics.csv has the metrics", first_line(error))
            self._complained = True

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Log the configuration."""
        self._attempt(lambda: super(SteadyWandbLogger, self).log_hyperparams(params))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics."""
        self._attempt(lambda: super(SteadyWandbLogger, self).log_metrics(metrics, step))

    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        """Log images."""
        self._attempt(lambda: super(SteadyWandbLogger, self).log_image(key, images, step, **kwargs))

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Log a checkpoint as an artifact, if `log_model` asks for it."""
        self._attempt(lambda: super(SteadyWandbLogger, self).after_save_checkpoint(checkpoint_callback))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Log the checkpoints that are still to be logged."""
        self._attempt(lambda: super(SteadyWandbLogger, self).finalize(status))

    @rank_zero_only
    def finish(self, error: BaseException | None = None) -> None:
        """Finish W&B's run, so that later runs of this process start their own.

        The run's summary says how it ended, as `status`: "finished", "stopped" by a signal, or "failed"; until then it
        is "running". W&B gets the exit code 1 after an error, 255 after Ctrl-C, as from its own handler, and 143 after
        SIGTERM or Slurm's warning, when the run is marked as preempted. Each of them can be resumed.

        Args:
            error: Exception that has ended the run.
        """
        status, exit_code = how_it_ended(error)
        if self._begun or error is None:
            self._attempt(lambda: self._finish(status, exit_code))

    def _finish(self, status: str, exit_code: int) -> None:
        run = self.experiment
        run.summary["status"] = status
        if exit_code == STOPPED:
            run.mark_preempting()
        run.finish(exit_code=exit_code)


def how_it_ended(error: BaseException | None) -> tuple[str, int]:
    """Return how a run has ended, "finished", "stopped" or "failed", and W&B's exit code for it.

    Args:
        error: Exception that has ended it, if any. Lightning turns Ctrl-C into SystemExit.
    """
    last = error
    while error is not None:
        if isinstance(error, SIGTERMException):
            return "stopped", STOPPED
        if isinstance(error, KeyboardInterrupt):
            return "stopped", INTERRUPTED
        error = error.__cause__ or error.__context__
    return ("finished", 0) if last is None else ("failed", 1)
