"""What a checkpoint costs a training: the default DCGAN at 64 px with its optimizers, until the disk has confirmed it.

    python benchmarks/checkpoint_cost.py > benchmarks/results/checkpoint_cost.md

Lightning's own way, which asks the disk for no confirmation, is measured in turn with ours.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from lightning import Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from report import measure_in_turn, print_header, print_table, quieten_lightning

from gan_lightning import DCGAN, SyntheticFaces
from gan_lightning.resume.checkpoint_io import WholeCheckpoints


def trained(folder: Path) -> Trainer:
    """A trainer whose DCGAN has taken a step, so that the optimizers have their states."""
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
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=Path("."), help="where to write: the disk that is measured")
    options = parser.parse_args()
    quieten_lightning()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        trainer = trained(folder)
        ways = {"ours: whole, confirmed, the former kept": WholeCheckpoints(), "Lightning's": TorchCheckpointIO()}

        def seconds(way: TorchCheckpointIO) -> float:
            trainer.strategy.checkpoint_io = way
            started = time.perf_counter()
            trainer.save_checkpoint(folder / "last.ckpt")
            return time.perf_counter() - started

        took = measure_in_turn({key: lambda way=way: seconds(way) for key, way in ways.items()}, options.repeats)
        size = (folder / "last.ckpt").stat().st_size
    print_header("What a checkpoint costs", f"DCGAN at 64 px, {size / 1e6:.0f} MB with the states of both optimizers")
    rows = [[key, *(f"{figure:.2f}" for figure in (statistics.median(v), min(v), max(v)))] for key, v in took.items()]
    print_table(["way", "seconds, median", "least", "most"], rows)


if __name__ == "__main__":
    main()
