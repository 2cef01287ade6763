"""Augmentation of the images that the discriminator sees: an option of the module, saved in checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from lightning import LightningModule
from torch import Tensor

from gan_lightning import distributed
from gan_lightning.augmentation import AdaptiveProbability, Augmentation
from gan_lightning.errors import InputError
from gan_lightning.modules.step_graphs import StepGraphs
from gan_lightning.objectives import Objective

# Objectives whose D is 0 between reals and fakes, and the one that compares them in pairs.
ADAPTABLE = ("saturating", "non_saturating", "bce_mse", "hinge", "relativistic")
KEY = "augmentation"  # in checkpoints


class AugmentedImages(LightningModule):
    """A GAN whose discriminator may be trained on augmented images.

    Attributes:
        augmentation: Settings of the augmentation; None for none.
    """

    augmentation: Augmentation | None = None
    objective: Objective
    _graphs: StepGraphs  # has the random generator of the step
    _adaptive: tuple[AdaptiveProbability, ...] = ()  # in a tuple: not part of the state dict

    def set_augmentation(self, given: Augmentation | Mapping[str, Any] | None, channels: int, objective: str) -> None:
        """Set the augmentation from the option of the constructor, after `save_hyperparameters`.

        Args:
            given: Settings, or a mapping of them from a checkpoint.
            channels: Number of channels of the images.
            objective: Name of the objective.

        Raises:
            InputError: If a value is unsupported, or does not fit the images or the objective.
        """
        self.augmentation = Augmentation.of(given)
        if self.augmentation is None:
            return
        self.augmentation.check_channels(channels)
        self.hparams["augmentation"] = asdict(self.augmentation)  # checkpoints hold plain values
        if self.augmentation.adaptive_target is not None:
            if objective not in ADAPTABLE:
                raise InputError(
                    f"augmentation.adaptive_target needs an objective whose logits have a sign: "
                    f"{', '.join(ADAPTABLE)}; with {objective}, set it to null"
                )
            self._adaptive = (AdaptiveProbability(self.augmentation),)

    def augmented(self, images: Tensor) -> Tensor:
        """Return images (B,C,H,W) augmented for the discriminator in this step."""
        if self.augmentation is None:
            return images
        probability = self._adaptive[0].to(images.device).probability if self._adaptive else None
        return self.augmentation(images, self._graphs.rng, probability)

    def adapt_augmentation(self, logits_real: Tensor, logits_fake: Tensor, images: int) -> dict[str, Tensor]:
        """Adapt the probability after a step of the discriminator; return it as a metric if it is adaptive.

        Args:
            logits_real: D's logits (B,) of real images.
            logits_fake: D's logits (B,) of fakes, which are the zero of a relativistic D.
            images: Number of real images in the step, over all of its parts.
        """
        if not self._adaptive:
            return {}
        adaptive = self._adaptive[0].to(logits_real.device)
        decided = logits_real - logits_fake if self.objective.needs_real else logits_real
        (sign,) = distributed.average([decided.detach().float().sign().mean()])
        adaptive.update(sign, images * distributed.world_size())
        return {"augment_probability": adaptive.probability}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save an adaptive probability."""
        super().on_save_checkpoint(checkpoint)
        if self._adaptive:
            checkpoint[KEY] = self._adaptive[0].state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load an adaptive probability; it starts from 0 if the checkpoint has none."""
        super().on_load_checkpoint(checkpoint)
        if self._adaptive and KEY in checkpoint:
            self._adaptive[0].load_state_dict(checkpoint[KEY])
