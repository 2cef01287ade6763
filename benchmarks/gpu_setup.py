"""Shared code of the parts of gpu.py: sizes, data, tables, and their environment."""

from __future__ import annotations

import gc
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from report import synchronize
from torch import Tensor

from gan_lightning import SyntheticFaces
from gan_lightning.errors import InputError
from gan_lightning.images import to_float


@dataclass(frozen=True)
class Sizes:
    """How large everything is; the defaults are those of a GPU."""

    image_size: int = 64
    base_channels: int = 64
    latent_dim: int = 100
    batch_sizes: tuple[int, ...] = (128, 1024)
    precisions: tuple[str, ...] = ("bf16-mixed", "32-true")
    faces: int = 10_000
    repeats: int = 20  # times that an epoch goes through the training images: as long as an epoch of CelebA
    warm_up: int = 25
    steps: int = 50  # of the profile
    seconds: float = 1.2  # of a measurement
    workers: int = 16  # of the tutorial's loader
    fit_steps: int = 1200
    resume_steps: int = 400
    evaluation_images: int = 10_000
    restored: int = 64  # images that are restored alone, in batches of `restored_batch`, and at once
    restored_alone: int = 4
    restored_batch: int = 16
    large_batch: int = 256
    adam_steps: int = 1000
    invert_steps: int | None = None  # None: those of `invert` itself
    sigmas: tuple[float, ...] | None = None  # None: those of `estimate_blur` itself
    rendering_processes: int | None = None  # None: one a core


QUICK = Sizes(
    image_size=16,
    base_channels=8,
    latent_dim=16,
    batch_sizes=(8,),
    precisions=("bf16-mixed",),
    faces=200,
    repeats=2,
    warm_up=2,
    steps=3,
    seconds=0.02,
    workers=1,
    fit_steps=12,
    resume_steps=30,
    evaluation_images=24,
    restored=4,
    restored_alone=2,
    restored_batch=2,
    large_batch=6,
    adam_steps=5,
    invert_steps=5,
    sigmas=(1.0, 2.0),
    rendering_processes=1,
)


