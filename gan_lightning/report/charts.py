"""Curves of metrics as inline SVG, with the colors and fonts of the page and without a script."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator
from numpy.typing import NDArray

from gan_lightning.report.comparison import Column
from gan_lightning.report.run_folder import Series

AXES: Final = {"steps": "G iterations", "images": "images seen", "seconds": "minutes of training"}
COLORS: Final = 10  # in page.css; then they repeat, with other dashes
DASHES: Final = ("-", (0, (5, 2)), (0, (1, 1.5)))
POINTS: Final = 160  # maximum number of points of a curve, which is about 350 pixels wide
SMOOTHED: Final = 40  # number of points from which a curve is smoothed
WINDOW: Final = 0.05  # width of the moving average, relative to the curve
# Placeholders that are replaced by the colors of the page in the SVG; those of runs are #0001NN.
INK, LINES = "#010203", "#010204"
_SETTINGS: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",  # text, which can be read aloud and searched
    "axes.edgecolor": LINES,
    "axes.labelcolor": INK,
    "xtick.color": LINES,
    "ytick.color": LINES,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": LINES,
    "font.size": 9,
    "path.simplify": True,
    "path.simplify_threshold": 0.3,
}


def chart(column: Column, axis: str, names: Sequence[str]) -> str:
    """Draw the curve of each run.

    Args:
        column: The metric, in the runs that measured it.
        axis: The x-axis, a key of `AXES`.
        names: Names of all runs, for screen readers.

    Returns:
        An SVG element; empty if no run has values on that axis.
    """
    # Names within an SVG are hashes: reproducible, and different in each chart of the page.
    with mpl.rc_context({**_SETTINGS, "svg.hashsalt": f"{column.title} {axis}"}):
        axes = _empty_axes(_is_logarithmic(column), axis)
        drawn = [run for run, series in column.series.items() if _draw(axes, column, run, series, axis)]
        if not drawn:
            return ""
        axes.relim()
        axes.autoscale()
        file, figure = io.StringIO(), axes.get_figure(root=True)
        assert figure is not None
        figure.savefig(
            file, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    ends = ", ".join(f"{names[run]} {column.last(run):.4g}" for run in drawn)
    return _for_page(file.getvalue(), f"{column.title} against {AXES[axis]}; last values: {ends}")


def _empty_axes(logarithmic: bool, axis: str) -> Axes:
    """Return axes without curves, reusing those of the last chart of this kind, because creating ticks is slow."""
    axes = _make_axes(logarithmic, axis)
    for line in list(axes.lines):
        line.remove()
    return axes


@cache
def _make_axes(logarithmic: bool, axis: str) -> Axes:
    axes = Figure(figsize=(4.6, 2.7)).add_axes((0.13, 0.165, 0.855, 0.80))
    if logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(LogFormatter())  # 220, not 2.2 x 10^2
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=axis != "seconds"))
    axes.set_xlabel(AXES[axis])
    axes.grid(alpha=0.35, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.02)
    return axes


def _is_logarithmic(column: Column) -> bool:
    values = np.array([value for series in column.series.values() for value in series.values if math.isfinite(value)])
    return bool(len(values) and values.min() > 0 and values.max() > 30 * values.min())


def _draw(axes: Axes, column: Column, run: int, series: Series, axis: str) -> bool:
    """Draw the raw curve of a run, the smoothed one over it, and the best value. Return whether there are any."""
    x = np.array(getattr(series, axis)) / (60 if axis == "seconds" else 1)
    y = np.array(series.values)
    shown = np.isfinite(x) & np.isfinite(y)
    x, y = x[shown], y[shown]
    if not len(x):
        return False
    color, dash = f"#0001{run % COLORS:02x}", DASHES[run // COLORS % len(DASHES)]
    group = f"run-{run}"
    long = len(y) >= SMOOTHED
    if long:
        axes.plot(*thinned(x, y), color=color, linewidth=0.8, alpha=0.3, gid=group)
    line = axes.plot(*thinned(x, smoothed(y) if long else y), color=color, linewidth=1.6, linestyle=dash, gid=group)[0]
    if len(y) == 1:
        line.set_marker("o")
        line.set_markersize(5)
    best = column.best(run)
    if best is not None and len(y) > 1 and not column.metric.startswith("train/"):
        place = int(np.flatnonzero(y == best[0])[0]) if best[0] in y else None
        if place is not None:
            axes.plot(x[place], y[place], "o", color=color, markersize=5.5, markeredgewidth=0, gid=group)
    return True


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the moving average of values, over a window that is truncated at both ends."""
    half = max(1, round(WINDOW * len(values) / 2))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    start, stop = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    means: NDArray[np.float64] = (sums[stop] - sums[start]) / (stop - start)
    return means


def thinned(
    x: NDArray[np.float64], y: NDArray[np.float64], points: int = POINTS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a curve with fewer points: the lowest and the highest of each section, so that no peak is lost."""
    if len(x) <= points:
        return x, y
    edges = np.linspace(1, len(x) - 1, points // 2, dtype=int)
    kept = {0, len(x) - 1}
    for start, stop in pairwise(edges.tolist()):
        kept |= {start + int(y[start:stop].argmin()), start + int(y[start:stop].argmax())}
    places = sorted(kept)
    return x[places], y[places]


def _for_page(svg: str, label: str) -> str:
    """Return an SVG of matplotlib as a part of a page: in the page's colors, without URLs."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(xmlns(:\w+)?|width|height|version)="[^"]*"', "", svg, count=5)
    svg = re.sub(r'(?<= d=")[^"]*', lambda path: re.sub(r"(\.\d)\d+", r"\1", path[0]), svg)  # tenths of a point
    svg = re.sub(r'id="(run-\d+)"', r'class="\1"', svg)
    svg = re.sub(r' id="(figure|axes|patch|matplotlib\.axis|[xy]tick|line2d|text|spine)_\d+"', "", svg)
    svg = re.sub(r"#0001([0-9a-f]{2})", lambda found: f"var(--run-{int(found[1], 16)})", svg)
    svg = svg.replace(INK, "var(--ink)").replace(LINES, "var(--lines)")
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    label = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1).strip()
