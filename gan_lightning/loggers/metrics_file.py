"""The logger that every run has: metrics.csv in the run folder."""

from __future__ import annotations

import csv
import io
import os
import shutil
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from gan_lightning.atomic import atomic_path
from gan_lightning.errors import StorageError
from gan_lightning.loggers.metrics_experiment import MetricsExperiment


class MetricsFile(Logger):
    """Logger that writes metrics to `metrics.csv`: one row per call, one column per name, `step` first.

    Lightning's CSVLogger deletes the file of a resumed run; this logger appends to it.

    Attributes:
        in_each_row: Function that returns additional values for each row, such as the number of images seen.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Open the file of a run, or start a new one.

        Args:
            folder: Run folder, which contains the file.
        """
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self._columns: list[str] = []
        self._step = 0  # of the last row
        self._experiment = MetricsExperiment(self.log_metrics)
        self.rows = 0  # number of rows in the file
        self.in_each_row: Callable[[], Mapping[str, float]] = dict
        if self.path.is_file():
            with self.path.open(newline="") as file:
                self._columns = next(csv.reader(file), [])
                for row in csv.reader(file):
                    self.rows += 1
                    self._step = int(row[0]) if row and row[0].isdigit() else self._step

    @property
    def name(self) -> str:
        """Empty, as the logger has no folder of its own below the run folder."""
        return ""

    @property
    def version(self) -> str:
        """Empty, as the logger has no folder of its own below the run folder."""
        return ""

    @property
    def save_dir(self) -> str:
        """Run folder."""
        return str(self.path.parent)

    @property
    @rank_zero_experiment
    def experiment(self) -> MetricsExperiment:
        """Object that logs numbers, like those of TensorBoard and W&B, and ignores everything else."""
        return self._experiment

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing, because config.yaml in the run folder has all hyperparameters."""

    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        """Do nothing, because the pictures of a run are files in its folder."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row.

        Args:
            metrics: Values by name.
            step: Number of generator iterations so far; None for that of the last row.

        Raises:
            StorageError: If the file cannot be written, for example on a full disk. It is left unchanged.
        """
        self._step = self._step if step is None else step
        row = {"step": self._step, **self.in_each_row(), **metrics}
        new = [name for name in row if name not in self._columns]
        try:
            if new:
                self._write([*self._rows(), row], self._columns + new)
            else:
                self._append(row)
        except OSError as error:
            raise StorageError(
                f"{self.path} could not be written ({error.strerror}): free disk space and resume with --ckpt_path last"
            ) from error
        self.rows += 1

    def _append(self, row: Mapping[str, Any]) -> None:
        line = io.StringIO(newline="")
        csv.DictWriter(line, self._columns).writerow(row)
        with self.path.open("ab", buffering=0) as file:
            end, content = file.tell(), line.getvalue().encode()
            try:
                written = file.write(content)  # in a single call, so that a kill leaves no partial row
                if written < len(content):  # writing the rest raises the reason
                    file.write(content[written:])
            except OSError:
                file.truncate(end)
                raise

    def _write(self, rows: Sequence[Mapping[str, Any]], columns: list[str]) -> None:
        with atomic_path(self.path) as beside, beside.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        self._columns = columns

    def _rows(self) -> list[dict[str, str]]:
        if not self.path.is_file():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def rewind(self, rows: int | None, step: int | None = None) -> None:
        """Remove the rows that a resumed run will write again, and the columns that only they used.

        The former file is kept as metrics-before-resume-N.csv.

        Args:
            rows: Number of rows to keep, from the first one; None for all.
            step: Last step whose rows are kept if `rows` is None; None for all.
        """
        present = self._rows()
        kept = present[:rows] if step is None or rows is not None else [r for r in present if int(r["step"]) <= step]
        if len(kept) < len(present):
            aside = next(
                p for n in count(1) if not (p := self.path.with_name(f"metrics-before-resume-{n}.csv")).exists()
            )
            shutil.copyfile(self.path, aside)
            self._write(kept, [name for name in self._columns if name == "step" or any(row[name] for row in kept)])
            self.rows = len(kept)

    def history(self) -> dict[str, list[tuple[int, float]]]:
        """Return the steps and values of each metric, in the order of logging."""
        series: dict[str, list[tuple[int, float]]] = {}
        for row in self._rows():
            for name, value in row.items():
                if name != "step" and value:
                    series.setdefault(name, []).append((int(row["step"]), float(value)))
        return series
