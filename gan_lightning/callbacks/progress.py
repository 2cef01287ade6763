"""A progress bar with the figures that matter, under short names."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

ON_A_TERMINAL, IN_A_FILE = 0.1, 10.0  # seconds between two updates: what an eye can follow, and what a log can bear


class ProgressBar(TQDMProgressBar):
    """Lightning's bar, without the version number, and with "loss_g" for "train/loss_g".

    It is drawn some times a second, not at each batch, which would take half a millisecond.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take what Lightning's bar takes."""
        super().__init__(*args, **kwargs)
        self._interval = ON_A_TERMINAL if sys.stdout.isatty() else IN_A_FILE
        self._drawn = -math.inf

    def _should_update(self, current: int, total: int) -> bool:
        now = time.monotonic()
        if (now - self._drawn < self._interval and current != total) or not super()._should_update(current, total):
            return False
        self._drawn = now
        return True

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Give the figures for the bar, by short names."""
        figures = super().get_metrics(trainer, pl_module)
        return {name.rsplit("/", 1)[-1]: value for name, value in figures.items() if name != "v_num"}
