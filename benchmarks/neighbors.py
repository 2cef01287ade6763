"""Precision, recall, density and coverage: seconds and memory, compared with other programs on the same features.

    python benchmarks/neighbors.py
    python benchmarks/neighbors.py --images 2000 --repeats 1

Each program runs in a process of its own. torch-fidelity's computes precision and recall only; the naive one holds all
distances at once, as the code of Naeem et al. does, by torch.cdist in float64.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from statistics import median

import environment  # noqa: F401  first: it sets what torch reads when it is imported
import torch
from report import print_header, print_table
from torch import Tensor

from gan_lightning.metrics.neighbors import neighbor_metrics


def features(images: int, width: int) -> tuple[Tensor, Tensor]:
    """Return features of real and of generated images that are like Inception's: positive, and of low rank."""
    rng = torch.Generator().manual_seed(0)
    mixing = torch.randn(64, width, generator=rng) / 8
    real, fake = (torch.randn(images, 64, generator=rng) for _ in range(2))
    noise = torch.randn(2, images, width, generator=rng) * 0.2
    return (real @ mixing + noise[0]).relu(), (0.9 * fake @ mixing + 0.05 + noise[1]).relu()


def ours(real: Tensor, fake: Tensor) -> dict[str, float]:
    return neighbor_metrics(real, fake)


def naive(real: Tensor, fake: Tensor) -> dict[str, float]:
    """The definitions, with all distances at once."""
    real, fake = real.double(), fake.double()
    of_real, of_fake = (torch.cdist(each, each).sort(1).values for each in (real, fake))
    between = torch.cdist(real, fake)
    return {
        "precision": float((between <= of_real[:, 3, None]).any(0).double().mean()),
        "recall": float((between <= of_fake[None, :, 3]).any(1).double().mean()),
        "density": float((between < of_real[:, 5, None]).sum(0).double().mean() / 5),
        "coverage": float((between.amin(1) < of_real[:, 5]).double().mean()),
    }


def torch_fidelity(real: Tensor, fake: Tensor) -> dict[str, float]:
    from torch_fidelity.metric_prc import prc_features_to_metric

    found = prc_features_to_metric(
        fake, real, prc_neighborhood=3, prc_batch_size=10_000, save_cpu_ram=False, verbose=False
    )
    return {name: found[name] for name in ("precision", "recall")}


PROGRAMS = {"gan-lightning": ours, "naive, all at once": naive, "torch-fidelity (two metrics)": torch_fidelity}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="number of images on each side")
    parser.add_argument("--width", type=int, default=2048, help="number of features")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--program", choices=PROGRAMS, help=argparse.SUPPRESS)  # what the processes are given
    arguments = parser.parse_args()
    if arguments.program:
        real, fake = features(arguments.images, arguments.width)
        before, used = peak(), time.process_time()
        started = time.perf_counter()
        values = PROGRAMS[arguments.program](real, fake)
        seconds, processor = time.perf_counter() - started, time.process_time() - used
        print(json.dumps({"seconds": seconds, "processor": processor, "bytes": peak() - before, "values": values}))
        return
    load = os.getloadavg()[0]
    print_header(
        "Neighbor metrics: time and memory",
        f"{arguments.images:,} against {arguments.images:,} features of width {arguments.width:,}, in float32",
        f"seconds: median (least to greatest) of {arguments.repeats} runs in turn; memory: beyond the features",
        f"seconds of processor time count both cores; load of the machine before the first run: {load:.1f}",
    )
    results = measure(arguments)
    rows = []
    for program, found in results.items():
        seconds = sorted(result["seconds"] for result in found)
        values = found[0]["values"]
        rows.append(
            [
                program,
                f"{median(seconds):.1f} ({seconds[0]:.1f} to {seconds[-1]:.1f})",
                f"{median(result['processor'] for result in found):.0f}",
                f"{max(result['bytes'] for result in found) / 1e9:.2f} GB",
                *(f"{values[name]:.6f}" if name in values else "" for name in NAMES),
            ]
        )
    print_table(["program", "seconds", "processor time", "memory", *NAMES], rows)


NAMES = ("precision", "recall", "density", "coverage")


def measure(arguments: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Run each program in turn, each time in a new process."""
    results: dict[str, list[dict[str, float]]] = {program: [] for program in PROGRAMS}
    for _ in range(arguments.repeats):
        for program, found in results.items():
            words = ["--images", str(arguments.images), "--width", str(arguments.width), "--program", program]
            done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
    return results


def peak() -> int:
    """Return the most bytes of memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
