"""Images per second of the synthetic faces, including JPEG files.

    OMP_NUM_THREADS=1 python benchmarks/synthesize_throughput.py

Prints a Markdown table for one process and for one process per core.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from statistics import median

import environment  # noqa: F401  first: it sets what torch reads when it is imported
from report import measure_in_turn, print_header, print_table, spread

from gan_lightning.faces.synthesis import synthesize
from gan_lightning.hardware import count_cores


def images_per_second(count: int, num_workers: int) -> float:
    """Render to an empty folder, including the start of the processes."""
    with tempfile.TemporaryDirectory() as root:
        started = time.perf_counter()
        synthesize(root, count, num_workers=num_workers, progress=False)
        return count / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="number of faces")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    cores = count_cores()
    print_header(
        "Synthetic faces: throughput",
        f"{arguments.count} images of 178 x 218 pixels, rendered, labelled and written as JPEG",
        f"median (least to greatest) of {arguments.repeats} runs, in turn",
    )
    candidates = {str(n): partial(images_per_second, arguments.count, n) for n in dict.fromkeys((1, cores))}
    rates = measure_in_turn(candidates, arguments.repeats)
    rows = [[n, spread(values), f"{median(values) / int(n):.0f}"] for n, values in rates.items()]
    print_table(["processes", "images/s", "images/s per core"], rows)


if __name__ == "__main__":
    main()
