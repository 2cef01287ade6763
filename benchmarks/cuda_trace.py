"""Activity of a GPU and its waits: kernels of a profiler's trace, and synchronizations by line."""

from __future__ import annotations

import json
import linecache
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

SYNCHRONIZING = "called a synchronizing CUDA operation"  # torch's warning, since 1.9


@dataclass
class TraceSummary:
    """Counts and times of a trace, over all of its steps.

    Attributes:
        kernels: Number of kernels launched.
        busy_ms: Time in which at least one kernel, copy or fill was running.
        copies: Number of copies by kind: "HtoD", "DtoH", "DtoD".
        synchronizations: Number of calls in which the host waited for the device.
        launches: Number of calls that launched a kernel, or a graph of kernels.
        by_kernel: Time in milliseconds and number of each kernel, by name.
    """

    kernels: int = 0
    busy_ms: float = 0.0
    copies: Counter[str] = field(default_factory=Counter)
    synchronizations: int = 0
    launches: int = 0
    by_kernel: dict[str, tuple[float, int]] = field(default_factory=dict)

    def slowest(self, count: int) -> list[tuple[str, float, int]]:
        """Return the name, the time in milliseconds and the number of the kernels that took most time."""
        ranked = sorted(self.by_kernel.items(), key=lambda item: -item[1][0])
        return [(name, *figures) for name, figures in ranked[:count]]


def summarize_trace(events: Sequence[Mapping[str, Any]]) -> TraceSummary:
    """Summarize the events of a Chrome trace, as torch.profiler exports it.

    Args:
        events: "traceEvents" of the trace; times are in microseconds.
    """
    summary, spans = TraceSummary(), []
    for event in events:
        category, name = event.get("cat"), str(event.get("name", ""))
        if category in ("kernel", "gpu_memcpy", "gpu_memset"):
            spans.append((event["ts"], event["ts"] + event["dur"]))
        if category == "kernel":
            summary.kernels += 1
            milliseconds, number = summary.by_kernel.get(name, (0.0, 0))
            summary.by_kernel[name] = (milliseconds + event["dur"] / 1000, number + 1)
        elif category == "gpu_memcpy":
            summary.copies.update(kind for kind in ("HtoD", "DtoH", "DtoD") if kind in name)
        elif category in ("cuda_runtime", "cuda_driver"):
            summary.synchronizations += "Synchronize" in name
            summary.launches += "Launch" in name
    end = float("-inf")
    for start, stop in sorted(spans):  # streams overlap
        summary.busy_ms += max(0.0, stop - max(start, end)) / 1000
        end = max(end, stop)
    return summary


@contextmanager
def traced() -> Iterator[Callable[[], TraceSummary]]:
    """Trace what the GPU does; the function that is yielded summarizes it afterwards."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities = [torch.profiler.ProfilerActivity.CUDA]
    profiler = torch.profiler.profile(activities=activities)

    def summarize() -> TraceSummary:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            profiler.export_chrome_trace(str(path))
            return summarize_trace(json.loads(path.read_text())["traceEvents"])

    profiler.start()
    try:
        yield summarize
    finally:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        profiler.stop()


class SynchronizationCounter:
    """Counts the operations by which the host waits for the device, by the line of the package that calls them."""

    def __init__(self) -> None:
        self.lines: Counter[str] = Counter()

    def start(self) -> None:
        """Make torch warn of each such operation, and count the warnings."""
        self._filters, self._show = warnings.filters[:], warnings.showwarning
        warnings.simplefilter("always")
        warnings.showwarning = self._count  # type: ignore[assignment]
        torch.cuda.set_sync_debug_mode("warn")

    def stop(self) -> None:
        """Warn as before."""
        torch.cuda.set_sync_debug_mode("default")
        warnings.filters[:], warnings.showwarning = self._filters, self._show  # type: ignore[index]

    def _count(self, message: Any, *_: Any, **__: Any) -> None:
        if SYNCHRONIZING in str(message):
            self.lines[calling_line(traceback.extract_stack()[:-1])] += 1


def calling_line(stack: Sequence[traceback.FrameSummary]) -> str:
    """Return file, line and text of the innermost frame that is ours; of the innermost but torch's if none is."""
    mine = [frame for frame in stack if "/gan_lightning/" in frame.filename]
    others = [frame for frame in stack if "-packages/torch/" not in frame.filename and "warnings" not in frame.filename]
    frame = (mine or others or stack)[-1]
    name = "/".join(Path(frame.filename).parts[-3:])
    text = frame.line or linecache.getline(frame.filename, frame.lineno or 0).strip()
    return f"{name}:{frame.lineno} `{text}`"
