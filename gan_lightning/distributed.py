"""Communication between ranks with torch.distributed; in a single process no function communicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

T = TypeVar("T")

# How long a rank waits for another; torch's default is half an hour. An evaluation with Inception on CPUs takes hours,
# and ranks that restore photographs finish at different times. Failed ranks are noticed earlier, see
# resume/rank_watch.py.
WAIT = timedelta(hours=6)


def is_distributed() -> bool:
    """Return whether this process belongs to a process group."""
    return distributed.is_available() and distributed.is_initialized()


def rank() -> int:
    """Return the rank of this process; 0 without a process group."""
    return distributed.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Return the number of processes in the group; 1 without a process group."""
    return distributed.get_world_size() if is_distributed() else 1


def leave_group() -> None:
    """Leave a gloo process group, so that other ranks that wait for this one get an error.

    An NCCL group is not left, because that may wait for the other ranks.
    """
    if is_distributed() and distributed.get_backend() == "gloo":
        distributed.destroy_process_group()


def broadcast(value: Any) -> Any:
    """Return rank 0's value on every rank; the values of other ranks are ignored."""
    values = [value]
    if is_distributed():
        distributed.broadcast_object_list(values)
    return values[0]


def gather(value: T) -> list[T]:
    """Return the values of all ranks, in the order of the ranks, on every rank."""
    values: list[Any] = [value] * world_size()
    if is_distributed():
        distributed.all_gather_object(values, value)
    return values


@torch.no_grad()
def mean(metrics: Mapping[str, Tensor]) -> dict[str, float]:
    """Average scalars over the ranks, with equal weights; waits for the device.

    Args:
        metrics: Scalar tensors by name, with the same names on every rank.

    Returns:
        The means as Python numbers, the same on every rank.
    """
    values = torch.stack([value.detach().float() for value in metrics.values()])
    if is_distributed():
        distributed.all_reduce(values)
        values /= world_size()
    return dict(zip(metrics, values.tolist(), strict=True))


@torch.no_grad()
def average(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Average tensors over the ranks in a single message.

    Args:
        tensors: Floating-point tensors, of the same shapes on every rank.

    Returns:
        The averages, with the strides of the tensors; in a single process the tensors themselves.
    """
    if not is_distributed() or not tensors:
        return list(tensors)
    flat = torch.cat([in_order_of_memory(tensor) for tensor in tensors])
    distributed.all_reduce(flat)
    flat /= world_size()
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    return [in_order_of(tensor, part) for tensor, part in zip(tensors, parts, strict=True)]


def in_order_of_memory(tensor: Tensor) -> Tensor:
    """Return the elements (N,), without a copy if they are dense in memory, such as those of channels_last weights."""
    return tensor.as_strided((tensor.numel(),), (1,)) if is_dense(tensor) else tensor.flatten()


def in_order_of(tensor: Tensor, elements: Tensor) -> Tensor:
    """Return elements (N,), in the order of `in_order_of_memory(tensor)`, in the shape of the tensor."""
    elements = elements.to(tensor.dtype)  # a message with tensors of several types has the widest one
    if not is_dense(tensor):
        return elements.view_as(tensor)
    return elements.as_strided(tensor.shape, tensor.stride(), elements.storage_offset())


def is_dense(tensor: Tensor) -> bool:
    """Return whether the elements fill one block of memory, in any order of the dimensions."""
    expected = 1
    for stride, size in sorted((stride, size) for size, stride in zip(tensor.shape, tensor.stride(), strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


@torch.no_grad()
def average_buffers(*networks: nn.Module) -> None:
    """Average the floating-point buffers of networks over the ranks, in place.

    Batch-norm statistics differ between ranks, because each rank only sees its own part of the batch.
    """
    if is_distributed():
        buffers = float_buffers(*networks)
        for buffer, mean_of_ranks in zip(buffers, average(buffers), strict=True):
            buffer.copy_(mean_of_ranks)


def float_buffers(*networks: nn.Module) -> list[Tensor]:
    """Return the floating-point buffers of networks, such as batch-norm statistics."""
    return [buffer for network in networks for buffer in network.buffers() if buffer.is_floating_point()]
