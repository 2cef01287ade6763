"""Pictures of samples: a grid of fixed latents during training, single images in `predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from gan_lightning.callbacks.best_effort import best_effort
from gan_lightning.errors import InputError
from gan_lightning.images import make_grid, write_png


class SampleGrid(Callback):
    """Draw a grid of samples from fixed latents before the first step and at each validation.

    The grid is written to samples/ in the run folder and sent to every logger that takes images.
    """

    def __init__(self, num_images: int = 64, seed: int = 0) -> None:
        """Store the settings.

        Args:
            num_images: Number of images in the grid.
            seed: Seed of the latents.

        Raises:
            InputError: If `num_images` is less than 1.
        """
        if num_images < 1:
            raise InputError(f"sample_grid.num_images must be at least 1, but got {num_images}")
        self.num_images = num_images
        self.seed = seed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check whether the module draws samples."""
        self._active, self._drawn_at = hasattr(pl_module, "sample"), -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw samples of the untrained generator."""
        if trainer.global_step == 0 and self._active:
            self._draw(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw samples of the current generator."""
        if not trainer.sanity_checking and self._active:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw samples of the final generator, unless the last validation has drawn them."""
        if self._active and trainer.global_step != self._drawn_at:
            self._draw(trainer, pl_module)

    @rank_zero_only
    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._drawn_at = trainer.global_step
        rng = torch.Generator().manual_seed(self.seed)
        grid = make_grid(pl_module.sample(self.num_images, rng))  # type: ignore[operator]
        path = Path(trainer.default_root_dir) / "samples" / f"step-{trainer.global_step:07d}.png"
        with best_effort(str(path)):
            write_png(path, grid)
            self._log(trainer, path, grid)

    def _log(self, trainer: Trainer, path: Path, grid: Tensor) -> None:
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):  # W&B; without a step it would use the last one logged
                logger.log_image("samples", [str(path)], step=trainer.global_step)
            elif add_image := getattr(getattr(logger, "experiment", None), "add_image", None):  # TensorBoard
                add_image("samples", grid, trainer.global_step)


class SampleWriter(Callback):
    """Write the samples of `predict` to samples/ in the run folder, named by their numbers."""

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Write images (B,C,H,W) in [-1, 1], the batch of whose numbers (B,) was drawn."""
        if not hasattr(pl_module, "sample"):  # its predictions are something else
            return
        for number, image in zip(batch.tolist(), outputs, strict=True):
            write_png(Path(trainer.default_root_dir) / "samples" / f"{number:06d}.png", image)
