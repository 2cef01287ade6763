"""Weights & Biases for runs that must not depend on it."""

from __future__ import annotations

import logging
import os
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from gan_lightning.errors import InputError

_log = logging.getLogger(__name__)
# W&B's own limits are 90 s and none; what is set in the environment stands.
LIMITS = {"WANDB_INIT_TIMEOUT": "10", "WANDB_FINISH_TIMEOUT": "60"}


class SteadyWandbLogger(WandbLogger):
    """Lightning's WandbLogger, made so that W&B can never hold up or end a run.

    Without an answer from the server within 20 s, the run is logged offline. An error later on is told once, and
    training goes on; figures are in metrics.csv all the same. Uploading ends at most 60 s after the run; what is left
    is on disk, for `wandb sync`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._complained = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B's run, begun when it is first asked for: online, or offline if the server cannot be reached.

        Raises:
            InputError: There is no key to log in with.
        """
        if self._experiment is None and not self._offline:
            for name, seconds in LIMITS.items():
                os.environ.setdefault(name, seconds)
            from wandb.errors import Error, UsageError  # slow to import

            try:
                return super().experiment
            except UsageError as error:
                raise InputError(
                    f"W&B: {first_line(error)} Or leave it offline: --trainer.logger.init_args.offline true"
                ) from error
            except Error as error:
                _log.warning(
                    "W&B cannot be reached (%s): this run is logged offline; upload it later by `wandb sync %s`",
                    first_line(error),
                    os.path.join(self.save_dir or ".", "wandb", "offline-run-*"),
                )
                self._wandb_init["mode"] = "offline"  # the environment has been read already
        return super().experiment

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except InputError:
            raise
        except Exception as error:  # whatever it is, training is worth more than its log
            if not self._complained:
                _log.warning("W&B fails (%s): training goes on; its figures are in metrics.csv", first_line(error))
            self._complained = True

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Send the configuration."""
        self._attempt(lambda: super(SteadyWandbLogger, self).log_hyperparams(params))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Send figures."""
        self._attempt(lambda: super(SteadyWandbLogger, self).log_metrics(metrics, step))

    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        """Send pictures."""
        self._attempt(lambda: super(SteadyWandbLogger, self).log_image(key, images, step, **kwargs))

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Send a checkpoint, where `log_model` says so."""
        self._attempt(lambda: super(SteadyWandbLogger, self).after_save_checkpoint(checkpoint_callback))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Send the checkpoints that are left to send."""
        self._attempt(lambda: super(SteadyWandbLogger, self).finalize(status))

    @rank_zero_only
    def finish(self) -> None:
        """End W&B's run, or it would take in whatever this process logs next."""
        self._attempt(lambda: self.experiment.finish())


def first_line(error: Exception) -> str:
    """Give the part of a message that says what is wrong."""
    return (str(error) or type(error).__name__).splitlines()[0]
