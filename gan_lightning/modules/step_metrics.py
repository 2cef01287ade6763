"""Metrics of a training step: sent to every logger, measured without side effects, and timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from lightning import LightningModule
from torch import Tensor, nn

from gan_lightning import distributed
from gan_lightning.modules.precision import ScalerPerNetwork
from gan_lightning.modules.step_axis import StepAxis
from gan_lightning.objectives import Objective

LOSSES = ("loss_d", "loss_g", "penalty_d")  # among the outputs of a step
LOGGED = (*LOSSES, "grad_norm_d", "grad_norm_g", "augment_probability")
PENALTY = "penalty_d"  # key of our checkpoints


def log_metrics(module: LightningModule, metrics: Mapping[str, Tensor | float], bar: Sequence[str] = ()) -> None:
    """Send metrics to every logger, with generator iterations as the x-axis.

    Lightning's own logging counts batches on the x-axis, and an iteration takes `d_steps` of them.

    Args:
        module: The module that is being trained or validated.
        metrics: Scalars by name.
        bar: Names of the metrics that the progress bar shows.
    """
    values = {name: float(value) for name, value in metrics.items()}
    for logger in module.loggers:
        logger.log_metrics(values, step=module.trainer.global_step)
    if module.training:
        # Lightning copies values that `module.log` shows in the progress bar to the host again after every batch.
        module.trainer.callback_metrics.update({name: torch.tensor(value) for name, value in values.items()})
        module.trainer.progress_bar_metrics.update({name: values[name] for name in bar})
        return
    for name, value in values.items():
        # The value is the same on every rank: sync_dist only keeps Lightning from warning.
        module.log(name, value, logger=False, prog_bar=name in bar, sync_dist=True)


def without_side_effects(network: nn.Module) -> Callable[..., Tensor]:
    """Return the network's forward pass without a graph and without updates of batch-norm statistics."""
    state: dict[str, Tensor] = {name: tensor.clone() for name, tensor in network.named_buffers()}
    state.update(network.named_parameters())

    @torch.no_grad()
    def call(*inputs: Tensor) -> Tensor:
        return cast(Tensor, torch.func.functional_call(network, state, inputs))

    return call


class StepClock:
    """Images per second since the last restart."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Reset the number of images and the time."""
        self._started, self._images = time.perf_counter(), 0

    def add(self, images: int) -> None:
        """Count images."""
        self._images += images

    def images_per_second(self) -> float:
        """Return the rate; on an accelerator wait for the device first, so that queued work is not counted."""
        return self._images / (time.perf_counter() - self._started)


class LoggedStep(StepAxis):
    """A module that logs the metrics of the training steps of a generator and a discriminator."""

    objective: Objective
    generator: nn.Module
    discriminator: nn.Module
    augmented: Callable[[Tensor], Tensor]
    _clock: StepClock
    _penalty: Tensor | None = None

    def keep_penalty(self, outputs: Mapping[str, Tensor]) -> None:
        """Keep D's penalty of a step that has one, because the steps that are logged often have none."""
        if PENALTY in outputs:
            self._penalty = outputs[PENALTY].clone()  # a CUDA graph overwrites its outputs

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the last penalty, so that a resumed run logs the same value."""
        super().on_save_checkpoint(checkpoint)
        if self._penalty is not None:
            checkpoint[PENALTY] = self._penalty.item()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the last penalty."""
        super().on_load_checkpoint(checkpoint)
        if PENALTY in checkpoint:
            self._penalty = torch.tensor(checkpoint[PENALTY], device=self.device)

    def log_step(self, outputs: Mapping[str, Tensor]) -> None:
        """Log the metrics of one step, including D on the same latents after the update of G.

        Args:
            outputs: Losses, norms of gradients, logits of reals and fakes, and the latents of the fakes, with their
                labels if the model has classes.
        """
        score, labels = self.objective.score, [outputs["labels"]] if "labels" in outputs else []
        images_after = self.augmented(without_side_effects(self.generator)(outputs["latents"], *labels))
        known = outputs if self._penalty is None else {**outputs, PENALTY: self._penalty.to(self.device)}
        metrics = {name: known[name] for name in LOGGED if name in known}
        metrics |= {"d_x": score(outputs["logits_real"]), "d_g_z_before": score(outputs["logits_fake"])}
        metrics["d_g_z_after"] = score(without_side_effects(self.discriminator)(images_after, *labels))
        means = distributed.mean(metrics)  # waits for the device, which makes the clock accurate
        if isinstance(plugin := self.trainer.precision_plugin, ScalerPerNetwork):
            means |= plugin.scales()
        means["images_per_second"] = self._clock.images_per_second()
        named = {f"train/{name}": value for name, value in means.items()}
        log_metrics(self, named, bar=("train/loss_d", "train/loss_g", "train/images_per_second"))
        self._clock.restart()
