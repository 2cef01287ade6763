"""What a training step needs around the algorithm: metrics for the loggers, a watch for NaN."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn

from gan_lightning.errors import DivergedError


def log_metrics(module: LightningModule, metrics: Mapping[str, Tensor | float], bar: Sequence[str] = ()) -> None:
    """Send figures to every logger, with the G iterations as x-axis, and some of them to the progress bar.

    Lightning's own logging counts batches on the x-axis, of which an iteration takes `d_steps`.
    """
    values = {name: float(value) for name, value in metrics.items()}
    for logger in module.loggers:
        logger.log_metrics(values, step=module.trainer.global_step)
    for name, value in values.items():
        # Outside training the value is the same on every rank: sync_dist only keeps Lightning from warning.
        module.log(name, value, logger=False, prog_bar=name in bar, sync_dist=not module.training)


def without_side_effects(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """Give the network as it is now, as a function with no graph that leaves its batch-norm statistics alone."""
    state: dict[str, Tensor] = {name: tensor.clone() for name, tensor in network.named_buffers()}
    state.update(network.named_parameters())

    @torch.no_grad()
    def call(inputs: Tensor) -> Tensor:
        return cast(Tensor, torch.func.functional_call(network, state, (inputs,)))

    return call


class FiniteWatch:
    """Remembers, on the device and without waiting for it, the first step whose losses were not finite."""

    def __init__(self) -> None:
        self._first: Tensor | None = None

    def add(self, step: int, *losses: Tensor) -> None:
        """Note the losses of a step; they stay on their device."""
        total = torch.stack([loss.detach().float() for loss in losses]).sum()
        step_if_bad = torch.where(total.isfinite(), math.inf, float(step))
        self._first = step_if_bad if self._first is None else torch.minimum(self._first, step_if_bad)

    @property
    def is_free(self) -> bool:
        """Whether a check costs nothing: on the CPU. Elsewhere it would wait for the device."""
        return self._first is None or self._first.device.type == "cpu"

    def check(self, trainer: Trainer, module: nn.Module | None = None) -> None:
        """Stop the training if a loss was not finite, or if a parameter of the module is not.

        Raises:
            DivergedError: It names the step, and the checkpoint to go back to.
        """
        first = math.inf if self._first is None else self._first.item()
        if math.isinf(first):
            if module is None or torch.stack([p.sum() for p in module.parameters()]).isfinite().all():
                return
            first = trainer.global_step
        callbacks = trainer.checkpoint_callbacks
        folders = [getattr(callback, "dirpath", None) for callback in callbacks]
        paths = [os.path.join(folder, "last.ckpt") for folder in folders if folder]
        for name in ("last_model_path", "best_model_path"):
            paths += [getattr(callback, name, "") for callback in callbacks]
        good = next((path for path in paths if os.path.isfile(path)), "none was written yet")
        raise DivergedError(
            f"a loss or a weight became NaN or infinite at step {first:.0f}; last good checkpoint: {good}. "
            "Try a lower learning rate, gradient_clip, or another objective"
        )
