"""The page of `gan-lightning report`: seconds and bytes for runs with many grids of samples.

    python benchmarks/report_size.py
    python benchmarks/report_size.py --runs 2 --grids 5

The runs are made up, in the files that a run writes: curves of 25,000 steps, and grids of 64 faces at 64 px from a pool
of rendered faces, beside as many of the generator's and real ones. Nothing is as hard to compress as faces that differ
in every grid: the grids of a real run are smaller.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import environment  # noqa: F401  first: it sets what torch reads when it is imported
import numpy as np
import torch
import yaml
from report import print_header, print_table
from torch import Tensor

from gan_lightning.callbacks.samples import side_by_side
from gan_lightning.callbacks.summary import write_json
from gan_lightning.data.decode import CropResize, decode_image
from gan_lightning.faces.synthesis import synthesize
from gan_lightning.images import make_grid, write_png

SIDE, STEPS, EVERY = 64, 25_000, 50
ADDRESS = re.compile(r"""(?:src|href|url\(|xlink:href)\s*=?\s*["'(]?\s*(?:https?:)?//""")

PICTURE = re.compile(r'base64,[^"]*')  # whose letters may spell "src//"


def faces(folder: Path, count: int) -> Tensor:
    """Render faces: (N,3,64,64) uint8."""
    synthesize(folder, count, progress=False)
    files = sorted(folder.rglob("*.jpg"))
    pixels = np.stack([decode_image(path, CropResize(SIDE, 178, 3)) for path in files])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def make_run(folder: Path, number: int, grids: int, pool: Tensor) -> None:
    """Write the files of a run."""
    rng = np.random.default_rng(number)
    folder.mkdir(parents=True)
    model = {"class_path": "gan_lightning.DCGAN", "init_args": {"lr_g": 1e-4 * (number + 1), "image_size": SIDE}}
    data = {"class_path": "gan_lightning.CelebA", "init_args": {"image_size": SIDE, "batch_size": 128}}
    config = {"model": model, "data": data, "seed_everything": number}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    train = [
        "train/loss_d",
        "train/loss_g",
        "train/grad_norm_d",
        "train/grad_norm_g",
        "train/d_x",
        "train/d_g_z_before",
    ]
    train += ["train/d_g_z_after", "train/images_per_second", "train/lr_g"]
    val = ["val/fid", "val/kid", "val/precision", "val/recall", "val/d_x"]
    lines = [",".join(["step", "images_seen", *train, *val])]
    evaluated = np.linspace(0, STEPS, grids, dtype=int) // EVERY * EVERY
    for step in range(0, STEPS + 1, EVERY):
        values = [*rng.lognormal(0, 0.3, len(train) - 2), rng.normal(1500, 50), 1e-4]
        measured = (
            (200 * np.exp(-step / 5000) + rng.normal(10, 1, len(val))).tolist()
            if step in evaluated
            else [""] * len(val)
        )
        lines.append(",".join(map(str, [step, step * 128, *values, *measured])))
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    protocol = {"dataset": "celeba", "split": "val", "num_images": 10_000, "extractor": "inception-2015-12-05"}
    write_json(
        folder / "summary.json", {"status": "finished", "g_steps": STEPS, "protocol": dict.fromkeys(val, protocol)}
    )
    real = make_grid(pool[:64])
    for step in np.unique(evaluated):
        sides = {title: make_grid(pool[rng.permutation(len(pool))[:64]]) for title in ("averaged", "generator")}
        write_png(folder / "samples" / f"step-{step:07d}.png", side_by_side({**sides, "real": real}))


def processor_seconds() -> float:
    """Return the processor time of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--grids", type=int, default=50, help="number of grids in a run")
    parser.add_argument("--faces", type=int, default=512, help="number of faces that grids are made of")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    print_header(
        "Report: size and time of the page",
        f"{arguments.runs} runs, each with {arguments.grids} grids of 64 faces of {SIDE} px (three side by side), and "
        f"{STEPS // EVERY + 1} rows of metrics",
        f"seconds of the whole command, imports included: median (least to greatest) of {arguments.repeats} runs",
        f"load of the machine before the first run: {load:.1f}",
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pool = faces(folder / "faces", arguments.faces)
        runs = [folder / f"run-{number}" for number in range(arguments.runs)]
        for number, run in enumerate(runs):
            make_run(run, number, arguments.grids, pool)
        page = folder / "report.html"
        seconds, processor = [], []
        for _ in range(arguments.repeats):
            started, before = time.perf_counter(), processor_seconds()
            words = [sys.executable, "-m", "gan_lightning", "report", *map(str, runs), "--output", str(page)]
            subprocess.run(words, check=True, capture_output=True)
            seconds.append(time.perf_counter() - started)
            processor.append(processor_seconds() - before)
        text = page.read_text()
        read = sum(path.stat().st_size for run in runs for path in run.rglob("*.png"))
        seconds.sort()
        width = re.search(r'<img[^>]* width="(\d+)"[^>]*data-step', text)
        rows = [
            ["seconds", f"{statistics.median(seconds):.1f} ({seconds[0]:.1f} to {seconds[-1]:.1f})"],
            ["seconds of processor time", f"{statistics.median(processor):.1f}"],
            ["bytes of the page", f"{page.stat().st_size:,}"],
            ["bytes of the PNG files that it shows", f"{read:,}"],
            ["grids on the page", str(text.count('data-step="'))],
            ["width of a grid in pixels", width[1] if width else "none"],
            ["addresses that a browser would fetch", str(len(ADDRESS.findall(PICTURE.sub("", text))))],
        ]
        print_table(["what", "value"], rows)


if __name__ == "__main__":
    main()
