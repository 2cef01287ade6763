"""D's score of held-out images, which shows whether D memorizes the training images."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchmetrics import MeanMetric

from gan_lightning.modules.image_batches import TakesImages
from gan_lightning.modules.step_metrics import log_metrics
from gan_lightning.objectives import Objective


class HeldOutScore(TakesImages):
    """The validation of a GAN: logs val/d_x."""

    discriminator: nn.Module
    objective: Objective

    def __init__(self) -> None:
        super().__init__()
        self._score_held_out = MeanMetric()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Score held-out images with D: scores below those of training images show that D memorizes the latter."""
        images, *labels = self._val_batches.inputs(batch)
        if count := len(images):  # with fewer images than ranks some ranks have none
            self._score_held_out.update(self.objective.score(self.discriminator(images, *labels)), count)

    def on_validation_epoch_end(self) -> None:
        """Log D's mean score of held-out images over all ranks."""
        score = self._score_held_out.compute()
        self._score_held_out.reset()
        if not self.trainer.sanity_checking:
            log_metrics(self, {"val/d_x": score})

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Do nothing: callbacks measure samples at the end of the test."""
