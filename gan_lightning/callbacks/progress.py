"""A progress bar with the figures that matter, under short names."""

from __future__ import annotations

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar


class ProgressBar(TQDMProgressBar):
    """Lightning's bar, without the version number, and with "loss_g" for "train/loss_g"."""

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Give the figures for the bar, by short names."""
        figures = super().get_metrics(trainer, pl_module)
        return {name.rsplit("/", 1)[-1]: value for name, value in figures.items() if name != "v_num"}
