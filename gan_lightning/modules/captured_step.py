"""A training step as a CUDA graph: the tensors that it reads and writes, and what else it was captured with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

NETWORKS = ("generator", "discriminator")
OPTIONS = (
    "objective",
    "penalties",
    "penalty_interval",
    "label_smoothing",
    "gradient_clip",
    "fresh_latents",
    "augmentation",
)

Inputs = tuple[Tensor, ...]


@dataclass
class CapturedStep:
    """A step as a CUDA graph, with the tensors that it reads and writes.

    Attributes:
        graph: The graph.
        inputs: Images (B,C,H,W), and labels (B,) if there are classes, that it reads.
        outputs: What it writes.
        optimizers: Optimizers that take a step in it.
        rates: Learning rates that it reads, one for each parameter group of each optimizer.
        settings: The other settings of the optimizers at the capture.
        state: What else the step depended on.
    """

    graph: torch.cuda.CUDAGraph
    inputs: Inputs
    outputs: dict[str, Tensor]
    optimizers: Sequence[Optimizer]
    rates: list[list[RateTensor]]
    settings: list[list[dict[str, Any]]]
    state: list[Any]

    def fits(self, inputs: Inputs, state: list[Any]) -> bool:
        """Whether the graph does what the step would do for these inputs, in this state of the module."""
        same = [tensor.shape for tensor in inputs] == [tensor.shape for tensor in self.inputs]
        same = same and self.settings == list(map(settings_of, self.optimizers))
        return same and self.state == state

    def replay(self, inputs: Inputs) -> dict[str, Tensor]:
        """Launch the graph."""
        for ours, theirs in zip(self.inputs, inputs, strict=True):
            ours.copy_(theirs)
        for optimizer, rates in zip(self.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                rate.set(group["lr"])
        self.graph.replay()
        return self.outputs


class RateTensor:
    """A learning rate on the device, written only when it changes."""

    def __init__(self, value: float, device: torch.device) -> None:
        self.value, self.tensor = value, torch.tensor(value, device=device)

    def set(self, value: float) -> None:
        """Change the value."""
        if value != self.value:
            self.tensor.fill_(value)
            self.value = value


def rate_tensors(optimizer: Optimizer, device: torch.device) -> list[RateTensor]:
    """Return the learning rates of an optimizer's parameter groups as tensors."""
    return [RateTensor(float(group["lr"]), device) for group in optimizer.param_groups]


@contextmanager
def rates_in_tensors(optimizers: Sequence[Optimizer], rates: Sequence[Sequence[RateTensor]]) -> Iterator[None]:
    """Let optimizers read their learning rates from tensors, as a capture needs; checkpoints hold plain numbers."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    before = [{"lr": group["lr"], "capturable": group["capturable"]} for group in groups]
    for group, rate in zip(groups, (rate for part in rates for rate in part), strict=True):
        group.update(lr=rate.tensor, capturable=True)
    try:
        yield
    finally:
        for group, settings in zip(groups, before, strict=True):
            group.update(settings)


def settings_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Return the settings of an optimizer that a graph cannot change: all but the learning rates."""
    outside = ("params", "lr", "initial_lr")
    return [{name: value for name, value in group.items() if name not in outside} for group in optimizer.param_groups]


def state_of(module: LightningModule) -> list[Any]:
    """Return what a step depends on besides images and optimizers: options, modes, and which tensors are where."""
    networks = [network for name in NETWORKS if isinstance(network := getattr(module, name, None), nn.Module)]
    state: list[Any] = [getattr(module, name, None) for name in OPTIONS]
    for network in networks:
        state += [part.training for part in network.modules()]
        state += [(parameter.data_ptr(), parameter.requires_grad) for parameter in network.parameters()]
        state += [buffer.data_ptr() for buffer in network.buffers()]
    return state
