"""Panels of enlarged images: the small image, its bicubic enlargement, the network's, and the original."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from gan_lightning.callbacks.best_effort import best_effort
from gan_lightning.callbacks.samples import log_picture, read_real
from gan_lightning.images import make_grid, to_float, write_png


class UpscalePanels(Callback):
    """Callback that draws panels of held-out images at each validation of an `ESRGAN`, in samples/ of the run."""

    def __init__(self, num_images: int = 8, seed: int = 0) -> None:
        """Store the settings.

        Args:
            num_images: Number of images.
            seed: Seed of the degradations.
        """
        self.num_images, self.seed = num_images, seed

    @rank_zero_only
    @torch.no_grad()
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the panels of the current generator."""
        if trainer.sanity_checking:
            return
        large = read_real(trainer, self.num_images)
        if not len(large):
            return
        path = Path(trainer.default_root_dir) / "samples" / f"step-{trainer.global_step:07d}.png"
        with best_effort(str(path)):
            module: Any = pl_module
            picture = panels(module, to_float(large).to(module.device), self.seed)
            write_png(path, picture)
            log_picture(trainer, path, picture, f"step {trainer.global_step}: low, bicubic, ours, original")


def panels(module: Any, large: Tensor, seed: int) -> Tensor:
    """Return a picture (C,H,W) uint8 with a row for each image: small, enlarged bicubically, by the module, original.

    Args:
        module: An `ESRGAN`.
        large: Original images (B,C,H,W) in [-1, 1], on the device of the module.
        seed: Seed of the degradation.
    """
    small = module.reduce(large, torch.Generator().manual_seed(seed))
    plain = F.interpolate(small, large.shape[-2:], mode="bicubic", antialias=True, align_corners=False)
    columns = F.interpolate(small, large.shape[-2:], mode="nearest"), plain, module(small).float(), large
    rows = torch.stack([column.clamp(-1, 1) for column in columns], 1).flatten(0, 1)
    return make_grid(rows, columns=len(columns))
