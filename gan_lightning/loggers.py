"""The logger that every run has: metrics.csv in the run folder."""

from __future__ import annotations

import csv
import os
from argparse import Namespace
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from gan_lightning.atomic import atomic_path


class MetricsFile(Logger):
    """Writes every logged figure to `metrics.csv`: a row for a call, a column for a name, `step` first.

    Lightning's CSVLogger deletes the file that a resumed run finds; this one goes on with it.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Take up the file in a folder, or begin it.

        Args:
            folder: The run folder.
        """
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self._columns: list[str] = []
        if self.path.is_file():
            with self.path.open(newline="") as file:
                self._columns = next(csv.reader(file), [])

    @property
    def name(self) -> str:
        """No folder of its own below the run folder."""
        return ""

    @property
    def version(self) -> str:
        """No folder of its own below the run folder."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml in the run folder has them all."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row.

        Args:
            metrics: Figures by name.
            step: G iterations done.
        """
        row = {"step": step, **metrics}
        new = [name for name in row if name not in self._columns]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if new:
            self._widen(new)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def _widen(self, new: list[str]) -> None:
        rows = self._rows()
        self._columns += new
        self._write(rows)

    def _write(self, rows: list[dict[str, str]]) -> None:
        with atomic_path(self.path) as beside, beside.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)

    def _rows(self) -> list[dict[str, str]]:
        if not self.path.is_file():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def rewind(self, step: int) -> None:
        """Take out the rows after a step, from which a run goes on; the file as it was is kept beside.

        Args:
            step: G iterations done.
        """
        rows = self._rows()
        kept = [row for row in rows if int(row["step"]) <= step]
        if len(kept) < len(rows):
            aside = next(
                p for n in count(1) if not (p := self.path.with_name(f"metrics-before-resume-{n}.csv")).exists()
            )
            self.path.rename(aside)
            self._write(kept)

    def history(self) -> dict[str, list[tuple[int, float]]]:
        """Read the file back: for each name its steps and values, in the order they were logged."""
        series: dict[str, list[tuple[int, float]]] = {}
        for row in self._rows():
            for name, value in row.items():
                if name != "step" and value:
                    series.setdefault(name, []).append((int(row["step"]), float(value)))
        return series
