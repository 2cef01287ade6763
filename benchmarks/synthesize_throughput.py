"""Images a second of the synthetic faces, JPEG files included: python benchmarks/synthesize_throughput.py [COUNT]."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy
import PIL

from gan_lightning.data.synthesis import synthesize

REPEATS = 3  # the best of them: what other programs on the machine take is not the renderer's


def processor() -> str:
    """The processor's name, where the system tells it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def images_per_second(count: int, num_workers: int) -> float:
    """The best of some runs into an empty folder; starting the processes is included."""
    best = 0.0
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as root:
            start = time.perf_counter()
            synthesize(root, count, num_workers=num_workers, progress=False)
            best = max(best, count / (time.perf_counter() - start))
    return best


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    print("# Synthetic faces: throughput\n")
    print(f"- command: `OMP_NUM_THREADS=1 python benchmarks/synthesize_throughput.py {count}`")
    print(f"- versions: Python {platform.python_version()}, NumPy {numpy.__version__}, Pillow {PIL.__version__}")
    print(f"- hardware: {processor()}, {cores} cores")
    print(f"- {count} images of 178 x 218 pixels, rendered, labelled and written as JPEG; the best of {REPEATS} runs\n")
    print("| processes | images/s | images/s a core |\n| ---: | ---: | ---: |")
    for processes in dict.fromkeys((1, cores)):
        rate = images_per_second(count, processes)
        print(f"| {processes} | {rate:.0f} | {rate / processes:.0f} |")


if __name__ == "__main__":
    main()
