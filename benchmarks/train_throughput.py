"""Throughput of training, in images per second: ours, the PyTorch DCGAN tutorial's, and the upper bound of our step.

    python benchmarks/train_throughput.py
    python benchmarks/train_throughput.py --parts end_to_end --base_channels 32 --batch_size 64 --seconds 30
    python benchmarks/train_throughput.py --device cuda --precision bf16-mixed --workers 16 --count 50000

(and the last command with --batch_size 1024.)

Prints two Markdown tables. "Step only": the same batch on the device at each step, ours in float32 and bf16-mixed,
compared with the tutorial's loop in float32. "End to end": a Trainer with the data module, loggers and callbacks of the
command line, and the tutorial's loop with its own loader, compared with the upper bound: our step on one batch on the
device, without loader, loop and logging. On a GPU, choose --count large enough for some hundred batches; otherwise the
measurement is dominated by the start of epochs.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from itertools import repeat
from statistics import median
from typing import Any

import environment  # noqa: F401  first: it sets what torch reads when it is imported
import lightning as L
import torch
from data_throughput import epochs, open_data
from recipe_arms import CHOSEN, recipe
from report import Rates, measure_in_turn, print_header, print_table, quieten_lightning, ratio, spread, synchronize
from torch import Tensor
from torch.utils.data import DataLoader
from tutorial import TutorialLoop, jpeg_loader

from gan_lightning.callbacks.curves import Curves
from gan_lightning.callbacks.progress import ProgressBar
from gan_lightning.callbacks.samples import SampleWriter
from gan_lightning.callbacks.summary import RunSummary
from gan_lightning.loggers.metrics_file import MetricsFile
from gan_lightning.modules.dcgan import DCGAN
from gan_lightning.resume.last_checkpoint import LastCheckpoint

NEVER = 10**9
QUIET: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "log_every_n_steps": NEVER}


class Stopwatch(L.Callback):
    """Measure the images per second of a fit after `warm_up` steps, for some seconds, and then stop it."""

    def __init__(self, warm_up: int, seconds: float) -> None:
        self.warm_up, self.seconds = warm_up, seconds
        self.images, self.rate = 0, 0.0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock, count images, or stop."""
        steps = trainer.global_step
        if steps == self.warm_up:
            synchronize(pl_module.device)
            self.started = time.perf_counter()
        elif steps > self.warm_up and not self.rate:
            self.images += len(batch["image"])
            if time.perf_counter() - self.started >= self.seconds:
                synchronize(pl_module.device)
                self.rate = self.images / (time.perf_counter() - self.started)
                trainer.should_stop = True


class BareSteps(L.Callback):
    """Call the training step repeatedly on one batch, with the Trainer's strategy and precision, outside its loop."""

    def __init__(self, batch: Tensor, warm_up: int, seconds: float) -> None:
        self.batch, self.warm_up, self.seconds = batch, warm_up, seconds

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Measure within the first iteration of the loop, and stop."""

        def step(batch: Tensor) -> None:
            # Includes counting the steps: at a constant step number, every step would log.
            trainer.fit_loop.epoch_loop.manual_optimization.run(OrderedDict(batch={"image": batch}, batch_idx=0))

        self.rate = steps_per_second(step, repeat(self.batch), self.warm_up, self.seconds) * len(self.batch)
        trainer.should_stop = True


def steps_per_second(step: Callable[[Tensor], None], batches: Iterator[Tensor], warm_up: int, seconds: float) -> float:
    for _ in range(warm_up):
        step(batch := next(batches))
    synchronize(batch.device)
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        step(batch := next(batches))
        steps += 1
    synchronize(batch.device)
    return steps / (time.perf_counter() - started)


class Benchmark:
    """Candidates, each a method that returns images per second."""

    def __init__(self, arguments: argparse.Namespace, folder: str) -> None:
        self.arguments, self.folder = arguments, folder
        self.device = torch.device(arguments.device)
        self.data = open_data(arguments, folder, resident=False)
        batch = next(iter(self.data.train_dataloader()))
        moved = {name: tensor.to(self.device) for name, tensor in batch.items()}
        self.batch: Tensor = self.data.on_after_batch_transfer(moved, 0)["image"]

    def model(self) -> DCGAN:
        """Return a DCGAN with the same initial weights every time."""
        L.seed_everything(0, verbose=False)
        options = self.arguments
        return DCGAN(options.image_size, 3, options.latent_dim, options.base_channels, compile=options.compile)

    def trainer(self, precision: Any, **settings: Any) -> L.Trainer:
        """Return a Trainer that only trains, without end."""
        common = {
            "accelerator": self.arguments.device,
            "devices": 1,
            "precision": precision,
            "max_steps": NEVER,
            "limit_val_batches": 0,
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "default_root_dir": self.folder,
        }
        return L.Trainer(**{**common, **settings})

    def end_to_end(self, resident: bool) -> float:
        """Measure ours with data module, metrics file and the callbacks of the command line."""
        data = open_data(self.arguments, self.folder, resident)
        watch = Stopwatch(self.arguments.warm_up, self.arguments.seconds)
        run = tempfile.mkdtemp(dir=self.folder)
        callbacks = [watch, ProgressBar(), Curves(), SampleWriter(), RunSummary(), LastCheckpoint()]
        settings = {"enable_checkpointing": True, "default_root_dir": run, "logger": MetricsFile(run)}
        trainer = self.trainer(self.arguments.precision, callbacks=callbacks, **settings)
        with redirect_stdout(io.StringIO()):  # the cost of the progress bar is included, its output is not
            trainer.fit(self.model(), datamodule=data)
        return watch.rate

    def bare(self, precision: str) -> float:
        """Measure our step only."""
        steps = BareSteps(self.batch, self.arguments.warm_up, self.arguments.seconds)
        one: Any = [{"image": self.batch}]
        loader: DataLoader[Any] = DataLoader(one, batch_size=None)
        self.trainer(precision, callbacks=[steps], **QUIET).fit(self.model(), loader)
        return steps.rate

    def tutorial(self, batches: Iterator[Tensor], warm_up: int) -> float:
        """Measure the tutorial's loop on any batches."""
        L.seed_everything(0, verbose=False)
        options = self.arguments
        loop = TutorialLoop(options.image_size, options.latent_dim, options.base_channels, self.device)
        rate = steps_per_second(loop.step, batches, warm_up, options.seconds)
        return rate * float(options.batch_size)

    def tutorial_with_its_loader(self) -> float:
        """Measure the tutorial's loop on a folder of JPEGs."""
        options = self.arguments
        loader = jpeg_loader(self.data.root / "celeba", options.image_size, options.batch_size, options.workers)
        batches = (images for images, _ in epochs(loader))
        return self.tutorial(batches, options.warm_up + 2 * options.workers)  # the prefetched batches

    def recipe(self, precision: str) -> float:
        """Measure the recipe of docs/recipes.md with its own batch size, penalties included."""
        options = argparse.Namespace(**vars(self.arguments))
        settings = dict(recipe(CHOSEN))
        options.batch_size = settings.pop("batch_size")
        watch = Stopwatch(max(self.arguments.warm_up, settings["penalty_interval"]), self.arguments.seconds)
        trainer = self.trainer(precision, callbacks=[watch], **QUIET)
        L.seed_everything(0, verbose=False)
        model = DCGAN(options.image_size, 3, options.latent_dim, options.base_channels, **settings)
        trainer.fit(model, datamodule=open_data(options, self.folder, resident=True))
        return watch.rate

    def measure_step(self, name: str, measure: Callable[[str], float]) -> Rates:
        """Measure steps in two precisions against the tutorial's, which has its images ready.

        Args:
            name: What the steps are called in the table.
            measure: Function that returns the images per second of a precision.
        """
        contiguous = self.batch.contiguous()
        return measure_in_turn(
            {
                "the tutorial's loop, float32": lambda: self.tutorial(repeat(contiguous), self.arguments.warm_up),
                f"{name}, float32": lambda: measure("32-true"),
                f"{name}, bf16-mixed": lambda: measure("bf16-mixed"),
            },
            self.arguments.repeats,
        )

    def measure_end_to_end(self) -> Rates:
        """Measure whole trainings, and the upper bound."""
        precision = self.arguments.precision
        return measure_in_turn(
            {
                f"upper bound, {precision}": lambda: self.bare(precision),
                f"ours, packed, {precision}": lambda: self.end_to_end(resident=False),
                f"ours, resident, {precision}": lambda: self.end_to_end(resident=True),
                f"the tutorial's, {self.arguments.workers} workers, float32": self.tutorial_with_its_loader,
            },
            self.arguments.repeats,
        )


