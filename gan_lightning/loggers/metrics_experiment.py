"""The object `self.logger.experiment` of a run without loggers other than metrics.csv."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

_log = logging.getLogger(__name__)


class MetricsExperiment:
    """Substitute for the objects of TensorBoard and W&B that logs numbers to metrics.csv and ignores everything else.

    Methods other than `log` and `add_scalar` do nothing, and the first call says so, because metrics.csv cannot contain
    pictures. Code written for another logger therefore runs without it.
    """

    def __init__(self, log_metrics: Callable[[Mapping[str, float], int | None], None]) -> None:
        """Set the function that logs numbers.

        Args:
            log_metrics: Function of metrics by name and a step.
        """
        self._log_metrics = log_metrics
        self._ignored: set[str] = set()

    def log(self, data: Mapping[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Log the numbers among the values, like the method of W&B."""
        numbers = {name: number for name, value in data.items() if (number := _as_number(value)) is not None}
        if len(numbers) < len(data):
            self._ignore(f"log of {', '.join(data.keys() - numbers.keys())}")
        if numbers:
            self._log_metrics(numbers, step)

    def add_scalar(self, tag: str, scalar_value: Any, global_step: int | None = None, **kwargs: Any) -> None:
        """Log a number, like the method of TensorBoard."""
        self.log({tag: scalar_value}, global_step)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing; the method of W&B uploads files, which are in the run folder here."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("__"):
            raise AttributeError(name)

        def ignore(*args: Any, **kwargs: Any) -> None:
            self._ignore(name)

        return ignore

    def _ignore(self, what: str) -> None:
        if what not in self._ignored:
            _log.warning("logger.experiment.%s is ignored: metrics.csv has numbers; add a logger for the rest", what)
        self._ignored.add(what)


def _as_number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):  # an image, a histogram, a tensor of several values
        return None
