"""Training curves in one picture, with linear and logarithmic axes side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from gan_lightning.atomic import atomic_path
from gan_lightning.callbacks.best_effort import best_effort
from gan_lightning.loggers.metrics_file import MetricsFile

Series = Mapping[str, Sequence[tuple[int, float]]]
ROWS = {  # title of a row -> prefixes of the metrics in it
    "losses": ("train/loss_",),
    "mean output of the discriminator": ("train/d_", "val/d_"),
    "Fréchet distance": ("val/fid", "val/fd_"),
}


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
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile) and (history := logger.history()):
                draw_curves(history, Path(trainer.default_root_dir) / "curves.png")


def draw_curves(history: Series, path: Path) -> None:
    """Plot losses, discriminator outputs and Frechet distances against steps, on linear and logarithmic axes.

    Args:
        history: (step, value) pairs by name of the metric.
        path: PNG file to write; not written if there is nothing to plot.
    """
    from matplotlib.figure import Figure  # slow to import, and needed once per run
    from matplotlib.ticker import LogFormatter

    rows = {
        title: {name: points for name, points in history.items() if name.startswith(starts)}
        for title, starts in ROWS.items()
    }
    rows = {title: series for title, series in rows.items() if series}
    if not rows:
        return
    height = 3.2 * len(rows)
    figure = Figure(figsize=(11, height))
    axes = figure.subplots(len(rows), 2, squeeze=False)
    # Fixed margins: matplotlib's automatic ones take as long as the rest of the picture.
    figure.subplots_adjust(left=0.06, right=0.985, bottom=0.5 / height, top=1 - 0.3 / height, wspace=0.15, hspace=0.35)
    for (title, series), (linear, logarithmic) in zip(rows.items(), axes, strict=True):
        for name, points in series.items():
            steps, values = zip(*points, strict=True)
            marker = "." if len(points) < 30 else None
            for axis in (linear, logarithmic):
                axis.plot(steps, values, label=name, linewidth=1, marker=marker)
        lowest = min(value for points in series.values() for _, value in points)
        logarithmic.set_yscale("log" if lowest > 0 else "symlog")
        if lowest > 0:
            logarithmic.yaxis.set_major_formatter(LogFormatter())  # 220, not 2.2 x 10^2
            logarithmic.yaxis.set_minor_formatter(LogFormatter())
        linear.set_title(title, loc="left")
        logarithmic.set_title(f"{title}, logarithmic", loc="left")
        for axis in (linear, logarithmic):
            axis.grid(alpha=0.3)
            axis.set_xlabel("generator iterations")
        linear.legend(fontsize="small")
    with atomic_path(path) as beside:
        figure.savefig(beside, dpi=110, format="png")
