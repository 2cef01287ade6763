"""Communication overhead of DDP, compared with the same number of independent trainings on the same cores.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --ranks 4 --base_channels 64 --batch_size 128

In both cases, one process per rank runs with one thread, all at the same time, and the images per second of all
processes are added. Processes keep training until the last one has been measured, so that the load is the same for all.
Only training is measured: the same batch in memory at each step, no validation, no data loading.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import repeat
from pathlib import Path
from typing import Any

import environment  # noqa: F401  first: it sets what torch reads when it is imported
import lightning as L
import torch
from report import measure_in_turn, print_header, print_table, quieten_lightning, ratio, spread
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from gan_lightning.modules.dcgan import DCGAN
from gan_lightning.resume.last_checkpoint import LastCheckpoint

NEVER = 10**9
WAIT = 0.05  # seconds between checks for the other processes
PATIENCE = 600.0


class SameBatch(IterableDataset[dict[str, Tensor]]):
    """Infinite repetition of one batch."""

    def __init__(self, batch_size: int, image_size: int) -> None:
        shape = batch_size, 3, image_size, image_size
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        self.batch = {"image": images.contiguous(memory_format=torch.channels_last)}

    def __iter__(self) -> Any:
        return repeat(self.batch)


class Barrier:
    """Barrier between processes, made of files in a shared folder."""

    def __init__(self, folder: Path, name: str, count: int) -> None:
        self.folder, self.name, self.count = folder, name, count

    def announce(self, what: str, content: str = "") -> None:
        """Announce that this process has reached a point."""
        beside = self.folder / f".{what}-{self.name}"
        beside.write_text(content)
        beside.rename(self.folder / f"{what}-{self.name}")

    def all_are(self, what: str) -> bool:
        """Return whether all processes have reached a point."""
        return len(list(self.folder.glob(f"{what}-*"))) == self.count

    def wait_for_all(self, what: str) -> None:
        """Announce a point and wait until all processes have reached it."""
        self.announce(what)
        until = time.monotonic() + PATIENCE
        while not self.all_are(what):
            if time.monotonic() > until:
                raise TimeoutError(f"the other processes did not reach {what!r}")
            time.sleep(WAIT)


class Stopwatch(L.Callback):
    """Measure some steps after a warm-up, and stop training when all processes have been measured."""

    def __init__(self, barrier: Barrier, warm_up: int, steps: int) -> None:
        self.barrier, self.warm_up, self.steps = barrier, warm_up, steps

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock, stop it, or keep training for the other processes."""
        done = trainer.global_step - self.warm_up
        if done == 0:
            self.barrier.wait_for_all("ready")
            self.started = time.perf_counter()
        if done == self.steps:
            seconds = time.perf_counter() - self.started
            self.barrier.announce("done", json.dumps(self.steps * len(batch["image"]) / seconds))
        if done >= self.steps and (trainer.world_size > 1 or self.barrier.all_are("done")):
            trainer.should_stop = True  # DDP ranks stop at the same step


def train(options: argparse.Namespace, base_channels: int) -> None:
    """Train in one of the processes."""
    quieten_lightning()
    torch.set_num_threads(1)
    L.seed_everything(0, verbose=False)
    barrier = Barrier(Path(options.folder), options.process, options.ranks)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=options.ranks if options.together else 1,
        strategy="ddp" if options.together else "auto",
        max_steps=NEVER,
        callbacks=[Stopwatch(barrier, options.warm_up, options.steps), LastCheckpoint()],  # synchronizes the ranks
        logger=False,
        log_every_n_steps=NEVER,
        limit_val_batches=0,
        enable_model_summary=False,
        enable_progress_bar=False,
        default_root_dir=options.folder,
    )
    data = SameBatch(options.batch_size, options.image_size)
    trainer.fit(DCGAN(options.image_size, base_channels=base_channels), DataLoader(data, batch_size=None))


def measure(options: argparse.Namespace, base_channels: int, together: bool) -> float:
    """Start the processes and return their total images per second."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "OMP_NUM_THREADS": "1"}
        free.close()
        given = [f"--{name}={getattr(options, name)}" for name in ("ranks", "batch_size", "image_size")]
        given += [f"--{name}={getattr(options, name)}" for name in ("warm_up", "steps")]
        given += [f"--base_channels={base_channels}", f"--folder={folder}", *["--together"] * together]
        processes = []
        for rank in range(options.ranks):
            # LOCAL_RANK tells Lightning that all processes have been started already.
            own = {"LOCAL_RANK": str(rank), "NODE_RANK": "0"} if together else {}
            command = [sys.executable, __file__, *given, f"--process={rank}"]
            processes.append(subprocess.Popen(command, env=os.environ | shared | own, stdout=subprocess.DEVNULL))
        try:
            if any(process.wait(PATIENCE) for process in processes):
                raise RuntimeError("a training failed, see its output above")
        finally:
            for process in processes:
                process.kill()
        return sum(json.loads(path.read_text()) for path in Path(folder).glob("done-*"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--base_channels", type=int, nargs="+", default=[64, 32])
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=64, help="batch size per rank")
    parser.add_argument("--warm_up", type=int, default=3, help="number of steps before the measurement")
    parser.add_argument("--steps", type=int, default=10, help="number of measured steps")
    parser.add_argument("--repeats", type=int, default=5)
    for name in ("--folder", "--process"):  # for the processes that this script starts
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--together", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process is not None:
        return train(options, *options.base_channels)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the processes are terminated too
    torch.set_num_threads(1)  # as in the processes
    print_header(
        "Training on several ranks: communication overhead",
        f"{options.image_size} px, batches of {options.batch_size} on each of {options.ranks} ranks, on cpu (gloo)",
        f"median (minimum to maximum) of {options.repeats} alternating measurements of {options.steps} steps; the "
        "overhead is the median over rounds",
    )
    rows = []
    for width in options.base_channels:
        apart, ddp = f"{width}: {options.ranks} independent trainings", f"{width}: {options.ranks} ranks of ddp"
        rates = measure_in_turn(
            {
                apart: lambda width=width: measure(options, width, together=False),  # type: ignore[misc]
                ddp: lambda width=width: measure(options, width, together=True),  # type: ignore[misc]
            },
            options.repeats,
        )
        seconds = statistics.median(options.ranks * options.batch_size / rate for rate in rates[ddp])
        overhead = f"{100 * (1 - ratio(rates, ddp, apart)):.1f}%"
        rows += [
            [apart, spread(rates[apart]), "", ""],
            [ddp, spread(rates[ddp]), f"{1000 * seconds:,.0f} ms", overhead],
        ]
    print_table(["base channels", "images/s, all processes", "step", "overhead"], rows)


if __name__ == "__main__":
    main()
