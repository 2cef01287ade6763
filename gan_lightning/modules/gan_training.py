"""Base class of trainings of a generator, its average and a discriminator with any losses."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Adam, Optimizer
from typing_extensions import Self

from gan_lightning.modules.finite_watch import FiniteWatch
from gan_lightning.modules.step_axis import StepAxis
from gan_lightning.modules.step_metrics import StepClock


class GanTraining(StepAxis):
    """A module that trains a generator and a discriminator, each with Adam, and stops when they diverge.

    Attributes:
        generator: The generator.
        discriminator: The discriminator.
        generator_ema: The averaged generator, which stays in evaluation mode.
        lr_g: Learning rate of the generator.
        lr_d: Learning rate of the discriminator.
    """

    generator: nn.Module
    discriminator: nn.Module
    generator_ema: nn.Module
    lr_g: float
    lr_d: float

    def __init__(self) -> None:
        super().__init__()
        self._watch, self._clock = FiniteWatch(), StepClock()

    def adam_of_each(self, betas: tuple[float, float]) -> list[Optimizer]:
        """Return one Adam for each network: generator, discriminator."""
        fused = self.device.type in ("cpu", "cuda")
        networks = (self.generator, self.lr_g), (self.discriminator, self.lr_d)
        return [Adam(network.parameters(), rate, betas, fused=fused) for network, rate in networks]

    def train(self, mode: bool = True) -> Self:
        """Set the mode of both networks; the averaged generator always stays in evaluation mode."""
        super().train(mode)
        self.generator_ema.eval()
        return self

    def on_validation_start(self) -> None:
        """Raise a `DivergedError` before diverged networks are evaluated."""
        super().on_validation_start()
        self._watch.check(self.trainer, self)

    def on_validation_end(self) -> None:
        """Exclude the time of the validation from images per second."""
        super().on_validation_end()
        self._clock.restart()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raise a `DivergedError` instead of saving diverged networks."""
        self._watch.check(self.trainer, self)
        super().on_save_checkpoint(checkpoint)
