"""Time to save a checkpoint of the default DCGAN at 64 px with its optimizers, including the sync to disk.

    python benchmarks/checkpoint_cost.py > benchmarks/results/checkpoint_cost.md

Lightning's own checkpoint IO, which does not wait for the disk, is measured alternately with ours.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import environment  # noqa: F401  first: it sets what torch reads when it is imported
from lightning import Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from report import measure_in_turn, print_header, print_table, quieten_lightning

from gan_lightning import DCGAN, SyntheticFaces
from gan_lightning.resume.checkpoint_io import WholeCheckpoints


def trainer_after_one_step(folder: Path) -> Trainer:
    """Return a trainer whose DCGAN has taken one step, so that the optimizers have states."""
    trainer = Trainer(
        accelerator="cpu",
        max_steps=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    data = SyntheticFaces(str(folder / "faces"), count=64, batch_size=8, cache_dir=str(folder / "cache"))
    trainer.fit(DCGAN(), datamodule=data)
    return trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10, help="number of measurements")
    parser.add_argument("--folder", type=Path, default=Path("."), help="folder on the disk to measure")
    options = parser.parse_args()
    quieten_lightning()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        trainer = trainer_after_one_step(folder)
        ways = {"ours: atomic, synced to disk": WholeCheckpoints(), "Lightning's": TorchCheckpointIO()}

        def seconds(way: TorchCheckpointIO) -> float:
            trainer.strategy.checkpoint_io = way
            started = time.perf_counter()
            trainer.save_checkpoint(folder / "last.ckpt")
            return time.perf_counter() - started

        took = measure_in_turn({key: lambda way=way: seconds(way) for key, way in ways.items()}, options.repeats)
        size = (folder / "last.ckpt").stat().st_size
    print_header("Checkpoints: cost", f"DCGAN at 64 px, {size / 1e6:.0f} MB with the states of both optimizers")
    rows = [[key, *(f"{value:.2f}" for value in (statistics.median(v), min(v), max(v)))] for key, v in took.items()]
    print_table(["checkpoint IO", "seconds, median", "minimum", "maximum"], rows)


if __name__ == "__main__":
    main()
