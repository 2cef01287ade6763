"""Training settings that change with the number of images seen: learning rates, betas, weights of penalties."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from gan_lightning.errors import InputError
from gan_lightning.modules.run_seed import RunSeed
from gan_lightning.networks.ema import warm_decay

RAMP = 0.05  # the half-life of an average is at most this fraction of the images seen (Karras et al. 2020, ADA)


@dataclass(frozen=True)
class Schedule:
    """Schedule of settings by the number of images seen over all ranks.

    Attributes:
        images: Number of images over which settings change to their last values, which they keep.
        shape: "cosine" or "linear".
        warmup: Number of images over which the learning rates rise from 0 in the beginning.
        lr: Last factor of both learning rates.
        betas: Last values of Adam's decay rates; null to keep them constant. Changing betas excludes CUDA graphs.
        penalties: Last factor of the weights of gradient penalties.
    """

    images: int
    shape: Literal["cosine", "linear"] = "cosine"
    warmup: int = 0
    lr: float = 1.0
    betas: tuple[float, float] | None = None
    penalties: float = 1.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InputError: If a value is unsupported.
        """
        if self.images < 1:
            raise InputError(f"schedule.images must be at least 1, but is {self.images}")
        if self.shape not in ("cosine", "linear"):
            raise InputError(f"schedule.shape must be cosine or linear, but is {self.shape!r}")
        if not 0 <= self.warmup <= self.images:
            raise InputError(
                f"schedule.warmup is {self.warmup}: it must end before schedule.images, at {self.images}, and not be "
                "negative"
            )
        for name in ("lr", "penalties"):
            if getattr(self, name) < 0:
                raise InputError(f"schedule.{name} must not be negative, but is {getattr(self, name)}")
        if self.betas is not None and not (len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)):
            raise InputError(f"schedule.betas must be two numbers in [0, 1), but are {list(self.betas)}")

    @classmethod
    def of(cls, given: Schedule | Mapping[str, Any] | None) -> Schedule | None:
        """Return the given schedule, or the one with the given values, as in checkpoints."""
        return cls(**given) if isinstance(given, Mapping) else given

    def progress(self, images_seen: int) -> float:
        """Return the progress of settings towards their last values, from 0 to 1."""
        done = min(1.0, images_seen / self.images)
        return done if self.shape == "linear" else (1 - math.cos(math.pi * done)) / 2

    def rate_factor(self, images_seen: int) -> float:
        """Return the factor of the learning rates."""
        rise = min(1.0, images_seen / self.warmup) if self.warmup else 1.0
        return rise * moved(1.0, self.lr, self.progress(images_seen))

    def penalty_factor(self, images_seen: int) -> float:
        """Return the factor of the weights of gradient penalties."""
        return moved(1.0, self.penalties, self.progress(images_seen))

    def betas_at(self, first: Sequence[float], images_seen: int) -> tuple[float, float]:
        """Return Adam's decay rates.

        The lengths of the averages, 1 / (1 - beta), change on a logarithmic scale: halfway from 0.9 to 0.99 is 0.968.

        Args:
            first: The decay rates at the beginning.
            images_seen: Number of images seen.
        """
        last = self.betas or first
        progress = self.progress(images_seen)
        moments = [
            1 - (1 - one) ** (1 - progress) * (1 - other) ** progress for one, other in zip(first, last, strict=True)
        ]
        return moments[0], moments[1]


def moved(first: float, last: float, progress: float) -> float:
    """Return the value between two others."""
    return first + progress * (last - first)


def half_life_decay(half_life: float, batch: int, images_seen: int) -> float:
    """Return the decay of an average in which the weight of the past halves every `half_life` images.

    At first the half-life is a fixed fraction of the images seen, so that the initial weights fade quickly.

    Args:
        half_life: Number of images.
        batch: Number of images since the last update, over all ranks.
        images_seen: Number of images seen, including those of the batch.
    """
    return float(0.5 ** (batch / min(half_life, RAMP * images_seen)))


class Scheduled(RunSeed):
    """A module with two networks whose settings follow the number of images seen, which a resumed run continues.

    Attributes:
        images_seen: Number of training images seen over all ranks.
        training_schedule: Schedule of the settings; None if they are constant.
        penalty_interval: Penalties are computed at every n-th discriminator step, multiplied by n.
        ema_decay: Decay per step of the averaged generator, warmed up from 0.1.
        ema_half_life: Half-life of the average in images, instead of the decay; None to use the decay.
    """

    images_seen: int = 0
    training_schedule: Schedule | None
    penalty_interval: int
    ema_decay: float
    ema_half_life: float | None

    def set_schedule(self, given: Schedule | Mapping[str, Any] | None) -> None:
        """Set the schedule from the option of the constructor, after `save_hyperparameters`.

        Raises:
            InputError: If a value is unsupported.
        """
        self.training_schedule = Schedule.of(given)
        if self.training_schedule is not None:
            self.hparams["schedule"] = asdict(self.training_schedule)  # checkpoints hold plain values

    def start_schedule(self) -> None:
        """Store the initial settings of the schedule, once the optimizers have those of this run.

        Raises:
            InputError: If the module also has its own schedulers.
        """
        if self.training_schedule is not None and self.trainer.lr_scheduler_configs:
            raise InputError("learning rates have two schedules: leave out model.schedule, or the module's schedulers")
        groups = [group for optimizer in self.trainer.optimizers for group in optimizer.param_groups]
        self._first = [(group["lr"], group.get("betas")) for group in groups]
        self._penalty_tensor = torch.tensor(float(self.penalty_interval), device=self.device)

    @property
    def penalty_weight(self) -> float | Tensor:
        """Factor of the gradient penalties: a tensor if it changes, which a CUDA graph can read."""
        return self.penalty_interval if self.training_schedule is None else self._penalty_tensor

    def follow_schedule(self, batch: int) -> None:
        """Apply the schedule to the next step, and count its images.

        Args:
            batch: Number of images of the step, over all ranks.
        """
        schedule, seen = self.training_schedule, self.images_seen
        self.images_seen += batch
        if schedule is None:
            return
        groups = [group for optimizer in self.trainer.optimizers for group in optimizer.param_groups]
        for group, (rate, betas) in zip(groups, self._first, strict=True):
            group["lr"] = rate * schedule.rate_factor(seen)
            if schedule.betas is not None and betas is not None:
                group["betas"] = schedule.betas_at(betas, seen)
        if schedule.penalties != 1:
            self._penalty_tensor.fill_(self.penalty_interval * schedule.penalty_factor(seen))

    def average_decay(self, batch: int) -> float:
        """Return the decay of the averaged generator at the end of a step.

        Args:
            batch: Number of images since the average was updated, over all ranks.
        """
        if self.ema_half_life is None:
            return warm_decay(self.ema_decay, self.global_step - 1)
        return half_life_decay(self.ema_half_life, batch, self.images_seen) if self.ema_half_life else 0.0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the number of images seen."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["images_seen"] = self.images_seen

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the number of images seen; checkpoints of earlier versions lack it, and have no schedule to need it."""
        super().on_load_checkpoint(checkpoint)
        self.images_seen = checkpoint.get("images_seen", 0)
