"""What the results of a restoration depend on, as plain values: a run resumes only one with the same."""

from __future__ import annotations

import hashlib
from typing import Any

from torch import nn

from gan_lightning.data.fingerprint import read_content


def describe(module: nn.Module) -> str:
    """Return a digest of everything that determines a module's output: classes, attributes, parameters and buffers."""
    digest = hashlib.sha256()
    for part in module.modules():
        plain = {k: v for k, v in vars(part).items() if isinstance(v, bool | int | float | str) and k != "training"}
        digest.update(f"{type(part).__name__} {sorted(plain.items())}\n".encode())
        for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def data_content(data: Any, stage: str) -> str | None:
    """Return a digest of the images of a data module, or None if the data module does not provide one."""
    if stage == "test" and hasattr(data, "protocol"):
        return str(data.protocol("test")["content"])
    if stage == "predict" and hasattr(data, "read_files"):
        return f"{read_content(data.read_files())} {getattr(data, 'resize', '')}".strip()
    return None
