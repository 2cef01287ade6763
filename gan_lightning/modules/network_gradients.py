"""Gradients of one network at a time, in a module of two: scaled, averaged over the ranks, measured and clipped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from lightning import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ParallelStrategy, Strategy
from torch import Tensor, nn
from torch.optim import Optimizer

from gan_lightning import distributed
from gan_lightning.modules.precision import NetworkName, ScalerPerNetwork


class NetworkGradients(LightningModule):
    """A module of a generator and a discriminator, each with an optimizer of its own, in this order.

    Attributes:
        gradient_clip: Largest L2 norm of a network's gradient; None for no limit.
        accumulate: Number of parts of a batch, whose gradients add up.
        gradient_norms: grad_norm_g and grad_norm_d, those of the current step that were measured.
    """

    gradient_clip: float | None
    accumulate: int
    gradient_norms: dict[str, Tensor]

    def optimizer_pair(self) -> list[LightningOptimizer]:
        """Return the optimizers of generator and discriminator."""
        return cast(list[LightningOptimizer], self.optimizers())

    def parts(self, *batch: Tensor) -> Iterable[tuple[Tensor, ...]]:
        """Return the parts of the tensors of a batch, one after the other."""
        count = self.accumulate
        return zip(*(tensor.chunk(count) for tensor in batch), strict=True) if count > 1 else (batch,)

    def add_gradients(self, network: NetworkName, loss: Tensor, share: float) -> Tensor:
        """Add the gradients of a network's loss on a share of the batch, and return that part of the loss.

        The gradients are scaled by the network's own scale if the precision has one.
        """
        if share != 1:
            loss = loss * share
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, ScalerPerNetwork):
            plugin.choose(network)
        # Without autocast, or a penalty's second derivative would not be float32.
        with torch.autocast(self.device.type, enabled=False), without_reducer(self.trainer.strategy):
            self.manual_backward(loss)
        return loss.detach()

    @torch.no_grad()
    def average_gradients(
        self, optimizer: LightningOptimizer, *networks: nn.Module, others: Sequence[Tensor] = ()
    ) -> None:
        """Average the gradients that an optimizer uses over the ranks, and buffers with them, in one message.

        Args:
            optimizer: Optimizer of one network, whose parameters have gradients on every rank or on none.
            networks: Networks whose floating-point buffers, such as batch-norm statistics, each rank has changed.
            others: Tensors of floating-point numbers that are averaged in place, too.
        """
        if not distributed.is_distributed():
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        gradients: list[Tensor] = [parameter.grad for parameter in parameters]
        buffers = [*distributed.float_buffers(*networks), *others]
        averages = distributed.average([*gradients, *buffers])
        for parameter, average in zip(parameters, averages, strict=False):
            parameter.grad = average
        for buffer, average in zip(buffers, averages[len(gradients) :], strict=True):
            buffer.copy_(average)

    def measure_gradients(self, due: bool) -> None:
        """Begin a step, and note whether the norms of its gradients are wanted."""
        self.gradient_norms, self._norms_are_due = {}, due

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Measure and clip a network's gradient, which is unscaled here whatever the precision."""
        clip = self.gradient_clip
        if self._norms_are_due or clip is not None:
            name = "g" if optimizer is self.optimizer_pair()[0].optimizer else "d"
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            norm = torch.nn.utils.clip_grad_norm_(parameters, math.inf if clip is None else clip)
            self.gradient_norms[f"grad_norm_{name}"] = norm


def without_reducer(strategy: Strategy) -> AbstractContextManager[None]:
    """Keep DistributedDataParallel out of the backward passes inside: `average_gradients` takes its place.

    A backward pass reaches one of the networks. DDP's reducer would send zeros for the others, and copy a map of the
    parameters that were used to the host.
    """
    return strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext()
