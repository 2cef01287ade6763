"""A logger for Weights & Biases whose problems never affect a run."""

from __future__ import annotations

import logging
import os
import signal
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from gan_lightning.directions import Direction, better
from gan_lightning.errors import InputError, first_line
from gan_lightning.loggers.wandb_artifacts import artifact_name, checkpoints_to_upload
from gan_lightning.loggers.wandb_config import describe_generator, not_yet_given, options_by_name

_log = logging.getLogger(__name__)
# W&B's own defaults are 90 s and no limit. Values in the environment take precedence.
LIMITS = {"WANDB_INIT_TIMEOUT": "10", "WANDB_FINISH_TIMEOUT": "60"}

AXIS = "trainer/global_step"  # Lightning's name of the x-axis
SHORTEST_ROW = 64  # minimum number of bytes of a row in a file of W&B

STOPPED, INTERRUPTED = 128 + signal.SIGTERM, 255  # exit codes; W&B's own after Ctrl-C is 255


class SteadyWandbLogger(WandbLogger):
    """Lightning's WandbLogger, except that it never blocks or ends a run.

    A run is logged offline if the server does not respond within 20 s. Later errors are reported once, and training
    continues; metrics.csv also has the metrics. Uploading stops at most 60 s after the run; `wandb sync` uploads the
    rest from disk.

    Attributes:
        in_each_row: Function that returns additional values for each row, such as the number of images seen, so that
            each of them can be the x-axis of a chart.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        offline: bool = False,
        entity: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: list[str] | None = None,
        notes: str | None = None,
        log_checkpoints: bool = False,
        **kwargs: Any,
    ) -> None:
        """Store the settings; the run of W&B starts on first use.

        Args:
            name: Name of the run.
            offline: Write to disk only; `wandb sync` uploads the run.
            entity: User or team that owns the project.
            group: Name of a group of runs; on the command line by default the sweep or the Slurm array.
            job_type: Kind of the run; on the command line by default the command.
            tags: Words by which runs can be filtered.
            notes: Description of the run.
            log_checkpoints: Upload best.ckpt and last.ckpt at the end of the training, or when it is stopped, as
                versions of an artifact with the run's name and the aliases best and latest. `log_model` is Lightning's
                alternative.
            **kwargs: Other arguments of Lightning's WandbLogger and of `wandb.init`.
        """
        given = {"entity": entity, "group": group, "job_type": job_type, "tags": tags, "notes": notes}
        kwargs |= {key: value for key, value in given.items() if value is not None}
        if kwargs.get("resume") is None:  # the command line gives all arguments of `wandb.init`, and would replace
            kwargs.pop("resume", None)  # Lightning's "allow": W&B would then overwrite the run that is resumed
        super().__init__(name, offline=offline, **kwargs)
        self._online = not offline
        self._arguments = {"name": name, **kwargs}
        self._complained = self._begun = False
        self._uploads_checkpoints, self._best_checkpoint = log_checkpoints, ""
        self._options: dict[str, Any] = {}  # options of the command, by name
        self._defined: set[str] = set()  # metrics whose summary was chosen
        self.in_each_row: Callable[[], Mapping[str, float]] = dict

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B's run, started at the first access: online, or offline if the server cannot be reached.

        Raises:
            InputError: If there is no API key.
        """
        run = self._start()
        if not self._begun:
            self._begun = True
            with suppress(Exception):
                run.summary["status"] = "running"  # replaces the status at the end of a run that is resumed
                if (former := self._rows_of_former_parts(run)) > 0:
                    run.log({}, step=former, commit=False)
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
        super().__init__(**self._arguments | {"mode": "offline"})  # W&B has already read its environment
        self._online = False
        return super().experiment

    def _rows_of_former_parts(self, run: Any) -> int:
        """Return a number larger than those of all rows of the earlier parts of an offline run; 0 online.

        The parts of a resumed run have the same id, and `wandb sync` joins them in chronological order to one run,
        whose rows must have increasing numbers. Without a connection, W&B cannot ask for the last one.
        """
        if not getattr(run, "offline", False):
            return 0
        own = Path(run.dir).parent
        parts = (path for path in own.parent.glob(f"*run-*-{run.id}/*.wandb") if path.parent.name != own.name)
        return sum(path.stat().st_size // SHORTEST_ROW for path in parts)

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except InputError:
            raise
        except Exception as error:  # training is more important than logging
            if not self._complained:
                _log.warning("W&B failed (%s): training continues; metrics.csv has the metrics", first_line(error))
            self._complained = True

    @rank_zero_only
    def log_configuration(self, config: Mapping[str, Any]) -> None:
        """Log the configuration of a command without nulls, and for a restoration the run of its generator.

        Hyperparameters that Lightning logs later are not logged again if they are options of the command.
        """
        self._options = options_by_name(config)
        generator = self._options.get("model", {}).get("generator_ckpt")
        facts = {} if generator is None else {"generator": describe_generator(generator)}
        self._attempt(lambda: super(SteadyWandbLogger, self).log_hyperparams({**self._options, **facts}))

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Log hyperparameters."""
        given = not_yet_given(vars(params) if isinstance(params, Namespace) else params, self._options)
        if given:
            self._attempt(lambda: super(SteadyWandbLogger, self).log_hyperparams(given))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics; the summary has their last values, and the best values of those that have one."""
        row = {**self.in_each_row(), **metrics}
        self._attempt(lambda: self._choose_summaries(metrics))
        self._attempt(lambda: super(SteadyWandbLogger, self).log_metrics(row, step))

    def _choose_summaries(self, metrics: Mapping[str, Any]) -> None:
        for name in metrics.keys() - self._defined:
            self._defined.add(name)
            if (direction := best_in_summary(name)) is not None:
                self.experiment.define_metric(name, step_metric=AXIS, summary=f"{direction},last")

    @rank_zero_only
    def log_summary(self, values: Mapping[str, Any]) -> None:
        """Set values of the run's summary, replacing those that W&B computes from the rows of this part of the run."""
        self._attempt(lambda: self.experiment.summary.update(dict(values)))

    @rank_zero_only
    def alert(self, title: str, text: str) -> None:
        """Send an alert, which W&B forwards by mail or Slack."""
        self._attempt(lambda: self.experiment.alert(title=title, text=text))

    @rank_zero_only
    def log_file(self, path: Path) -> None:
        """Upload a file of the run folder, if it exists."""
        if path.is_file():
            self._attempt(lambda: self.experiment.save(str(path), base_path=str(path.parent), policy="now"))

    @rank_zero_only
    def log_pictures(self, key: str, rows: list[dict[str, Any]], pictures: Mapping[str, list[Path]]) -> None:
        """Log a table with pictures.

        Args:
            key: Name of the table.
            rows: Values by the names of the columns.
            pictures: A picture for each row, by the names of additional columns, which come first.
        """
        import wandb

        def log() -> None:
            images = {name: [wandb.Image(str(path)) for path in paths] for name, paths in pictures.items()}
            table = [[images[name][n] for name in images] + list(row.values()) for n, row in enumerate(rows)]
            self.log_table(key, columns=[*images, *rows[0]], data=table)

        self._attempt(log)

    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        """Log images."""
        self._attempt(lambda: super(SteadyWandbLogger, self).log_image(key, images, step, **kwargs))

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Log a checkpoint as an artifact if `log_model` is set."""
        self._best_checkpoint = checkpoint_callback.best_model_path
        self._attempt(lambda: super(SteadyWandbLogger, self).after_save_checkpoint(checkpoint_callback))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Log the remaining checkpoints."""
        self._attempt(lambda: super(SteadyWandbLogger, self).finalize(status))
        if self._uploads_checkpoints and self._begun:
            self._attempt(self._upload_checkpoints)

    def _upload_checkpoints(self) -> None:
        import wandb

        best = self._best_checkpoint
        folder = Path(best).parent if best else Path(self.save_dir or ".", "checkpoints")
        name = artifact_name(str(self.experiment.name or self.experiment.id))
        for alias, path in checkpoints_to_upload(folder, best).items():
            artifact = wandb.Artifact(name, type="model", metadata={"run": self.experiment.name, "file": path.name})
            artifact.add_file(str(path), name=path.name)
            self.experiment.log_artifact(artifact, aliases=[alias])

    @rank_zero_only
    def finish(self, error: BaseException | None = None) -> None:
        """Finish the run of W&B, so that later runs of this process start their own.

        The `status` in the run's summary is "running", and at the end "finished", "stopped" by a signal, or "failed".
        W&B gets the exit code 1 after an error, 255 after Ctrl-C, as from its own handler, and 143 after SIGTERM or
        Slurm's warning, which marks the run as preempted. All of them can be resumed.

        Args:
            error: Exception that ended the run.
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


def finish_runs(trainer: Trainer | None, error: BaseException | None = None) -> None:
    """Finish W&B's runs of a command, which say how it has ended.

    Args:
        trainer: Trainer of the command; None if it has ended before it had one.
        error: Exception that has ended it.
    """
    for logger in [] if trainer is None else trainer.loggers:  # with fast_dev_run they are Lightning's dummies
        if isinstance(logger, SteadyWandbLogger):
            logger.finish(error)


def best_in_summary(name: str) -> Direction | None:
    """Return "min" or "max" for metrics whose best value is also in W&B's summary, None for those logged only once."""
    return None if name.startswith("test/") else better(name)


def how_it_ended(error: BaseException | None) -> tuple[str, int]:
    """Return how a run ended, "finished", "stopped" or "failed", and the exit code for W&B.

    Args:
        error: Exception that ended the run, if any. Lightning converts Ctrl-C to SystemExit.
    """
    last = error
    while error is not None:
        if isinstance(error, SIGTERMException):
            return "stopped", STOPPED
        if isinstance(error, KeyboardInterrupt):
            return "stopped", INTERRUPTED
        error = error.__cause__ or error.__context__
    return ("finished", 0) if last is None else ("failed", 1)
