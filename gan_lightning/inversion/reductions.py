"""Sums over the values of each image that are bit-identical in any batch.

On a CPU, PyTorch splits a sum with a single result among its threads, which changes the order of the additions. The sum
for a single large image would then differ from that of the same image in a batch of two.
"""

from __future__ import annotations

from torch import Tensor


def sum_of_each(values: Tensor, axes: tuple[int, ...] = (1,), keepdim: bool = False) -> Tensor:
    """Return the sums of values (B,...) over some axes other than that of the batch."""
    if len(values) > 1 or values.device.type != "cpu":
        return values.sum(axes, keepdim)
    return values.expand(2, *values.shape[1:]).sum(axes, keepdim)[:1]


def mean_of_each(values: Tensor) -> Tensor:
    """Return the mean (B,) of values (B,...) of each image."""
    rows = values.flatten(1)
    if len(rows) > 1 or rows.device.type != "cpu":
        return rows.mean(1)
    return rows.expand(2, -1).mean(1)[:1]
