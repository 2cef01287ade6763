"""Reading of a run folder, as far as possible."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gan_lightning.file_names import printable

GRID = re.compile(r"step-(\d+)\.png")
FILES = ("config.yaml", "metrics.csv", "summary.json")  # a folder without any of them is not a run
CLOCK = "train/images_per_second"


@dataclass(frozen=True)
class Series:
    """The values of a metric in chronological order.

    Attributes:
        steps: Number of generator iterations at each value.
        images: Number of images seen so far; NaN if unknown.
        seconds: Seconds of training so far; NaN if unknown.
        values: The values, which include NaN if the run has diverged.
    """

    steps: list[float] = field(default_factory=list)
    images: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


@dataclass
class Run:
    """A run.

    Attributes:
        folder: Run folder.
        name: Short name, unique in the report.
        config: Options by their dotted names; empty if there is no config.yaml.
        metrics: Values of each metric.
        summary: Content of summary.json; empty if there is none.
        grids: Step and path of each grid of samples.
        restorations: Panels of restored images.
        notes: Sentences about missing or damaged parts.
    """

    folder: Path
    name: str
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Series] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    grids: list[tuple[int, Path]] = field(default_factory=list)
    restorations: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def restores(self) -> bool:
        """Whether the run is a restoration, and not a training or an evaluation of samples."""
        return bool(self.restorations) or str(self.config.get("model.class_path", "")).endswith("LatentRestoration")

    def protocol(self, metric: str) -> dict[str, Any]:
        """Return the protocol of a metric; empty if unknown."""
        found = self.summary.get("protocol")
        of_metric = found.get(metric) if isinstance(found, dict) else None
        return dict(of_metric) if isinstance(of_metric, dict) else {}


def read_runs(folders: Sequence[str | os.PathLike[str]]) -> tuple[list[Run], list[str]]:
    """Read runs.

    Args:
        folders: Run folders; duplicates are ignored.

    Returns:
        The runs, and the reason for leaving out each of the other folders.
    """
    runs: list[Run] = []
    left_out: list[str] = []
    paths = dict.fromkeys(Path(os.path.abspath(Path(folder).expanduser())) for folder in folders)
    for path, name in zip(paths, short_names(list(paths)), strict=True):
        if not path.exists():
            left_out.append(f"{printable(path)} does not exist.")
        elif not path.is_dir():
            left_out.append(f"{printable(path)} is a file: give the folder of a run.")
        elif not any((path / file).is_file() for file in FILES):
            left_out.append(f"{printable(path)} is no run: it holds neither {FILES[0]} nor {FILES[1]} nor {FILES[2]}.")
        else:
            runs.append(read_run(path, name))
    return runs, left_out


def read_run(folder: Path, name: str) -> Run:
    """Read a run as far as possible; missing and damaged parts are noted."""
    run = Run(folder, name)
    run.config = _read(run, "config.yaml", lambda text: flatten(_mapping(yaml.safe_load(text)))) or {}
    run.summary = _read(run, "summary.json", lambda text: _mapping(json.loads(text))) or {}
    run.metrics = _read(run, "metrics.csv", lambda text: read_metrics(text, run.notes)) or {}
    found = ((GRID.fullmatch(path.name), path) for path in sorted((folder / "samples").glob("step-*.png")))
    run.grids = sorted((int(match[1]), path) for match, path in found if match)
    run.restorations = sorted((folder / "panel").glob("*.png")) or sorted(folder.glob("panels.png"))
    return run


def read_metrics(text: str, notes: list[str]) -> dict[str, Series]:
    """Read the text of a metrics.csv.

    Args:
        text: The text. An incomplete last line and damaged lines are left out.
        notes: List to which notes about such lines are added.

    Returns:
        Values by metric.
    """
    rows = list(csv.reader(io.StringIO(text)))
    if len(rows) == 1 and not text.endswith(("\n", "\r")):
        notes.append("metrics.csv ends in the middle of its first line.")
        return {}
    if not rows or "step" not in rows[0]:
        raise ValueError("it has no column `step`")
    header, *rows = rows
    whole: list[dict[str, float]] = []
    for number, row in enumerate(rows, start=2):
        is_cut = number == len(rows) + 1 and not text.endswith(("\n", "\r"))
        try:
            if is_cut or len(row) != len(header):
                raise ValueError
            values = {name: float(value) for name, value in zip(header, row, strict=True) if value}
            whole.append({"step": values["step"], **values})
        except (ValueError, KeyError):
            what = "ends in the middle of a line, which is" if is_cut else f"has a damaged line, {number}, which is"
            notes.append(f"metrics.csv {what} left out.")
    return _series(whole)


def _series(rows: Iterable[Mapping[str, float]]) -> dict[str, Series]:
    metrics: dict[str, Series] = {}
    seconds, seen = 0.0, math.nan
    for row in rows:
        images, rate = row.get("images_seen", math.nan), row.get(CLOCK, math.nan)
        if rate > 0 and not math.isnan(images):  # the mean since the row with the last rate
            seconds += (images - (0 if math.isnan(seen) else seen)) / rate
            seen = images
        for name, value in row.items():
            if name in ("step", "images_seen", "epoch"):
                continue
            series = metrics.setdefault(name, Series())
            series.steps.append(row["step"])
            series.images.append(images)
            series.seconds.append(seconds if seen == seen or row["step"] == 0 else math.nan)
            series.values.append(value)
    return metrics


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by their dotted names, without `init_args`."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        name = prefix if key == "init_args" else f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, dict) and value:
            flat |= flatten(value, name)
        else:
            flat[name] = value
    return flat


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return the last parts of paths, as many as make all of them unique."""
    names: list[str] = []
    for path in paths:
        others = [other.parts[::-1] for other in paths if other != path]
        parts = path.parts[::-1]
        count = next((n for n in range(1, len(parts)) if parts[:n] not in [other[:n] for other in others]), len(parts))
        names.append(printable("/".join(parts[:count][::-1])))
    return names


def _read(run: Run, file: str, parse: Any) -> Any:
    """Return the content of a file of a run, or None, with a note, if it is missing or damaged."""
    path = run.folder / file
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        run.notes.append(f"{file} is missing.")
    except OSError as error:
        run.notes.append(f"{file} cannot be read ({error.strerror}).")
    except (ValueError, yaml.YAMLError, csv.Error) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else "damaged"
        run.notes.append(f"{file} cannot be read ({reason}).")
    return None


def _mapping(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError("it holds no mapping")
    return content
