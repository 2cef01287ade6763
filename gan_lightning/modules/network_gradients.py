"""Gradients of one network at a time, averaged over the ranks, in a module of several networks."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from lightning.pytorch.strategies import ParallelStrategy, Strategy
from torch import Tensor, nn
from torch.optim import Optimizer

from gan_lightning import distributed


@torch.no_grad()
def average_gradients(optimizer: Optimizer, *networks: nn.Module) -> None:
    """Average the gradients that an optimizer uses over the ranks, and the buffers of networks, in one message.

    Args:
        optimizer: Optimizer of one network, whose parameters have gradients on every rank or on none.
        networks: Networks whose floating-point buffers, such as batch-norm statistics, each rank has changed.
    """
    if not distributed.is_distributed():
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    gradients: list[Tensor] = [parameter.grad for parameter in parameters]
    buffers = distributed.float_buffers(*networks)
    averages = distributed.average([*gradients, *buffers])
    for parameter, average in zip(parameters, averages, strict=False):
        parameter.grad = average
    for buffer, average in zip(buffers, averages[len(gradients) :], strict=True):
        buffer.copy_(average)


def without_reducer(strategy: Strategy) -> AbstractContextManager[None]:
    """Keep DistributedDataParallel out of the backward passes inside: `average_gradients` takes its place.

    A backward pass reaches one of the networks. DDP's reducer would send zeros for the others, and copy a map of the
    parameters that were used to the host.
    """
    return strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext()
