"""Progress of the search for latents."""

from __future__ import annotations

import time

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from gan_lightning.modules.restorer import SearchStep

SECONDS_BETWEEN = 0.5  # minimum time between two updates, each of which is a line in a log file


class RestorationProgress(Callback):
    """Callback that shows the step of the search and its mean loss on the progress bar."""

    def __init__(self) -> None:
        self._shown_at = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Follow the steps of the module."""

        def show(step: SearchStep) -> None:
            self.show(trainer, step)

        pl_module.observe_steps(show)  # type: ignore[operator]

    def show(self, trainer: Trainer, step: SearchStep) -> None:
        """Show a step, unless another one was shown shortly before."""
        bar = trainer.progress_bar_callback
        if isinstance(bar, TQDMProgressBar) and time.monotonic() > self._shown_at + SECONDS_BETWEEN:
            self._shown_at = time.monotonic()
            shown = bar.predict_progress_bar if trainer.predicting else bar.test_progress_bar
            loss = float(step.losses.mean())
            shown.set_postfix_str(f"{len(step.names)} images, {step.stage} step {step.number}, loss {loss:.2e}")
