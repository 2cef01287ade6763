"""summary.json: the metrics of a run with their protocols, its cost, and its hardware."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from gan_lightning.atomic import atomic_path
from gan_lightning.callbacks.best_effort import best_effort
from gan_lightning.callbacks.run_facts import learning_rates, run_facts, versions
from gan_lightning.directions import Direction, better
from gan_lightning.hardware import hardware, peak_memory
from gan_lightning.loggers.metrics_file import MetricsFile
from gan_lightning.loggers.wandb import SteadyWandbLogger, how_it_ended
from gan_lightning.modules.image_batches import count_images

REPORTS = ("summary.json", "curves.png")  # files that W&B gets at the end
COSTS = ("g_steps", "images_seen", "seconds", "peak_memory_bytes")  # parts of the summary that W&B gets


class RunSummary(Callback):
    """Callback that writes summary.json after each validation and at the end, so that killed jobs also have one.

    Its `status` is "running", "finished", "stopped" by a signal, or "failed"; that of a killed job remains "running".
    Loggers get the facts of the run (`run_facts`) as hyperparameters, and each row of metrics.csv and W&B also has the
    number of images seen and the learning rates. W&B also gets the summary, and the file at the end.
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._images_seen, self._in_step = 0, 0  # in complete steps, and in the current one
        self._g_steps = 0  # of the checkpoint if nothing is trained
        self._seconds_before = 0.0  # spent before this run was resumed
        self._status, self._training, self._described = "running", False, False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start the clock."""
        self._started, self._status, self._described = time.perf_counter(), "running", False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make loggers add the number of images seen and the learning rates to each row."""
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile | SteadyWandbLogger):
                # A function, because rates may be on a device, for which only logged steps should wait.
                logger.in_each_row = partial(self._row, trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set that there is something to summarize."""
        self._training = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Count the images of the batch, before the step logs its metrics."""
        count = self._count(pl_module, batch)
        self._in_step = count * trainer.world_size
        self._describe(trainer, count)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the images of a complete step."""
        self._images_seen, self._in_step = self._images_seen + self._in_step, 0
        self._g_steps = trainer.global_step

    def _count(self, module: LightningModule, batch: Any) -> int:
        """Return the number of images in a batch; a module without data has an attribute `batch_size`."""
        return count_images(batch) or int(getattr(module, "batch_size", 0))

    def _row(self, trainer: Trainer, module: LightningModule) -> dict[str, float]:
        return {"images_seen": self._images_seen + self._in_step, **learning_rates(trainer, module)}

    def _describe(self, trainer: Trainer, images_per_batch: int | None = None) -> None:
        if trainer.is_global_zero and not self._described:
            facts = run_facts(trainer, images_per_batch)
            for logger in trainer.loggers:
                logger.log_hyperparams({"run": facts})
        self._described = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Describe a run without training."""
        if trainer.state.fn != "fit":
            self._describe(trainer)

    on_test_start = on_predict_start = on_validation_start

    def state_dict(self) -> dict[str, Any]:
        """Return the images, seconds and steps so far for the checkpoint."""
        return {"images_seen": self._images_seen, "seconds": self._seconds(), "g_steps": self._g_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue counting."""
        self._images_seen, self._seconds_before = state_dict["images_seen"], state_dict["seconds"]
        self._g_steps = state_dict["g_steps"]

    def _seconds(self) -> float:
        return self._seconds_before + time.perf_counter() - self._started

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the summary so far."""
        if not trainer.sanity_checking:
            self._write(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the final summary."""
        self._status = "finished"
        self._write(trainer)
        self._upload(trainer)
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile | SteadyWandbLogger):
                logger.in_each_row = dict

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write how the training ended: "stopped" by a signal, or "failed"."""
        if not self._training:  # refused: keep the summary of the run that should have been resumed
            return
        self._status, _ = how_it_ended(exception)
        with best_effort("summary.json", Exception):  # an error here would prevent the last checkpoint
            self._write(trainer)
            self._upload(trainer)

    @rank_zero_only
    def _write(self, trainer: Trainer) -> None:
        history = next((log.history() for log in trainer.loggers if isinstance(log, MetricsFile)), {})
        path = Path(trainer.default_root_dir) / "summary.json"
        before = json.loads(path.read_text())["protocol"] if path.is_file() else {}
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        protocols = [before] + [getattr(callback, "protocol", None) for callback in callbacks]
        directions = {name: better(name) for name in history} | monitored(trainer)
        metrics = {name: summarize(name, points, directions[name]) for name, points in history.items()}
        summary = {
            "status": self._status,
            "metrics": metrics,
            "alarms": [asdict(alarm) for callback in callbacks for alarm in getattr(callback, "alarms", [])],
            "protocol": {key: value for protocol in protocols if protocol for key, value in protocol.items()},
            "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None,
            "g_steps": self._g_steps,
            "images_seen": self._images_seen,
            "seconds": round(self._seconds(), 1),
            "peak_memory_bytes": peak_memory(),
            "precision": str(trainer.precision),
            "devices": trainer.world_size,
            "versions": versions(),
            "hardware": hardware(),
        }
        with best_effort(str(path)):
            write_json(path, summary)
        reached = {
            name: {directions[name]: of_metric["best"], "last": of_metric["last"]}
            for name, of_metric in metrics.items()
            if "best" in of_metric and not name.startswith("test/")  # measured once
        }
        for logger in trainer.loggers:
            if isinstance(logger, SteadyWandbLogger):
                logger.log_summary(without_nan({**reached, **{key: summary[key] for key in COSTS}}))

    def _upload(self, trainer: Trainer) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, SteadyWandbLogger):
                for name in REPORTS:
                    logger.log_file(Path(trainer.default_root_dir) / name)


def monitored(trainer: Trainer) -> dict[str, Direction | None]:
    """Return the metrics by which the best checkpoints are chosen, with "min" or "max"."""
    callbacks: list[Any] = list(trainer.checkpoint_callbacks)
    return {callback.monitor: callback.mode for callback in callbacks if getattr(callback, "monitor", None)}


def summarize(name: str, points: Sequence[tuple[int, float]], direction: Direction | None = None) -> dict[str, float]:
    """Return the first and last value of a metric, and the best value and its step if there is a best one.

    Args:
        name: Name of the metric, which determines whether it has a best value.
        points: (step, value) pairs. NaN is never the best.
        direction: "min" or "max", if set by the run.
    """
    ends = {"first": points[0][1], "last": points[-1][1]}
    if (direction := direction or better(name)) is None:
        return ends
    finite = [(step, value) for step, value in points if math.isfinite(value)] or list(points)
    best_step, best = (max if direction == "max" else min)(finite, key=lambda point: point[1])
    return {**ends, "best": best, "best_step": best_step}


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically, with null for numbers that are not finite."""
    with atomic_path(path) as beside:
        beside.write_text(json.dumps(without_nan(content), indent=2, allow_nan=False) + "\n")


def without_nan(content: Any) -> Any:
    """Replace numbers that are not finite, which JSON cannot represent, by None."""
    if isinstance(content, dict):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, list):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
