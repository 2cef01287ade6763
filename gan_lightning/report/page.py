"""The content of each part of the page, for the template."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from gan_lightning.report.command import MARK
from gan_lightning.report.comparison import Column, columns, differences, differing
from gan_lightning.report.pictures import BUDGET, read_grids, read_panels
from gan_lightning.report.run_folder import Run

FOLDER = Path(__file__).parent
SPREADS = ("_median", "_worst", "_degraded", "_hole")  # suffixes of metrics that are shown below the table


@dataclass(frozen=True)
class Chart:
    """The curves of a metric, as SVG by axis."""

    column: Column
    svgs: dict[str, Markup]


@dataclass(frozen=True)
class Group:
    """Runs that can be compared: those that train, or those that restore.

    Attributes:
        title: Title of the group.
        numbers: Numbers of its runs among all runs.
        runs: The runs.
        differences: Options that differ between them.
        best: Metrics that have a best value.
        others: All other metrics.
    """

    title: str
    numbers: list[int]
    runs: list[Run]
    differences: list[Any]
    best: list[Column]
    others: list[Column]

    @property
    def protocols(self) -> list[tuple[Column, set[str]]]:
        """Columns with a protocol, or with a letter although it is unknown, and the parts in which protocols differ."""
        found = []
        for column in self.best:
            same_metric = [other.protocol for other in self.best if other.metric == column.metric and other.protocol]
            if column.protocol or column.letter:
                found.append((column, differing(same_metric)))
        return found


def make_page(runs: Sequence[Run], left_out: Sequence[str], title: str | None = None) -> str:
    """Return a page that compares runs.

    Args:
        runs: The runs; unreadable parts are added to their notes.
        left_out: Reasons for leaving out other folders.
        title: Heading of the page; None for the number of runs.
    """
    panels = [read_panels(run) for run in runs]
    left = BUDGET - sum(len(panel.data) * 3 // 4 for of_run in panels for panel in of_run)
    with ThreadPoolExecutor(1) as beside:  # pictures are decoded without the interpreter's lock
        reading = beside.submit(read_grids, runs, left)
        from gan_lightning.report.charts import AXES, COLORS, DASHES  # slow to import, because of Matplotlib

        found = columns(runs)
        charts = _charts(found, [run.name for run in runs])
        grids = reading.result()
    groups = [
        _group(title, found, [(number, run) for number, run in enumerate(runs) if run.restores is restores])
        for title, restores in (("Training", False), ("Restoration", True))
    ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number": number, "duration": duration, "count": count}
    return environment.get_template("page.html.j2").render(
        mark=Markup(MARK),
        title=title or f"{len(runs)} run{'s' * (len(runs) > 1)}",
        runs=runs,
        left_out=left_out,
        groups=[group for group in groups if group.runs],
        charts=charts,
        axes=AXES,
        grids=grids,
        steps=sorted({picture.step for of_run in grids for picture in of_run.samples}),
        panels=panels,
        colors=COLORS,
        dashes=len(DASHES),
        css=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        js=Markup((FOLDER / "page.js").read_text(encoding="utf-8")),
    )


def _group(title: str, found: Sequence[Column], members: Sequence[tuple[int, Run]]) -> Group:
    numbers, runs = [number for number, _ in members], [run for _, run in members]
    own = [column for column in found if column.series.keys() & {*numbers}]
    best = [column for column in own if _is_result(column)]
    return Group(title, numbers, runs, differences(runs), best, [column for column in own if column not in best])


def _is_result(column: Column) -> bool:
    of_training = column.metric.startswith("train/")
    return column.direction is not None and not of_training and not column.metric.endswith(SPREADS)


def _charts(found: Sequence[Column], names: Sequence[str]) -> list[Chart]:
    """Draw all metrics that change, results first."""
    from gan_lightning.report.charts import AXES, chart

    drawn = []
    for column in sorted(found, key=lambda column: not _is_result(column)):
        values = {value for series in column.series.values() for value in series.values if math.isfinite(value)}
        if len(values) > 1 and any(len(series.values) > 1 for series in column.series.values()):
            svgs = {axis: Markup(svg) for axis in AXES if (svg := chart(column, axis, names))}
            drawn += [Chart(column, svgs)] if svgs and not _is_constant(column) else []
    return drawn


def _is_constant(column: Column) -> bool:
    """Return whether a metric is constant in each run, like some learning rates, for which a table is clearer."""
    return all(len(set(series.values)) == 1 for series in column.series.values())


def number(value: float | None) -> str:
    """Return a number with four significant digits, or a dash for None."""
    if value is None:
        return "—"
    if not math.isfinite(value):
        return "not finite"
    text = f"{value:.4g}"
    return re.sub(r"e([+-])0*", r"e\1", text).replace("e+", "e").replace("-", "\N{MINUS SIGN}")


def count(value: Any) -> str:
    """Return a whole number with separators, or a dash for None."""
    return f"{value:,}" if isinstance(value, int) else "—"


def duration(seconds: Any) -> str:
    """Return seconds as "1 h 5 min", "12 min" or "40 s", or a dash for None."""
    if not isinstance(seconds, int | float):
        return "—"
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
