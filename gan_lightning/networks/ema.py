"""Exponential moving average of a network's weights."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

NetworkT = TypeVar("NetworkT", bound=nn.Module)


def frozen_copy(network: NetworkT) -> NetworkT:
    """Return a copy of a network for its average, in evaluation mode and without gradients."""
    return copy.deepcopy(network).requires_grad_(False).eval()


def warm_decay(decay: float, step: int) -> float:
    """Return the decay at a step, counted from 0: it rises from 0.1 to `decay` to let initial weights fade quickly."""
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Update an average: `average = decay * average + (1 - decay) * network`.

    Batch-norm statistics are averaged like the weights, because they must match them; counters are copied.

    Args:
        average: The average, made by `frozen_copy(network)`.
        network: The network that is trained.
        decay: Decay in [0, 1); 0 copies the network.
    """
    targets: list[Tensor] = list(average.parameters())
    sources: list[Tensor] = list(network.parameters())
    for target, source in zip(average.buffers(), network.buffers(), strict=True):
        if target.is_floating_point():
            targets.append(target)
            sources.append(source)
        else:
            target.copy_(source)
    move_together = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    move_together(targets, sources, None)
