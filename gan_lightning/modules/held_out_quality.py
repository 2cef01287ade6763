"""The validation of super-resolution: PSNR and SSIM of held-out images, and of their bicubic enlargements."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric

from gan_lightning.metrics.restoration import image_errors
from gan_lightning.modules.image_batches import TakesImages
from gan_lightning.modules.step_metrics import log_metrics
from gan_lightning.seeding import batch_rng

METRICS = ("psnr", "ssim", "psnr_bicubic", "ssim_bicubic")
VALIDATION = 2**31  # in place of a rank in the seeds of validation, which are the same in every run


class HeldOutQuality(TakesImages):
    """A module whose `forward` enlarges what `reduce` makes of images; logs val/psnr and so on, or test/psnr."""

    scale: int

    def __init__(self) -> None:
        super().__init__()
        self._metrics = {name: MeanMetric() for name in METRICS}  # in a dict: in no checkpoint

    def reduce(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Make small images of images (B,C,H,W) in [-1, 1]."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        """Move the metrics to the device."""
        super().setup(stage)
        for metric in self._metrics.values():
            metric.to(self.trainer.strategy.root_device)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Compare enlarged held-out images, and bicubic enlargements, with the originals."""
        large = self._val_batches.images(batch)
        if not len(large):  # with fewer images than ranks some ranks have none
            return
        small = self.reduce(large, batch_rng(0, VALIDATION + self.global_rank, batch_idx))
        for suffix, images in (("", self(small)), ("_bicubic", bicubic(small, self.scale))):
            errors = image_errors(images.float(), large)
            for name in ("psnr", "ssim"):
                self._metrics[name + suffix].update(errors[name])

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Log the means over all images and ranks."""
        self._log_means("val")

    def on_test_epoch_end(self) -> None:
        """Log the means over all images and ranks."""
        self._log_means("test")

    def _log_means(self, split: str) -> None:
        means = {f"{split}/{name}": metric.compute() for name, metric in self._metrics.items()}
        for metric in self._metrics.values():
            metric.reset()
        if not self.trainer.sanity_checking:
            log_metrics(self, means, bar=(f"{split}/psnr",))


def bicubic(images: Tensor, scale: int) -> Tensor:
    """Enlarge images (B,C,H,W) in [-1, 1] bicubically, as Pillow does (Keys 1981, a = -1/2)."""
    size = images.shape[-2] * scale, images.shape[-1] * scale
    return F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)
