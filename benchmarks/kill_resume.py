"""Compare a run that is killed at random moments and resumed each time with an uninterrupted one, bit for bit.

    python benchmarks/kill_resume.py > benchmarks/results/kill_resume.md

SIGKILL is sent to the whole process group, and the run is resumed with `--ckpt_path last`. A third of the kills wait
until a checkpoint is being written. Columns that contain timings are excluded from the comparison; everything else must
be equal.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import environment  # noqa: F401  first: it sets what torch reads when it is imported
import torch
from report import print_header, print_table

from gan_lightning.networks.checkpoints import check_whole

STEPS, EVERY, VALIDATION = 400, 7, 25
OPTIONS = {
    "config": Path(__file__).resolve().parents[1] / "configs" / "quickstart.yaml",
    "model.image_size": 16,
    "model.base_channels": 16,
    "data.root": "faces",
    "data.count": 400,
    "data.image_size": 16,
    "data.batch_size": 16,
    "evaluation.num_images": 32,
    "sample_grid.num_images": 16,
    "last_checkpoint.every_n_steps": EVERY,
    "trainer.max_steps": STEPS,
    "trainer.val_check_interval": VALIDATION,
    "trainer.log_every_n_steps": 1,
    "trainer.enable_progress_bar": "false",
}

COUNTS = ("kills", "before the first checkpoint", "while a file was being written", "most steps lost by a kill")
COUNTS += ("runs killed and resumed", "differences")


def start(name: str, folder: Path, ranks: int) -> subprocess.Popen[bytes]:
    """Start or resume a run in its own process group."""
    options = OPTIONS | {"name": name, "trainer.devices": ranks}
    if (folder / "runs" / name).is_dir():
        options["ckpt_path"] = "last"
    arguments = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    variables = os.environ | {"GAN_LIGHTNING_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "gan_lightning", "fit", *arguments],
            cwd=folder,
            env=variables,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def parts(run: Path) -> list[Path]:
    """Return the files that are being written, or were when the run was killed."""
    return list((run / "checkpoints").glob(".*.part"))


def wait_for_the_moment(process: subprocess.Popen[bytes], run: Path, seconds: float, in_write: bool) -> None:
    """Wait for a number of seconds, and then for the next checkpoint if `in_write`, or until the process ends."""
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    while in_write and process.poll() is None and not parts(run):
        pass


def run_with_kills(name: str, folder: Path, ranks: int, kills: int, whole_seconds: float, found: Counter[str]) -> int:
    """Train to the end with up to `kills` kills; return the number of kills."""
    run, done = folder / "runs" / name, 0
    while True:
        process = start(name, folder, ranks)
        if done < kills:
            in_write = done % 3 == 2
            wait_for_the_moment(process, run, random.uniform(0, 0.75 * whole_seconds), in_write)
        else:
            process.wait()
        if process.poll() is not None:
            if process.returncode:
                raise SystemExit(f"{name} ended with status {process.returncode}: see {folder / name}.log")
            return done
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        done += 1
        note(run, found)


def note(run: Path, found: Counter[str]) -> None:
    """Check the files that a kill has left, and count the lost steps."""
    last = run / "checkpoints" / "last.ckpt"
    for path in (run / "checkpoints").glob("*.ckpt"):
        check_whole(path)
        torch.load(path, weights_only=True)
    found["before the first checkpoint"] += not last.exists()
    found["while a file was being written"] += bool(parts(run))
    logged = [int(row["step"]) for row in rows(run)]
    saved = torch.load(last, weights_only=True)["global_step"] if last.exists() else 0
    found["most steps lost by a kill"] = max(found["most steps lost by a kill"], max(logged, default=0) - saved)


def rows(run: Path) -> list[dict[str, str]]:
    """Return the rows of metrics.csv without timings."""
    if not (run / "metrics.csv").exists():
        return []
    with (run / "metrics.csv").open(newline="") as file:
        return [
            {name: value for name, value in row.items() if "per_second" not in name} for row in csv.DictReader(file)
        ]


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Return the paths of all differences between two trees of dicts, lists, tensors and plain values."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if one.equal(other) else [path]
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [found for key in one for found in differences(one[key], other[key], f"{path}/{key}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [
            found
            for key, pair in enumerate(zip(one, other, strict=True))
            for found in differences(*pair, f"{path}/{key}")
        ]
    return [] if one == other else [path]


def compare(whole: Path, resumed: Path) -> list[str]:
    """Return the names of everything that differs between two runs."""
    found = differences(rows(whole), rows(resumed), "metrics.csv")
    for name in ("last.ckpt", "best.ckpt"):
        one, other = (torch.load(run / "checkpoints" / name, weights_only=True) for run in (whole, resumed))
        for key in ("state_dict", "optimizer_states", "global_step", "epoch"):
            found += differences(one[key], other[key], f"{name}/{key}")
    pictures = [{path.name: path.read_bytes() for path in (run / "samples").iterdir()} for run in (whole, resumed)]
    return found + differences(pictures[0], pictures[1], "samples")


def measure(folder: Path, ranks: int, kills: int) -> tuple[list[str], list[str]]:
    """Return the counts for a number of ranks, in the order of COUNTS, and the names of everything that differed."""
    folder.mkdir(parents=True, exist_ok=True)
    start("packed", folder, ranks).wait()  # renders and packs the faces for the other runs
    started = time.monotonic()
    if start("whole", folder, ranks).wait():
        raise SystemExit(f"the run failed: see {folder / 'whole.log'}")
    seconds = time.monotonic() - started
    found: Counter[str] = Counter()
    left, runs, wrong = kills, 0, []
    while left:
        name = f"killed-{runs}"
        left -= run_with_kills(name, folder, ranks, left, seconds, found)
        runs += 1
        differing = compare(folder / "runs" / "whole", folder / "runs" / name)
        wrong += [f"{ranks} rank(s), {name}: {which}" for which in differing]
    found |= {"kills": kills, "runs killed and resumed": runs, "differences": len(wrong)}
    return [str(found[name]) for name in COUNTS] + [f"{seconds:.0f}"], wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="number of kills, over as many runs as necessary")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2], help="numbers of ranks to test, one core each")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments of the kills")
    parser.add_argument("--folder", type=Path, help="working folder; a temporary folder by default")
    options = parser.parse_args()
    random.seed(options.seed)
    folder = (options.folder or Path(tempfile.mkdtemp())).resolve()
    print_header(
        "Killed and resumed",
        f"{STEPS} G iterations of 16 px, validation every {VALIDATION}, last.ckpt every {EVERY}",
        "compared bit for bit: networks, averages, optimizers, best.ckpt, images, and metrics.csv without timings",
    )
    measured = [measure(folder / f"ranks-{ranks}", ranks, options.kills) for ranks in options.ranks]
    names = [*COUNTS, "seconds of the uninterrupted run"]
    table = [[name, *values] for name, *values in zip(names, *(column for column, _ in measured), strict=True)]
    print_table(["quantity", *(f"{ranks} rank(s)" for ranks in options.ranks)], table)
    wrong = [which for _, differing in measured for which in differing]
    for which in wrong:
        print(f"- {which}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
