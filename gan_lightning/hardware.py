"""The machine of a process: cores, processor, GPUs, and peak memory.

torch is only imported when it is needed, because the processes that render synthetic faces do not need it.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hardware() -> dict[str, Any]:
    """Return the name of the processor, the number of cores that this process may use, and the names of the GPUs."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"processor": processor_name(), "cores": count_cores(), "gpus": gpus}


def processor_name() -> str:
    """Return the name of the processor as the system reports it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def peak_memory() -> dict[str, int]:
    """Return the peak memory in bytes: "host" of this process, and "cuda" of its tensors if there is a GPU."""
    import resource  # not on Windows

    import torch

    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.cuda.is_available():
        peak["cuda"] = torch.cuda.max_memory_allocated()
    return peak
