"""The x-axis of metrics that a subclass or a callback logs with `self.log`: iterations of the generator."""

from __future__ import annotations

from typing import Any

import torch
from lightning import LightningModule

from gan_lightning.resume.lightning_internals import count_steps_for_loggers


class StepAxis(LightningModule):
    """A module that logs "step", which Lightning uses as the x-axis, with every metric of `fit`.

    Lightning's own axis lags by one, and counts batches, of which an iteration of the generator takes `d_steps`.
    """

    _used, _epoch_of_use = False, -1  # whether anything was logged, and the last training epoch in which it was

    def log(  # type: ignore[override]
        self, name: str, value: Any, prog_bar: bool = False, logger: bool | None = None, **kwargs: Any
    ) -> None:
        """Log a metric; the arguments are those of `LightningModule.log`."""
        super().log(name, value, prog_bar, logger, **kwargs)
        if logger is not False and name != "step" and self._fits():
            if self.trainer.training:
                self._epoch_of_use = self.current_epoch
            self._used = True
            self._log_axis()

    def end_batch_on_axis(self) -> None:
        """Advance the axis after a training step, whose metrics may have been logged before its end."""
        count_steps_for_loggers(self.trainer, self.global_step)
        if self._epoch_of_use == self.current_epoch:
            self._log_axis()
        elif self._used:  # ModelCheckpoint reads {step} in a file name from here
            self.trainer.callback_metrics["step"] = torch.tensor(float(self.global_step))

    def _fits(self) -> bool:
        try:
            return self.trainer.state.fn == "fit"
        except RuntimeError:  # no trainer, about which Lightning has warned
            return False

    def _log_axis(self) -> None:
        super().log("step", float(self.global_step), reduce_fx="max")
