"""Gradients of one of two networks at a time: scaled, averaged over the ranks, measured and clipped."""

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
    """A module with a generator and a discriminator, each with its own optimizer, in this order.

    Attributes:
        gradient_clip: Largest L2 norm of a network's gradient; None for no limit.
        accumulate: Number of parts of a batch, whose gradients are summed.
        gradient_norms: Norms grad_norm_g and grad_norm_d that were measured in the current step.
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
        # No autocast, so that the second derivative of a penalty is float32.
        with torch.autocast(self.device.type, enabled=False), without_reducer(self.trainer.strategy):
            self.manual_backward(loss)
        return loss.detach()

    @torch.no_grad()
    def average_gradients(
        self, optimizer: LightningOptimizer, *networks: nn.Module, others: Sequence[Tensor] = ()
    ) -> None:
        """Average the gradients of an optimizer, and buffers with them, over the ranks in one message.

        Args:
            optimizer: Optimizer of one network, whose parameters have gradients on every rank or on none.
            networks: Networks whose floating-point buffers, such as batch-norm statistics, each rank has changed.
            others: Further floating-point tensors that are averaged in place.
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
        """Begin a step, and set whether the norms of its gradients are measured."""
        self.gradient_norms, self._norms_are_due = {}, due

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Measure and clip a network's gradient, which is unscaled at this point with any precision."""
        clip = self.gradient_clip
        if self._norms_are_due or clip is not None:
            name = "g" if optimizer is self.optimizer_pair()[0].optimizer else "d"
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            norm = torch.nn.utils.clip_grad_norm_(parameters, math.inf if clip is None else clip)
            self.gradient_norms[f"grad_norm_{name}"] = norm


def without_reducer(strategy: Strategy) -> AbstractContextManager[None]:
    """Disable DistributedDataParallel in the backward passes inside, where `average_gradients` replaces it.

    A backward pass reaches only one of the networks. DDP's reducer would send zeros for the others, and copy a map of
    the used parameters to the host.
    """
    return strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext()
