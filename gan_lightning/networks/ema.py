"""Exponential moving average of a network's weights."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

NetworkT = TypeVar("NetworkT", bound=nn.Module)


def frozen_copy(network: NetworkT) -> NetworkT:
    """Copy a network for averaging: evaluation mode, no gradients."""
    return copy.deepcopy(network).requires_grad_(False).eval()


def warm_decay(decay: float, step: int) -> float:
    """Decay at a step, counted from 0: it rises from 0.1 to `decay`, so that the first weights are soon forgotten."""
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move an average towards the network: `average = decay * average + (1 - decay) * network`.

    Batch-norm statistics are averaged as the weights are, for they must fit the weights; counters are copied.

    Args:
        average: What `frozen_copy(network)` gave.
        network: The network that is trained.
        decay: In [0, 1): 0 copies.
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
