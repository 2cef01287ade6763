"""The default callbacks of a training, on the command line and in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning import Callback
from lightning.pytorch.callbacks import ModelSummary
from lightning.pytorch.callbacks.progress.progress_bar import ProgressBar as BaseProgressBar

from gan_lightning.callbacks.curves import Curves
from gan_lightning.callbacks.evaluation import GenerationMetrics
from gan_lightning.callbacks.network_table import NetworkTable
from gan_lightning.callbacks.progress import ProgressBar
from gan_lightning.callbacks.samples import SampleGrid, SampleWriter
from gan_lightning.callbacks.summary import RunSummary
from gan_lightning.callbacks.watch import Watch
from gan_lightning.resume.best_checkpoint import BestCheckpoint
from gan_lightning.resume.last_checkpoint import LastCheckpoint
from gan_lightning.resume.rank_watch import RankWatch

CONFIGURABLE: Mapping[str, type[Callback]] = {  # key on the command line -> callback with the options below this key
    "evaluation": GenerationMetrics,
    "sample_grid": SampleGrid,
    "watch": Watch,
    "checkpoint": BestCheckpoint,
    "last_checkpoint": LastCheckpoint,
}
BEST_CHECKPOINT: Mapping[str, Any] = {"filename": "best", "enable_version_counter": False}


def reports() -> list[Callback]:
    """Return the callbacks without options: curves.png, samples of `predict`, summary.json."""
    return [Curves(), SampleWriter(), RunSummary()]


def displays(given: Sequence[Callback], *, progress_bar: bool, model_summary: bool) -> list[Callback]:
    """Return the progress bar and the table of the networks, unless others are given.

    Args:
        given: The other callbacks.
        progress_bar: Whether to add a progress bar.
        model_summary: Whether to add a table.
    """
    wanted = ((progress_bar, BaseProgressBar, ProgressBar), (model_summary, ModelSummary, NetworkTable))
    return [ours() for asked, kind, ours in wanted if asked and not any(isinstance(one, kind) for one in given)]


def default_callbacks(
    evaluation: GenerationMetrics | None,
    *,
    sample_grid: SampleGrid | None = None,
    watch: Watch | None = None,
    monitor: tuple[str, str] | None = None,
    every_n_steps: int | None = None,
    progress_bar: bool = True,
) -> list[Callback]:
    """Return the callbacks of `gan-lightning fit`, for your own Trainer.

    They write to the trainer's `default_root_dir`: best.ckpt and last.ckpt, grids of samples, summary.json, and
    curves.png if the trainer logs to a `MetricsFile` there.

    Args:
        evaluation: Metrics at each validation, such as `GenerationMetrics(extractor="random")`, which need a data
            module of this package. None for no metrics.
        sample_grid: Grids of samples; by default of 64 samples.
        watch: Warnings about failures of a GAN; `Watch(stop=True)` stops the training at the first one.
        monitor: Metric by which best.ckpt is chosen, and "min" or "max"; by default the first of `evaluation`. Without
            either, best.ckpt is the checkpoint of the last validation.
        every_n_steps: Number of steps after which last.ckpt is also written between validations.
        progress_bar: Whether to show a progress bar; set it to False with `Trainer(enable_progress_bar=False)`.
    """
    if monitor is None and evaluation is not None:
        name, mode = evaluation.monitored(evaluation.metrics, evaluation.extractor)
    else:
        name, mode = monitor or (None, "min")
    given = [evaluation] if evaluation is not None else []
    best = BestCheckpoint(monitor=name, mode=mode, save_on_train_epoch_end=False, **BEST_CHECKPOINT)
    bar = [ProgressBar()] if progress_bar else []
    return [
        RankWatch(),
        *given,
        sample_grid or SampleGrid(),
        watch or Watch(),
        *reports(),
        *bar,
        best,
        LastCheckpoint(every_n_steps),
    ]
