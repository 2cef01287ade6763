"""What ranks lose to communication: DDP against as many trainings apart from each other, on the same cores.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --ranks 4 --base_channels 64 --batch_size 128

Both ways run one process a rank, with one thread each, at the same time; the images a second of all processes are
added up. A process that is done goes on training until the last is, so that all are measured in the same company.
Training alone: one batch in memory again and again, no validation, no data to read.
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

import lightning as L
import torch
from report import measure_in_turn, print_header, print_table, quieten_lightning, ratio, spread
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from gan_lightning.modules.dcgan import DCGAN
from gan_lightning.resume.last_checkpoint import LastCheckpoint

NEVER = 10**9
WAIT = 0.05  # seconds between two looks for the other processes
PATIENCE = 600.0


class SameBatch(IterableDataset[dict[str, Tensor]]):
    """One batch, without end."""

    def __init__(self, batch_size: int, image_size: int) -> None:
        shape = batch_size, 3, image_size, image_size
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        self.batch = {"image": images.contiguous(memory_format=torch.channels_last)}

    def __iter__(self) -> Any:
        return repeat(self.batch)


class Company:
    """Files in a folder, by which processes that run at the same time find out how far the others are."""

    def __init__(self, folder: Path, name: str, count: int) -> None:
        self.folder, self.name, self.count = folder, name, count

    def tell(self, what: str, content: str = "") -> None:
        """Say that this process has come to a point."""
        beside = self.folder / f".{what}-{self.name}"
        beside.write_text(content)
        beside.rename(self.folder / f"{what}-{self.name}")

    def all_are(self, what: str) -> bool:
        """Whether all processes have come to a point."""
        return len(list(self.folder.glob(f"{what}-*"))) == self.count

    def wait_for_all(self, what: str) -> None:
        """Come to a point, and wait there for the others."""
        self.tell(what)
        until = time.monotonic() + PATIENCE
        while not self.all_are(what):
            if time.monotonic() > until:
                raise TimeoutError(f"the other processes did not come to {what!r}")
            time.sleep(WAIT)


class Stopwatch(L.Callback):
    """Measures the seconds of some steps after a warm-up, and ends the training when all processes have done so."""

    def __init__(self, company: Company, warm_up: int, steps: int) -> None:
        self.company, self.warm_up, self.steps = company, warm_up, steps

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock, stop it, or go on for the others' sake."""
        done = trainer.global_step - self.warm_up
        if done == 0:
            self.company.wait_for_all("ready")
            self.started = time.perf_counter()
        if done == self.steps:
            seconds = time.perf_counter() - self.started
            self.company.tell("done", json.dumps(self.steps * len(batch["image"]) / seconds))
        if done >= self.steps and (trainer.world_size > 1 or self.company.all_are("done")):
            trainer.should_stop = True  # ranks of one training end together, at the same step


def train(options: argparse.Namespace, base_channels: int) -> None:
    """Train as one process of the company."""
    quieten_lightning()
    torch.set_num_threads(1)
    L.seed_everything(0, verbose=False)
    company = Company(Path(options.folder), options.process, options.ranks)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=options.ranks if options.together else 1,
        strategy="ddp" if options.together else "auto",
        max_steps=NEVER,
        callbacks=[Stopwatch(company, options.warm_up, options.steps), LastCheckpoint()],  # which has the ranks agree
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
    """Start the processes, and add up their images a second."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "OMP_NUM_THREADS": "1"}
        free.close()
        given = [f"--{name}={getattr(options, name)}" for name in ("ranks", "batch_size", "image_size")]
        given += [f"--{name}={getattr(options, name)}" for name in ("warm_up", "steps")]
        given += [f"--base_channels={base_channels}", f"--folder={folder}", *["--together"] * together]
        processes = []
        for rank in range(options.ranks):
            # With LOCAL_RANK Lightning knows that somebody else has started all processes.
            own = {"LOCAL_RANK": str(rank), "NODE_RANK": "0"} if together else {}
            command = [sys.executable, __file__, *given, f"--process={rank}"]
            processes.append(subprocess.Popen(command, env=os.environ | shared | own, stdout=subprocess.DEVNULL))
        try:
            if any(process.wait(PATIENCE) for process in processes):
                raise RuntimeError("a training failed: what it said is above")
        finally:
            for process in processes:
                process.kill()
        return sum(json.loads(path.read_text()) for path in Path(folder).glob("done-*"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--base_channels", type=int, nargs="+", default=[64, 32])
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=64, help="of each rank")
    parser.add_argument("--warm_up", type=int, default=3, help="steps before the clock starts")
    parser.add_argument("--steps", type=int, default=10, help="steps that are measured")
    parser.add_argument("--repeats", type=int, default=5)
    for name in ("--folder", "--process"):  # of the processes that this script starts
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--together", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process is not None:
        return train(options, *options.base_channels)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the processes are ended too
    torch.set_num_threads(1)  # as in the processes
    print_header(
        "Training on several ranks: what communication costs",
        f"{options.image_size} px, batches of {options.batch_size} on each of {options.ranks} ranks, on cpu (gloo)",
        f"median (least to greatest) of {options.repeats} measurements of {options.steps} steps, in turn; the loss is "
        "the median of those within a turn",
    )
    rows = []
    for width in options.base_channels:
        apart, ddp = f"{width}: {options.ranks} trainings apart", f"{width}: {options.ranks} ranks of ddp"
        rates = measure_in_turn(
            {
                apart: lambda width=width: measure(options, width, together=False),  # type: ignore[misc]
                ddp: lambda width=width: measure(options, width, together=True),  # type: ignore[misc]
            },
            options.repeats,
        )
        seconds = statistics.median(options.ranks * options.batch_size / rate for rate in rates[ddp])
        loss = f"{100 * (1 - ratio(rates, ddp, apart)):.1f}%"
        rows += [[apart, spread(rates[apart]), "", ""], [ddp, spread(rates[ddp]), f"{1000 * seconds:,.0f} ms", loss]]
    print_table(["base channels", "images/s, all processes", "step", "lost"], rows)


if __name__ == "__main__":
    main()
