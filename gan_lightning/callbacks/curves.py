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
RATES = "learning rates"
ROWS = {  # title of a row -> prefixes of the metrics in it
    "losses": ("train/loss",),
    "gradient penalty of D": ("train/penalty_",),
    "mean output of D": ("train/d_", "val/d_"),
    "norm of the gradients": ("train/grad_norm_",),
    RATES: ("train/lr",),
    "Fréchet distance": ("val/fid", "val/fd_"),
}
WIDTH, ROW_HEIGHT, DPI = 9.6, 2.3, 150  # inches; a page shows the picture about 700 pixels wide
SMOOTHED = 40  # number of points from which curves are smoothed
WINDOW = 0.05  # width of the moving average, relative to the curve


class Curves(Callback):
    """Callback that draws curves.png from metrics.csv when `fit` ends or fails."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the curves."""
        with best_effort("curves.png"):
            self._draw(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Draw the curves up to the failure, when they are most useful."""
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
            figure.savefig(beside, dpi=DPI, format="png")


def make_figure(history: Series, title: str = "") -> Figure | None:
    """Return the figure of `draw_curves`; None if there is nothing to plot."""
    from matplotlib.figure import Figure  # slow to import, and needed once per run

    rows = {
        row: {name: points for name, points in history.items() if name.startswith(starts)}
        for row, starts in ROWS.items()
    }
    rows = {row: series for row, series in rows.items() if series}
    if not rows:
        return None
    ratios = [0.5 if row == RATES else 1 for row in rows]  # learning rates are constant or change slowly
    height = ROW_HEIGHT * sum(ratios) + 0.8
    figure = Figure(figsize=(WIDTH, height))
    figure.suptitle(title.replace("$", r"\$"), fontweight="bold", y=1 - 0.08 / height, va="top")
    axes = figure.subplots(len(rows), 2, squeeze=False, sharex=True, height_ratios=ratios)
    # Fixed margins, with room for the legends: matplotlib's automatic ones take as long as the rest of the picture.
    figure.subplots_adjust(left=0.09, right=0.8, bottom=0.5 / height, top=1 - 0.65 / height, wspace=0.22, hspace=0.2)
    for (row, series), pair in zip(rows.items(), axes, strict=True):
        draw_row(pair, row, series)
    for axis in axes[-1]:
        axis.set_xlabel("generator iterations")
    return figure


def draw_row(axes: Sequence[Any], row: str, series: Series) -> None:
    """Draw metrics of one kind on two axes, linear and logarithmic, with a legend beside them.

    Args:
        axes: Two axes of matplotlib.
        row: Title of the row.
        series: (step, value) pairs by name of the metric.
    """
    linear, logarithmic = axes
    for number, (name, points) in enumerate(series.items()):
        for axis in axes:
            dashed = row == RATES and number > 0  # both networks often have the same rate
            draw_series(axis, name, points, f"C{number % 10}", "--" if dashed else "-")
    lowest = min(value for points in series.values() for _, value in points)
    logarithmic.set_yscale("log" if lowest > 0 else "symlog")
    if lowest > 0:
        name_powers(logarithmic.yaxis)
    if row == RATES:
        linear.set_ylim(bottom=0)
    linear.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
    linear.set_title(row, loc="left", fontsize="medium")
    logarithmic.set_title(f"{row}, logarithmic", loc="left", fontsize="medium")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)  # there is no half step
    # Beside the axes, where it does not hide curves.
    logarithmic.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.02, 1), borderaxespad=0)


def name_powers(axis: Any) -> None:
    """Label a logarithmic axis of matplotlib with plain numbers: 220 and 0.01, not 2.2 x 10^2 and 1e-02."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    axis.set_major_formatter(Plain())
    axis.set_minor_formatter(Plain())


def draw_series(axis: Any, name: str, points: Sequence[tuple[int, float]], color: str, linestyle: str = "-") -> None:
    """Draw a smoothed metric, with the original values behind it and a star at the best one.

    Args:
        axis: Axes of matplotlib.
        name: Name of the metric.
        points: (step, value) pairs.
        color: Color of the curve.
        linestyle: "-" or "--".
    """
    steps, values = zip(*points, strict=True)
    if len(points) < SMOOTHED:
        axis.plot(steps, values, color=color, label=name, linewidth=1.2, marker=".", linestyle=linestyle)
    else:
        axis.plot(steps, values, color=color, linewidth=0.7, alpha=0.3)
        axis.plot(steps, smooth(np.array(values)), color=color, label=name, linewidth=1.4, linestyle=linestyle)
    reached = summarize(name, points)
    if "best_step" in reached and math.isfinite(reached["best"]):
        label = f"best: {reached['best']:.4g} at step {reached['best_step']}"
        axis.plot(reached["best_step"], reached["best"], "*", color=color, markersize=12, label=label)


def smooth(values: NDArray[np.float64], width: int | None = None) -> NDArray[np.float64]:
    """Return the centered moving average of a curve, over fewer values at the ends; NaN is ignored.

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
