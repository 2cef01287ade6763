"""What was measured of all images of a restoration, by this run and by earlier ones, on all ranks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from gan_lightning import distributed
from gan_lightning.metrics.restoration import summarize
from gan_lightning.modules.restorer import SEARCH_METRICS, Restored


class RestorationSummary:
    """Metrics of the images of a run by name, and the time that restoring them takes.

    Args:
        finished: Metrics of the images that an earlier run has restored, by name; they are not restored again.
    """

    def __init__(self, finished: Mapping[str, Mapping[str, float]]) -> None:
        self.finished = finished
        self._rows: dict[str, Mapping[str, float]] = {}
        self._seconds, self._restored = 0.0, 0

    def rows_to_restore(self, names: Sequence[str]) -> list[int]:
        """Add the images of a batch that an earlier run has restored, and return the rows of the others."""
        self._rows |= {name: self.finished[name] for name in names if name in self.finished}
        return [row for row, name in enumerate(names) if name not in self.finished]

    def add(self, restored: Restored, started: float) -> None:
        """Add images that this run has restored.

        Args:
            restored: The images and their metrics.
            started: Value of `time.perf_counter` when their restoration began.
        """
        self._rows |= dict(zip(restored.names, restored.rows(), strict=True))  # waits for the device
        self._seconds += time.perf_counter() - started
        self._restored += len(restored.names)

    def compute(self) -> dict[str, float]:
        """Return the mean, the median and the worst of each metric over the images of all ranks, which all call it."""
        parts = distributed.gather((self._rows, self._seconds, self._restored))
        rows: dict[str, Mapping[str, float]] = {name: row for part, _, _ in parts for name, row in part.items()}
        ordered = [rows[name] for name in sorted(rows)]  # sums must not depend on the order of the ranks
        summary = summarize([{name: row[name] for name in row if name not in SEARCH_METRICS} for row in ordered])
        summary["images"] = float(len(rows))
        summary |= {name: sum(row[name] for row in ordered) / len(rows) for name in ("converged", "explained")}
        if restored := sum(count for _, _, count in parts):
            summary["seconds_per_image"] = sum(seconds for _, seconds, _ in parts) / restored
        return summary
