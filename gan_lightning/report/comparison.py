"""Comparison of runs: options that differ, and metrics with the same protocol."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from gan_lightning.directions import better
from gan_lightning.report.run_folder import Run, Series

# Options that describe the environment of a run and do not affect its results.
PLACES: Final[tuple[str, ...]] = (
    "name",
    "ckpt_path",
    "trainer.default_root_dir",
    "trainer.logger",
    "checkpoint.dirpath",
    "checkpoint.filename",
    "evaluation.cache_dir",
    "data.cache_dir",
)
# Parts of a protocol about the network or the software that do not prevent a comparison.
BESIDE_THE_POINT = ("ema_decay", "ema_half_life", "torchmetrics")
# Restorations are comparable if these options are equal, because they describe what was restored.
OF_RESTORATION = ("data.", "model.degradation", "model.noise", "model.masks", "trainer.limit_test_batches")
ABSENT = object()


@dataclass(frozen=True)
class Difference:
    """An option that differs between runs: its dotted name, and its value in each run as text."""

    option: str
    values: list[str]


@dataclass(frozen=True)
class Column:
    """A metric in the runs that measured it with the same protocol.

    Attributes:
        metric: Name of the metric.
        letter: Letter of the protocol, if there are several; empty otherwise.
        protocol: The protocol; empty if unknown.
        series: Values by the number of the run.
    """

    metric: str
    letter: str
    protocol: dict[str, Any]
    series: dict[int, Series]

    @property
    def title(self) -> str:
        """Name of the metric, with the letter of its protocol if there are several."""
        return f"{self.metric} (protocol {self.letter})" if self.letter else self.metric

    @property
    def direction(self) -> str | None:
        """Direction of the best value, "min" or "max"; None if the metric has no best value."""
        return better(self.metric)

    @property
    def once(self) -> bool:
        """Whether each run measured the metric only once, so that the best value is the last one."""
        return all(len(series.values) == 1 for series in self.series.values())

    def best(self, run: int) -> tuple[float, float] | None:
        """Return the best value of a run and its step, or None."""
        series = self.series.get(run)
        if series is None or self.direction is None:
            return None
        pairs = [pair for pair in zip(series.values, series.steps, strict=True) if math.isfinite(pair[0])]
        return (min if self.direction == "min" else max)(pairs, key=lambda pair: pair[0]) if pairs else None

    def last(self, run: int) -> float | None:
        """Return the last value of a run, or None."""
        return self.series[run].values[-1] if run in self.series else None

    def winner(self) -> int | None:
        """Return the run with the best value of all; None if there is only one run or no best value."""
        found = [(best[0], run) for run in self.series if (best := self.best(run)) is not None]
        if len(found) < 2:
            return None
        return (min if self.direction == "min" else max)(found, key=lambda pair: pair[0])[1]


def differences(runs: Sequence[Run]) -> list[Difference]:
    """Return the options that differ between runs; runs without options have no values."""
    known = [run.config for run in runs if run.config]
    names = dict.fromkeys(name for config in known for name in config)
    found = []
    for name in names:
        if name in PLACES or len({_text(config.get(name, ABSENT)) for config in known}) < 2:
            continue
        found.append(Difference(name, [_text(run.config.get(name, ABSENT)) if run.config else "?" for run in runs]))
    return found


def columns(runs: Sequence[Run]) -> list[Column]:
    """Return a column for each metric and protocol, so that all values in a column can be compared."""
    found: list[Column] = []
    for metric in dict.fromkeys(name for run in runs for name in run.metrics):
        groups: dict[str, tuple[dict[str, Any], dict[int, Series]]] = {}
        for number, run in enumerate(runs):
            if metric in run.metrics:
                protocol = protocol_of(run, metric)
                key = json.dumps(
                    {k: v for k, v in protocol.items() if k not in BESIDE_THE_POINT}, sort_keys=True, default=str
                )
                groups.setdefault(key, (protocol, {}))[1][number] = run.metrics[metric]
        letters = [chr(65 + place) if place < 26 else str(place) for place in range(len(groups))]
        for letter, (protocol, series) in zip(letters, groups.values(), strict=True):
            found.append(Column(metric, letter if len(groups) > 1 else "", protocol, series))
    return found


def protocol_of(run: Run, metric: str) -> dict[str, Any]:
    """Return the protocol of a metric: as stated by the run, or for restorations, what was restored."""
    if run.restores and metric.startswith("test/"):
        return {
            name: value for name, value in run.config.items() if name.startswith(OF_RESTORATION) and name not in PLACES
        }
    return run.protocol(metric) if better(metric) is not None and not metric.startswith("train/") else {}


def differing(protocols: Sequence[dict[str, Any]]) -> set[str]:
    """Return the parts in which protocols differ."""
    names = {name for protocol in protocols for name in protocol}
    return {name for name in names if len({_text(protocol.get(name, ABSENT)) for protocol in protocols}) > 1}


def _text(value: Any) -> str:
    """Return a value in YAML on one line."""
    if value is ABSENT:
        return "—"
    if isinstance(value, str):
        return value
    return json.dumps(value, default=str)
