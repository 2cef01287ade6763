"""Numerical precision of a search, regardless of the settings of the caller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def float32_gradients(device: torch.device) -> Iterator[None]:
    """Compute gradients in float32 in the block: no inference mode, no autocast and, on a GPU, no TF32.

    Convolutions use TF32 by default, whose 10 bits are too few for a line search near the minimum.
    """
    switches = _switches() if device.type == "cuda" else []
    before = [getattr(owner, name) for owner, name, _ in switches]
    try:
        for owner, name, value in switches:
            setattr(owner, name, value)
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        for (owner, name, _), value in zip(switches, before, strict=True):
            setattr(owner, name, value)


def _switches() -> list[tuple[Any, str, Any]]:
    """Return the owner and the name of each switch of TF32, and its value for float32."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(cudnn, "conv"):  # the older switches cannot be read once a program has used these ones of PyTorch 2.9
        return [(cudnn.conv, "fp32_precision", "ieee"), (matmul, "fp32_precision", "ieee")]
    return [(cudnn, "allow_tf32", False), (matmul, "allow_tf32", False)]
