"""The augmentation of a GAN's training: an option of the module, and of its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from lightning import LightningModule
from torch import Tensor

from gan_lightning.augmentation import Augmentation
from gan_lightning.modules.step_graphs import StepGraphs


class AugmentedImages(LightningModule):
    """A GAN whose discriminator is trained on augmented images, if it is given an augmentation.

    Attributes:
        augmentation: Its settings; None for none.
    """

    augmentation: Augmentation | None = None
    _graphs: StepGraphs  # has the random generator of a step

    def set_augmentation(self, given: Augmentation | Mapping[str, Any] | None, channels: int) -> None:
        """Take the option of the constructor, after its hyperparameters have been saved.

        Args:
            given: Settings, or those of a checkpoint by name.
            channels: Number of channels of the images.

        Raises:
            InputError: An unsupported value, or images whose colors cannot be changed.
        """
        self.augmentation = Augmentation.of(given)
        if self.augmentation is not None:
            self.augmentation.check_channels(channels)
            # Checkpoints hold plain values.
            self.hparams["augmentation"] = asdict(self.augmentation)

    def augmented(self, images: Tensor) -> Tensor:
        """Return images (B,C,H,W) as the discriminator is to see them in this step."""
        return images if self.augmentation is None else self.augmentation(images, self._graphs.rng)
