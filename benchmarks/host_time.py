"""Measure the overhead of Lightning and this package in a training step: processor time against a plain loop.

    python benchmarks/host_time.py

The networks are so small (16 px, 4 channels) that calling torch is nearly all of the work. In turns, `Trainer.fit` with
the callbacks and the logger of the command line, and the same networks' step in plain torch on the same batch.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import environment  # noqa: F401  first: it sets what torch reads when it is imported
import lightning as L
import torch
from gpu_setup import Setup, Sizes
from gpu_training import PlainStep, SameBatch, command_line_callbacks, make_model
from report import measure_in_turn, print_header, print_table, quieten_lightning, ratio, spread

from gan_lightning.loggers.metrics_file import MetricsFile

SIZES = Sizes(image_size=16, base_channels=4, latent_dim=16)
BATCH, WARM_UP, STEPS = 16, 20, 300


class ProcessorTime(L.Callback):
    """Measures the processor time of the steps after the first ones."""

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Start and stop the clock."""
        if batch_idx + 1 == WARM_UP:
            self.started = time.process_time()
        elif batch_idx + 1 == WARM_UP + STEPS:
            self.seconds = (time.process_time() - self.started) / STEPS


def of_fit(setup: Setup, bare: bool) -> float:
    """Return the steps a second of processor time of `Trainer.fit`.

    Args:
        setup: The sizes.
        bare: Whether to leave out the callbacks and the logger of the command line.
    """
    clock = ProcessorTime()
    with tempfile.TemporaryDirectory() as run:
        more: dict[str, Any] = {}
        if not bare:
            more = {"logger": MetricsFile(run), "enable_checkpointing": True, "default_root_dir": run}
        callbacks: list[Any] = [clock, *([] if bare else command_line_callbacks())]
        trainer = setup.trainer("32-true", callbacks=callbacks, max_steps=WARM_UP + STEPS, log_every_n_steps=50, **more)
        trainer.fit(make_model(setup), SameBatch(setup.random_batch(BATCH), WARM_UP + STEPS))
    return 1 / clock.seconds


def of_plain_loop(setup: Setup) -> float:
    """Return the steps a second of processor time of a plain loop."""
    step = PlainStep(setup, BATCH, "32-true")
    for _ in range(WARM_UP):
        step()
    started = time.process_time()
    for _ in range(STEPS):
        step()
    return STEPS / (time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7, help="how often each is measured")
    options = parser.parse_args()
    quieten_lightning()
    torch.set_num_threads(1)
    print_header("Processor time of a small training step")
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup("cpu", SIZES, Path(folder))
        candidates = {
            "plain torch": lambda: of_plain_loop(setup),
            "Trainer.fit": lambda: of_fit(setup, bare=True),
            "Trainer.fit, as the command line runs it": lambda: of_fit(setup, bare=False),
        }
        rates = measure_in_turn(candidates, options.turns)
    rows = [
        [
            name,
            f"{1000 / sorted(values)[len(values) // 2]:.2f}",
            f"{1 / ratio(rates, name, 'plain torch'):.2f}",
            spread(values),
        ]
        for name, values in rates.items()
    ]
    print_table(["step", "ms", "times plain torch", "spread"], rows)


if __name__ == "__main__":
    main()
