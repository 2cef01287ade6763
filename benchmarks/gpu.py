"""Prove the package on one CUDA device: profile, ceiling, whole trainings, resuming, restoration, in at most 8 minutes.

    python benchmarks/gpu.py --out benchmarks/results
    python benchmarks/gpu.py --out gpu --parts profile ceiling --minutes 3
    python benchmarks/gpu.py --device cpu --quick --out /tmp/gpu

Writes train_cuda.md, checks_cuda.md and restoration_cuda.md to --out, and the errors of the parts to gpu_log.txt; all
else goes to a temporary folder. Each part is a process of its own with a limit of time: one that fails or hangs leaves
the rows that it had measured, and the next ones run. Needs neither a network nor wandb.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

import gpu_environment  # noqa: F401  first: it sets what torch reads when it is imported
import gpu_graphs
import gpu_restoration
import gpu_runs
import gpu_training
import torch
from gpu_setup import QUICK, Setup, Sizes
from report import print_header, quieten_lightning


@dataclass(frozen=True)
class Part:
    """A part of the benchmark.

    Attributes:
        work: Prints tables.
        table: Which file they are written to.
        limit: Seconds after which the part is ended.
    """

    work: Callable[[Setup], None]
    table: str
    limit: int


# The most informative first; `faces` makes the data of all that follow, `fit` the generator that is restored with.
PARTS = {
    "profile": Part(gpu_training.profile, "train", 60),
    "graphs": Part(gpu_graphs.graphs, "checks", 60),
    "faces": Part(gpu_training.faces, "train", 60),
    "syncs": Part(gpu_training.syncs, "train", 45),
    "ceiling": Part(gpu_training.ceiling, "train", 75),
    "end_to_end": Part(gpu_training.end_to_end, "train", 110),
    "ddp": Part(gpu_training.ddp, "checks", 40),
    "everything": Part(gpu_training.everything, "checks", 60),
    "fit": Part(gpu_runs.fit, "checks", 60),
    "throughput": Part(gpu_restoration.throughput, "restoration", 60),
    "batches": Part(gpu_restoration.batches, "restoration", 75),
    "blind": Part(gpu_restoration.blind, "restoration", 40),
    "resume": Part(gpu_runs.resume, "checks", 90),
    "cold": Part(gpu_runs.cold, "checks", 60),
    "evaluate": Part(gpu_runs.evaluate, "checks", 45),
    "choices": Part(gpu_restoration.choices, "restoration", 40),
    "compile": Part(gpu_training.compiled, "checks", 90),
}
TITLES = {
    "train": "Training on one GPU",
    "checks": "Checks on one GPU",
    "restoration": "Restoration on one GPU",
}


def child(work: Callable[[Setup], None], setup: Setup, output: Path, log: Path) -> None:
    """Run a part in this process, which is its own: prints to `output`, errors to `log`."""
    os.setsid()  # so that the processes that it starts end with it
    os.chdir(setup.folder)
    for stream, path in ((sys.stdout, output), (sys.stderr, log)):
        stream.flush()
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), stream.fileno())
    quieten_lightning()
    try:
        work(setup)
    except Exception:
        traceback.print_exc()
        sys.exit(1)


class Runner:
    """Runs parts one after the other, and keeps the tables up to date.

    Args:
        setup: What the parts are run with.
        out: Folder of the tables and the log.
        minutes: Time for all parts together.
    """

    def __init__(self, setup: Setup, out: Path, minutes: float) -> None:
        self.setup, self.out, self.until = setup, out, time.monotonic() + 60 * minutes
        self.log = out / "gpu_log.txt"
        self.tables: dict[str, str] = {}
        self.failed: list[str] = []
        self.context = multiprocessing.get_context("fork")

    def run(self, name: str, work: Callable[[Setup], None], limit: float) -> str:
        """Run a part to its end or to its limit; return what it printed, and what became of it."""
        limit = min(limit, self.until - time.monotonic())
        if limit < 2:
            self.failed.append(name)
            return f"- {name}: left out, the time is up\n\n"
        output = self.setup.folder / f"{name}.md"
        with self.log.open("a") as file:
            file.write(f"=== {name}\n")
        started = time.monotonic()
        process = self.context.Process(target=child, args=(work, self.setup, output, self.log))
        process.start()
        process.join(limit)
        hung = process.is_alive()
        with suppress(ProcessLookupError, PermissionError):  # all have ended
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.kill()
        process.join()
        text = output.read_text() if output.is_file() else ""
        text = text if not text or text.endswith("\n\n") else text + "\n"
        what = f"ended after its limit of {limit:.0f} s" if hung else f"{time.monotonic() - started:.1f} s"
        if process.exitcode:
            self.failed.append(name)
            what += "" if hung else f", FAILED: {self._last_error()}"
        return f"{text}- part {name}: {what}\n\n"

    def _last_error(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][:300] if lines else "no error was printed"

    def add(self, table: str, text: str) -> None:
        """Print what a part gave, and write its table anew."""
        print(text, end="", flush=True)
        self.tables[table] = self.tables.get(table, "") + text
        if table in TITLES:
            content = f"# {TITLES[table]}\n{self.tables['header']}{self.tables[table]}"
            (self.out / f"{table}_{self.setup.device}.md").write_text(content.rstrip("\n") + "\n")


def header(setup: Setup) -> None:
    """Print the lines on command, versions and hardware; fail if the device cannot be used."""
    torch.zeros(1, device=setup.device)
    printed = io.StringIO()
    with redirect_stdout(printed):
        print_header("")
    lines = printed.getvalue().rstrip("\n").splitlines()[1:]
    if setup.cuda:
        properties = torch.cuda.get_device_properties(0)
        lines.append(
            f"- GPU: {properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}, "
            f"cuDNN {torch.backends.cudnn.version()}"
        )
    print("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables; made if missing")
    parser.add_argument("--quick", action="store_true", help="small networks and few steps: a trial of the script")
    parser.add_argument("--minutes", type=float, default=8.0, help="time for all parts together")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    options = parser.parse_args()
    sys.argv[0] = __file__  # parts work in another folder
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    (out / "gpu_log.txt").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
        caches = {
            "GAN_LIGHTNING_CACHE": "cache",
            "TORCHINDUCTOR_CACHE_DIR": "inductor",
            "TRITON_CACHE_DIR": "triton",
            "CUDA_CACHE_PATH": "cuda",
            "MPLCONFIGDIR": "matplotlib",
        }
        os.environ |= {name: str(Path(folder) / place) for name, place in caches.items()}
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        setup = Setup(options.device, QUICK if options.quick else Sizes(), Path(folder))
        runner = Runner(setup, out, options.minutes)
        text = runner.run("header", header, 60)
        if runner.failed:  # a driver that does not stand a fork
            print(text, "Parts are started anew instead of forked.\n", flush=True)
            runner.failed, runner.context = [], multiprocessing.get_context("spawn")
            (setup.folder / "header.md").unlink(missing_ok=True)
            text = runner.run("header", header, 60)
        if runner.failed:
            sys.exit(f"{options.device} cannot be used: see {runner.log}")
        runner.add("header", text.replace("- part header: ", "- started in "))
        for name in options.parts:
            part = PARTS[name]
            runner.add(part.table, runner.run(name, part.work, part.limit))
    rows = sum(text.count("| FAILED") for text in runner.tables.values())
    print(f"Parts that failed or were ended: {', '.join(runner.failed) or 'none'}; rows that failed: {rows}.")
    sys.exit(bool(runner.failed or rows))


if __name__ == "__main__":
    main()
