"""summary.json: the metrics of a run, how they were measured, what the run cost, and on which hardware."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from gan_lightning.atomic import atomic_path
from gan_lightning.callbacks.best_effort import best_effort
from gan_lightning.hardware import hardware, peak_memory
from gan_lightning.loggers.metrics_file import MetricsFile
from gan_lightning.loggers.wandb import how_it_ended
from gan_lightning.modules.image_batches import count_images

PACKAGES = ("gan-lightning", "torch", "torchvision", "lightning", "torchmetrics", "numpy", "pillow")
HIGHER_IS_BETTER = ("is", "images_per_second", "psnr", "ssim")  # the last part of the name of a metric


class RunSummary(Callback):
    """Write summary.json after each validation and at the end, so that a killed job has one too.

    Its `status` is "running", "finished", "stopped" by a signal, or "failed"; a killed job leaves "running" behind.
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._images_seen = 0
        self._g_steps = 0  # those of the checkpoint where nothing is trained
        self._seconds_before = 0.0  # spent before this run was resumed
        self._status, self._training = "running", False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start the clock."""
        self._started, self._status = time.perf_counter(), "running"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that there is something to summarize."""
        self._training = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the images of the batch; a module without data has an attribute `batch_size`."""
        count = count_images(batch) or int(getattr(pl_module, "batch_size", 0))
        self._images_seen += count * trainer.world_size
        self._g_steps = trainer.global_step

    def state_dict(self) -> dict[str, Any]:
        """Return the images, seconds and steps up to now, for a run that resumes this one."""
        return {"images_seen": self._images_seen, "seconds": self._seconds(), "g_steps": self._g_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue counting."""
        self._images_seen, self._seconds_before = state_dict["images_seen"], state_dict["seconds"]
        self._g_steps = state_dict["g_steps"]

    def _seconds(self) -> float:
        return self._seconds_before + time.perf_counter() - self._started

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the summary up to now."""
        if not trainer.sanity_checking:
            self._write(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the final summary."""
        self._status = "finished"
        self._write(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write how the training has ended: "stopped" by a signal, or "failed"."""
        if not self._training:  # refused: the summary of the run that was to be resumed stays
            return
        self._status, _ = how_it_ended(exception)
        with best_effort("summary.json", Exception):  # an error here would prevent the last checkpoint
            self._write(trainer)

    @rank_zero_only
    def _write(self, trainer: Trainer) -> None:
        history = next((log.history() for log in trainer.loggers if isinstance(log, MetricsFile)), {})
        path = Path(trainer.default_root_dir) / "summary.json"
        before = json.loads(path.read_text())["protocol"] if path.is_file() else {}
        protocols = [before] + [getattr(callback, "protocol", None) for callback in trainer.callbacks]  # type: ignore[attr-defined]
        summary = {
            "status": self._status,
            "metrics": {name: summarize(name, points) for name, points in history.items()},
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


def summarize(name: str, points: Sequence[tuple[int, float]]) -> dict[str, float]:
    """Return the first, best and last value of a metric, and the step of the best; NaN is never the best."""
    higher = name.rsplit("/", 1)[-1] in HIGHER_IS_BETTER
    finite = [(step, value) for step, value in points if math.isfinite(value)] or list(points)
    best_step, best = (max if higher else min)(finite, key=lambda point: point[1])
    return {"first": points[0][1], "best": best, "best_step": best_step, "last": points[-1][1]}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect metrics."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


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
