"""Time of a restoration and of a training step, alone and beside one busy process, on all cores.

    python benchmarks/busy_machine.py
    OMP_WAIT_POLICY=ACTIVE python benchmarks/busy_machine.py

Prints a Markdown table. The busy process multiplies matrices on one thread without end. The machine must be quiet
otherwise. The second command shows what happens if idle threads of OpenMP spin. The generator has random weights, and
the number of steps is fixed, so that the same work is timed every time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import environment  # noqa: F401  first: it sets what torch reads when it is imported
import lightning as L
import torch
from report import print_header, print_table, quieten_lightning
from torch.utils.data import DataLoader
from train_throughput import NEVER, BareSteps

from gan_lightning import DCGAN, invert
from gan_lightning.degradations import GaussianBlur

AIM = 2.2  # times as long as alone, on two cores
BUSY = """
import torch
torch.set_num_threads(1)
matrix = torch.rand(512, 512)
print("ready", flush=True)
while True:
    matrix @ matrix
"""


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Attributes:
        image_size: Height and width of the images.
        base_channels: Number of channels of the layer nearest to the image.
        images: Number of images that are restored together.
        solver_steps: Number of steps of the solver, and of the refinement.
        batch_size: Number of images in a training batch.
        seconds: Duration of a measurement of the training step.
    """

    image_size: int = 64
    base_channels: int = 32
    images: int = 16
    solver_steps: int = 20
    batch_size: int = 32
    seconds: float = 10.0


QUICK = Sizes(image_size=16, base_channels=4, images=2, solver_steps=2, batch_size=4, seconds=0.1)


@contextmanager
def busy_process() -> Iterator[None]:
    """Keep one core busy."""
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError("the busy process has not started")
            yield
        finally:
            process.kill()


def seconds_of_restoration(sizes: Sizes) -> float:
    """Return the seconds that the restoration of blurred images takes."""
    torch.manual_seed(0)
    generator = DCGAN(sizes.image_size, base_channels=sizes.base_channels).generator.eval()
    blur = GaussianBlur(sigma=1.0)
    with torch.no_grad():
        observed = blur(generator(torch.randn(sizes.images, generator.latent_dim)))
    steps = {"num_steps": sizes.solver_steps, "refine_steps": sizes.solver_steps, "tolerance": 0.0}
    started = time.perf_counter()
    invert(generator, blur, observed, noise_level=0.0, **steps)
    return time.perf_counter() - started


def seconds_of_step(sizes: Sizes) -> float:
    """Return the seconds that a training step takes."""
    L.seed_everything(0, verbose=False)
    batch = torch.rand(sizes.batch_size, 3, sizes.image_size, sizes.image_size) * 2 - 1
    steps = BareSteps(batch, warm_up=1, seconds=sizes.seconds)
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=NEVER,
        logger=False,
        log_every_n_steps=NEVER,
        callbacks=[steps],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    one: Any = [{"image": batch}]
    loader: DataLoader[Any] = DataLoader(one, batch_size=None)
    trainer.fit(DCGAN(sizes.image_size, base_channels=sizes.base_channels), loader)
    return sizes.batch_size / steps.rate


def compare(measure: Callable[[Sizes], float], sizes: Sizes, repeats: int) -> tuple[float, float, float]:
    """Return the median seconds alone and beside a busy process, and the median of their ratios."""
    pairs = []
    for _ in range(repeats):
        pair = []
        for surroundings in (nullcontext(), busy_process()):
            with surroundings:
                pair.append(measure(sizes))
        pairs.append(pair)
    alone, beside = zip(*pairs, strict=True)
    ratios = [two / one for one, two in pairs]
    return statistics.median(alone), statistics.median(beside), statistics.median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="smallest networks, to try the script")
    arguments = parser.parse_args()
    quieten_lightning()
    sizes = QUICK if arguments.quick else Sizes()
    print_header(
        "Training and restoration beside a busy process",
        f"{sizes.image_size} px, {sizes.base_channels} base channels; training in batches of {sizes.batch_size}",
        f"OMP_WAIT_POLICY: {os.environ['OMP_WAIT_POLICY']}",
        f"median of {arguments.repeats} rounds, each alone and then beside the process",
    )
    rows = []
    for name, measure in (
        (f"restoration of {sizes.images} images", seconds_of_restoration),
        ("training step", seconds_of_step),
    ):
        measure(sizes)  # warm up
        alone, beside, ratio = compare(measure, sizes, arguments.repeats)
        rows.append([name, f"{alone:.3f}", f"{beside:.3f}", f"{ratio:.2f}", f"{AIM:.1f}"])
    print_table(["what", "alone, s", "beside a busy process, s", "ratio", "at most"], rows)


if __name__ == "__main__":
    main()
