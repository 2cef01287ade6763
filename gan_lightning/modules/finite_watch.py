"""Detection of losses and weights that are not finite."""

from __future__ import annotations

import math
import os

import torch
from lightning import Trainer
from torch import Tensor, nn

from gan_lightning.errors import DivergedError


class FiniteWatch:
    """The first step whose losses were not finite, kept on the device so that no step waits for it."""

    def __init__(self) -> None:
        self._first: Tensor | None = None

    def add(self, step: int, *losses: Tensor) -> None:
        """Record the losses of a step, on an accelerator without reading their values."""
        total = torch.stack(losses).detach().sum()
        step_if_bad = torch.where(total.isfinite(), math.inf, float(step))
        self._first = step_if_bad if self._first is None else torch.minimum(self._first, step_if_bad)

    @property
    def is_free(self) -> bool:
        """Whether a check is free, as on the CPU; on an accelerator it waits for the device."""
        return self._first is None or self._first.device.type == "cpu"

    def check(self, trainer: Trainer, module: nn.Module | None = None) -> None:
        """Raise if a recorded loss, or a parameter of the module, is not finite.

        Raises:
            DivergedError: If one is not finite. The message names the step and the last good checkpoint.
        """
        first = math.inf if self._first is None else self._first.item()
        if math.isinf(first):
            if module is None or torch.stack([p.sum() for p in module.parameters()]).isfinite().all():
                return
            first = trainer.global_step
        raise DivergedError(
            f"a loss or a weight became NaN or infinite at step {first:.0f}; "
            f"last good checkpoint: {newest_checkpoint(trainer) or 'none was written yet'}. "
            "Try a lower learning rate, gradient_clip, or another objective"
        )


def newest_checkpoint(trainer: Trainer) -> str | None:
    """Return the path of last.ckpt, or else of a ModelCheckpoint's last or best checkpoint; None if there is none."""
    callbacks = trainer.checkpoint_callbacks
    folders = [folder for callback in callbacks if (folder := getattr(callback, "dirpath", None))]
    paths = [os.path.join(folder, "last.ckpt") for folder in folders]
    for name in ("last_model_path", "best_model_path"):
        paths += [getattr(callback, name, "") for callback in callbacks]
    return next((path for path in paths if os.path.isfile(path)), None)