@dataclass(frozen=True)
class Setup:
    """What a part is run with.

    Attributes:
        device: "cuda" or "cpu".
        sizes: How large everything is.
        folder: Temporary folder of the whole run: faces, packed images, checkpoints.
    """

    device: str
    sizes: Sizes
    folder: Path

    @property
    def cuda(self) -> bool:
        """Whether there is a GPU to measure."""
        return self.device == "cuda"

    @property
    def torch_device(self) -> torch.device:
        """The device."""
        return torch.device(self.device)

    @property
    def checkpoint(self) -> Path:
        """Where the part `fit` leaves the generator that is restored with."""
        return self.folder / "runs" / "fit" / "checkpoints" / "last.ckpt"

    def faces(self, batch_size: int = 16, **settings: Any) -> SyntheticFaces:
        """Make the data module of the rendered faces."""
        return SyntheticFaces(str(self.folder / "faces"), **self._common(batch_size), **settings)

    def long_epochs(self, batch_size: int, resident: bool) -> SyntheticFaces:
        """Make a data module whose epochs are as long as those of CelebA."""
        return LongEpochs(
            str(self.folder / "faces"),
            **self._common(batch_size),
            resident=resident,
            repeats=self.sizes.repeats,
        )

    def _common(self, batch_size: int) -> dict[str, Any]:
        return {
            "count": self.sizes.faces,
            "image_size": self.sizes.image_size,
            "batch_size": batch_size,
            "cache_dir": str(self.folder / "cache"),
        }

    def held_out(self, count: int) -> Tensor:
        """Read faces of the test split, (count,C,H,W) in [-1, 1], on the device."""
        data = self.faces()
        data.prepare_data()
        data.setup("test")
        pixels = torch.as_tensor(data.real_images("test").read(np.arange(count)))
        return to_float(pixels).to(self.device)

    def random_batch(self, batch_size: int, channels: int = 3) -> Tensor:
        """Draw images (B,C,H,W) in [-1, 1] on the device, channels_last."""
        size = self.sizes.image_size
        images = torch.rand(batch_size, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
        return images.to(self.device).contiguous(memory_format=torch.channels_last)

    def trainer(self, precision: Any, **settings: Any) -> L.Trainer:
        """Make a Trainer that does nothing but train."""
        common = {
            "accelerator": "gpu" if self.cuda else "cpu",
            "devices": 1,
            "precision": precision,
            "max_steps": 10**9,
            "limit_val_batches": 0,
            "logger": False,
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "enable_progress_bar": False,
            "default_root_dir": str(self.folder),
        }
        return L.Trainer(**{**common, **settings})

    def synchronize(self) -> None:
        """Wait for what the device has still to do."""
        synchronize(self.torch_device)

    def seconds(self, work: Callable[[], Any]) -> tuple[float, Any]:
        """Return the seconds that something takes, and its result."""
        self.synchronize()
        started = time.perf_counter()
        result = work()
        self.synchronize()
        return time.perf_counter() - started, result

    def rate(self, step: Callable[[], Any], images: int, warm_up: int | None = None) -> float:
        """Return the images a second of a step that is repeated.

        Args:
            step: Takes one step.
            images: Number of images in a step.
            warm_up: Number of steps before the clock starts.
        """
        for _ in range(self.sizes.warm_up if warm_up is None else warm_up):
            step()
        self.synchronize()
        steps, started = 0, time.perf_counter()
        while time.perf_counter() - started < self.sizes.seconds:
            step()
            steps += 1
        self.synchronize()
        return steps * images / (time.perf_counter() - started)

    def start_memory(self) -> None:
        """Start to measure the peak of allocated memory."""
        if self.cuda:
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak_memory(self) -> str:
        """Return the peak of allocated memory since `start_memory`."""
        return f"{torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB" if self.cuda else "-"


class LongEpochs(SyntheticFaces):
    """Faces whose training epochs go through all images several times, so that starts of epochs are as rare as ever."""

    def __init__(self, root: str, *, repeats: int, **common: Any) -> None:
        super().__init__(root, **common)
        self.repeats = repeats

    def dataset(self, split: str) -> Any:
        """Repeat the rows of the training split."""
        dataset = super().dataset(split)
        if split == "train":
            dataset.rows = np.tile(dataset.rows, self.repeats)
        return dataset


class Table:
    """A Markdown table that is printed row by row, so that a part that is ended leaves what it had measured."""

    def __init__(self, title: str, *columns: str, notes: str = "") -> None:
        print(f"## {title}\n")
        if notes:
            print(f"{notes}\n")
        print(f"| {' | '.join(columns)} |\n| --- |{' ---: |' * (len(columns) - 1)}", flush=True)
        self.width = len(columns)

    def row(self, *cells: str) -> None:
        """Print a row; cells that are left out stay empty."""
        padded = [cell.replace("|", "\\|") for cell in cells] + [""] * (self.width - len(cells))
        print(f"| {' | '.join(padded)} |", flush=True)

    def try_row(self, name: str, measure: Callable[[], list[str] | tuple[str, ...]]) -> None:
        """Print a row of what is measured, or of why it could not be."""
        try:
            self.row(name, *measure())
        except Exception as error:
            self.row(name, failure(error))
            report_error(name)

    def end(self) -> None:
        """Print the empty line after the table."""
        print(flush=True)


def failure(error: BaseException) -> str:
    """Say in one line what failed."""
    lines = str(error).strip().splitlines()
    if isinstance(error, InputError):
        return f"refused: {lines[0][:160]}"
    return f"FAILED {type(error).__name__}: {lines[0][:160] if lines else ''}"


def report_error(name: str) -> None:
    """Print the traceback of what has just failed to the log."""
    print(f"--- {name}", file=sys.stderr)
    traceback.print_exc()
