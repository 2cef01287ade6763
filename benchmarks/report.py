"""Shared code of the benchmarks: headers that state the provenance, tables, and alternating measurements."""

from __future__ import annotations

import atexit
import logging
import shlex
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from gan_lightning.callbacks.summary import versions
from gan_lightning.hardware import hardware

STARTED = time.monotonic()
Rates = dict[str, list[float]]


def print_header(title: str, *notes: str) -> None:
    """Print the title, command, commit, versions and hardware, and at exit the duration."""
    atexit.register(lambda: print(f"Made in {time.monotonic() - STARTED:,.0f} s."))
    script = Path(sys.argv[0]).resolve()
    root = script.parents[1]
    command = ["python", script.relative_to(root).as_posix(), *sys.argv[1:]]
    machine = hardware()
    processors = [f"{machine['processor']}, {machine['cores']} cores, {torch.get_num_threads()} thread(s) of torch"]
    print(f"# {title}\n")
    print(f"- command: `{shlex.join(command)}`")
    print(f"- commit: {commit(root)}")
    print(f"- versions: {', '.join(f'{name} {number}' for name, number in versions().items())}")
    print(f"- hardware: {'; '.join(processors + machine['gpus'])}")
    for note in notes:
        print(f"- {note}")
    print(flush=True)


def commit(root: Path) -> str:
    """Return the git commit of the sources, and whether they have uncommitted changes."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + (" with changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table with the first column left-aligned and the others right-aligned."""
    print(f"| {' | '.join(columns)} |")
    print(f"| --- |{' ---: |' * (len(columns) - 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(flush=True)


def measure_in_turn(candidates: Mapping[str, Callable[[], float]], repeats: int) -> Rates:
    """Measure all candidates once, `repeats` times, so that changes in the load of the machine affect all of them.

    The order is reversed in every other round.
    """
    rates: Rates = {name: [] for name in candidates}
    for repeat in range(repeats):
        for name in list(candidates)[:: -1 if repeat % 2 else 1]:
            rates[name].append(candidates[name]())
    return rates


def ratio(rates: Rates, name: str, reference: str) -> float:
    """Return the median over all rounds of the ratio of two candidates in the same round."""
    return statistics.median(one / other for one, other in zip(rates[name], rates[reference], strict=True))


def spread(values: Sequence[float]) -> str:
    """Format the median, minimum and maximum of rates."""
    return f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def quieten_lightning() -> None:
    """Silence the messages of the Trainer."""
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