def print_step(rates: Rates, title: str = "Step only") -> None:
    baseline = next(iter(rates))
    print(f"## {title}\n")
    rows = [[name, spread(values), f"{ratio(rates, name, baseline):.2f}"] for name, values in rates.items()]
    print_table(["step", "images/s", "relative to the tutorial"], rows)


def print_end_to_end(rates: Rates, batch_size: int) -> None:
    bound, *_, baseline = rates
    print("## End to end\n")
    rows = [
        [
            name,
            spread(values),
            f"{1000 * batch_size / median(values):.1f}",
            f"{100 * ratio(rates, name, bound):.1f}%",
            f"{ratio(rates, name, baseline):.2f}",
        ]
        for name, values in rates.items()
    ]
    print_table(["training", "images/s", "ms per step", "of the upper bound", "relative to the tutorial"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data/synthetic", help="folder of synthetic faces, rendered if missing")
    parser.add_argument("--count", type=int, default=8000, help="number of faces")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--latent_dim", type=int, default=100)
    parser.add_argument("--base_channels", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", default="32-true", help="precision of ours, end to end")
    parser.add_argument("--workers", type=int, default=2, help="number of worker processes of the tutorial's loader")
    parser.add_argument("--readers", type=int, default=0, help="number of worker processes of our loader")
    parser.add_argument("--compile", action="store_true", help="compile our networks with torch.compile")
    parser.add_argument(
        "--warm_up", type=int, default=None, help="steps before each measurement; 1 by default, 20 on CUDA"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="duration of each measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=["step", "recipe", "end_to_end"], default=["step", "end_to_end"])
    arguments = parser.parse_args()
    quieten_lightning()
    arguments.warm_up = arguments.warm_up or (20 if arguments.device == "cuda" else 1)
    with tempfile.TemporaryDirectory() as folder:
        benchmark = Benchmark(arguments, folder)
        size, width = arguments.image_size, f"{arguments.latent_dim}/{arguments.base_channels}"
        print_header(
            "Training: throughput",
            f"{size} px, latents and base channels {width}, batches of {arguments.batch_size}, on {arguments.device}",
            f"median (minimum to maximum) of {arguments.repeats} alternating measurements of {arguments.seconds} s; "
            "ratios are medians over rounds",
        )
        if "step" in arguments.parts:
            print_step(benchmark.measure_step("ours", benchmark.bare))
        if "recipe" in arguments.parts:
            title = f"The recipe of docs/recipes.md, batch {recipe(CHOSEN)['batch_size']}"
            print_step(benchmark.measure_step("the recipe", benchmark.recipe), title)
        if "end_to_end" in arguments.parts:
            print_end_to_end(benchmark.measure_end_to_end(), arguments.batch_size)


if __name__ == "__main__":
    main()
