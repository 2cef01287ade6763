"""A progress bar with short names of metrics and a limited update rate."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

ON_A_TERMINAL, IN_A_FILE = 0.1, 10.0  # seconds between two updates


class ProgressBar(TQDMProgressBar):
    """Lightning's progress bar without the version number, and with "loss_g" instead of "train/loss_g".

    It is updated a few times per second instead of at each batch, because an update takes half a millisecond.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Accept the arguments of Lightning's progress bar."""
        super().__init__(*args, **kwargs)
        self._seconds = ON_A_TERMINAL if sys.stdout.isatty() else IN_A_FILE
        self._last_update = -math.inf

    def _is_due(self, batch_idx: int, batches: float | None) -> bool:
        now, batch = time.monotonic(), batch_idx + 1
        if batch != batches and (batch % max(self.refresh_rate, 1) or now - self._last_update < self._seconds):
            return False
        self._last_update = now
        return True

    # The arguments are outputs, batch and batch_idx, and in evaluation dataloader_idx.

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Update the bar if it is due."""
        if self._is_due(args[2], self.train_progress_bar.total):
            super().on_train_batch_end(trainer, pl_module, *args)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Update the bar if it is due."""
        if self._is_due(args[2], self.val_progress_bar.total):
            super().on_validation_batch_end(trainer, pl_module, *args)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Update the bar if it is due."""
        if self._is_due(args[2], self.test_progress_bar.total):
            super().on_test_batch_end(trainer, pl_module, *args)

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Update the bar if it is due."""
        if self._is_due(args[2], self.predict_progress_bar.total):
            super().on_predict_batch_end(trainer, pl_module, *args)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the bars, so that the error message starts on a new line."""
        for loop in ("train", "val", "test", "predict"):
            with contextlib.suppress(TypeError):  # there is no bar
                getattr(self, f"{loop}_progress_bar").close()

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return the metrics that the bar shows, by short names."""
        metrics = super().get_metrics(trainer, pl_module)
        return {name.rsplit("/", 1)[-1]: value for name, value in metrics.items() if name != "v_num"}
