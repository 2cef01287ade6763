"""Training curves in one picture, with linear and logarithmic axes side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray

from gan_lightning.atomic import atomic_path
from gan_lightning.callbacks.best_effort import best_effort
from gan_lightning.callbacks.summary import summarize
from gan_lightning.loggers.metrics_file import MetricsFile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Series = Mapping[str, Sequence[tuple[int, float]]]
ROWS = {  # title of a row -> prefixes of the metrics in it
    "losses": ("train/loss",),
    "mean output of the discriminator": ("train/d_", "val/d_"),
    "norm of the gradients": ("train/grad_norm_",),
    "learning rates": ("train/lr",),
    "Fréchet distance": ("val/fid", "val/fd_"),
}
SMOOTHED = 40  # number of points from which on curves are smoothed
WINDOW = 0.05  # of a curve: width of the moving average


class Curves(Callback):
    """Draw curves.png from metrics.csv when `fit` ends or fails."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the curves."""
        with best_effort("curves.png"):
            self._draw(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Draw the curves up to the failure, where they are needed most."""
        with best_effort("curves.png", Exception):  # an error here would prevent the last checkpoint
            self._draw(trainer)

    @rank_zero_only
    def _draw(self, trainer: Trainer) -> None:
        folder = Path(trainer.default_root_dir)
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile) and (history := logger.history()):
                draw_curves(history, folder / "curves.png", folder.resolve().name)


def draw_curves(history: Series, path: Path, title: str = "") -> None:
    """Plot losses, outputs, gradients, learning rates and distances against steps, on linear and logarithmic axes.

    Args:
        history: (step, value) pairs by name of the metric.
        path: PNG file to write; not written if there is nothing to plot.
        title: Name of the run.
    """
    if (figure := make_figure(history, title)) is not None:
        with atomic_path(path) as beside:
            figure.savefig(beside, dpi=110, format="png")


def make_figure(history: Series, title: str = "") -> Figure | None:
    """Return the figure of `draw_curves`; None if there is nothing to plot."""
    from matplotlib.figure import Figure  # slow to import, and needed once per run
    from matplotlib.ticker import LogFormatter

    rows = {
        row: {name: points for name, points in history.items() if name.startswith(starts)}
        for row, starts in ROWS.items()
    }
    rows = {row: series for row, series in rows.items() if series}
    if not rows:
        return None
    height = 2.9 * len(rows) + 0.4
    figure = Figure(figsize=(13, height))
    figure.suptitle(title.replace("$", r"\$"), fontweight="bold", y=1 - 0.08 / height, va="top")
    axes = figure.subplots(len(rows), 2, squeeze=False, sharex=True)
    # Fixed margins, with room for the legends: matplotlib's automatic ones take as long as the rest of the picture.
    figure.subplots_adjust(left=0.05, right=0.81, bottom=0.5 / height, top=1 - 0.7 / height, wspace=0.14, hspace=0.17)
    for (row, series), (linear, logarithmic) in zip(rows.items(), axes, strict=True):
        for number, (name, points) in enumerate(series.items()):
            for axis in (linear, logarithmic):
                draw_series(axis, name, points, f"C{number % 10}")
        lowest = min(value for points in series.values() for _, value in points)
        logarithmic.set_yscale("log" if lowest > 0 else "symlog")
        if lowest > 0:
            logarithmic.yaxis.set_major_formatter(LogFormatter())  # 220, not 2.2 x 10^2
            logarithmic.yaxis.set_minor_formatter(LogFormatter())
        linear.set_title(row, loc="left")
        logarithmic.set_title(f"{row}, logarithmic", loc="left")
        for axis in (linear, logarithmic):
            axis.grid(alpha=0.3)
            axis.xaxis.get_major_locator().set_params(integer=True)  # there is no half step
        # Beside the axes, where it hides nothing.
        logarithmic.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
    for axis in axes[-1]:
        axis.set_xlabel("generator iterations")
    return figure


def draw_series(axis: Any, name: str, points: Sequence[tuple[int, float]], color: str) -> None:
    """Draw a metric: smoothed, with the values themselves behind, and a star at the best one.

    Args:
        axis: Axes of matplotlib.
        name: Name of the metric.
        points: (step, value) pairs.
        color: Color of the curve.
    """
    steps, values = zip(*points, strict=True)
    if len(points) < SMOOTHED:
        axis.plot(steps, values, color=color, label=name, linewidth=1.2, marker=".")
    else:
        axis.plot(steps, values, color=color, linewidth=0.7, alpha=0.3)
        axis.plot(steps, smooth(np.array(values)), color=color, label=name, linewidth=1.4)
    reached = summarize(name, points)
    if "best_step" in reached and math.isfinite(reached["best"]):
        label = f"best: {reached['best']:.4g} at step {reached['best_step']}"
        axis.plot(reached["best_step"], reached["best"], "*", color=color, markersize=12, label=label)


def smooth(values: NDArray[np.float64], width: int | None = None) -> NDArray[np.float64]:
    """Return the moving average of a curve, centered, and over fewer values at the ends; NaN is left out of it.

    Args:
        values: (N,) values.
        width: Odd number of values to average; by default a twentieth of them.
    """
    width = width or 2 * round(WINDOW * len(values) / 2) + 1
    finite = np.isfinite(values)
    window = np.ones(width)
    total = np.convolve(np.where(finite, values, 0.0), window, mode="full")
    count = np.convolve(finite.astype(float), window, mode="full")
    start = width // 2
    with np.errstate(invalid="ignore", divide="ignore"):
        average: NDArray[np.float64] = (total / count)[start : start + len(values)]
    return average
