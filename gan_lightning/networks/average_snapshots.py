"""Snapshots of two averages of a generator during training, and averages of other lengths computed from them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from gan_lightning.errors import InputError
from gan_lightning.networks.checkpoints import CLASS_NAMES, GENERATOR_CLASS, AnyGenerator, generator_in, load_tensors
from gan_lightning.networks.posthoc_ema import combination
from gan_lightning.pretrained import SUFFIX, write_weights

TRACKS: Final = (0.05, 0.10)  # lengths of the averages, relative to the training
SHORTEST, LONGEST = 0.02, 0.2  # lengths that their combinations approximate well
FOLDER: Final = "averages"  # in the run folder
NAME: Final = re.compile(rf"images-(\d+)-length-(\d\.\d+){re.escape(SUFFIX)}")
PREFIX: Final = "generator_ema."  # of the weights in a file, as in a checkpoint
DESCRIBED: Final = "average"  # key of the number of images and the length in the description of a file


@dataclass(frozen=True, order=True)
class Snapshot:
    """An average at some point of the training.

    Attributes:
        images: Number of images seen.
        length: Length of the average, relative to the training up to this point.
    """

    images: int
    length: float

    def path(self, run_folder: str | os.PathLike[str]) -> Path:
        """Return the path of the file in a run folder."""
        return Path(run_folder) / FOLDER / f"images-{self.images:010d}-length-{self.length:.2f}{SUFFIX}"


def find_snapshots(run_folder: str | os.PathLike[str]) -> list[Snapshot]:
    """Return the snapshots in a run folder, in chronological order."""
    names = [NAME.fullmatch(path.name) for path in (Path(run_folder) / FOLDER).glob(f"*{SUFFIX}")]
    return sorted(Snapshot(int(name[1]), float(name[2])) for name in names if name)


def write_snapshot(
    run_folder: str | os.PathLike[str], snapshot: Snapshot, average: nn.Module, description: Mapping[str, Any]
) -> None:
    """Write a snapshot in half precision, atomically. `load_generator` reads it too.

    Args:
        run_folder: Folder of the run.
        snapshot: Number of images and length of the average.
        average: The averaged generator.
        description: Entries of a checkpoint that describe the generator: its class, and the names of classes.

    Raises:
        InputError: If a value is not finite, or too large for half precision.
    """
    state = {f"{PREFIX}{name}": value for name, value in average.state_dict().items()}
    write_weights(snapshot.path(run_folder), state, {**description, DESCRIBED: asdict(snapshot)}, half=True)


def remove_later(run_folder: str | os.PathLike[str], images: int) -> None:
    """Remove the snapshots that a run will write again when it continues after a number of images."""
    for snapshot in find_snapshots(run_folder):
        if snapshot.images > images:
            snapshot.path(run_folder).unlink(missing_ok=True)


def average_after(
    run_folder: str | os.PathLike[str], length: float, file: str | os.PathLike[str] | None = None
) -> AnyGenerator:
    """Return an average of a generator over its training, with a length that is chosen after the training.

    The average is a least-squares combination of the snapshots that the callback `AverageTracks` wrote to the run
    folder, and ends at the last one (Karras et al. 2023, arXiv 2312.02696, section 3.2).

    Args:
        run_folder: Folder of the run.
        length: Length of the average, from 0.02 to 0.2: standard deviation of its weights over time, relative to the
            length of the training.
        file: Safetensors file to which the average is also written, for every function that loads a generator.

    Returns:
        The generator in float32, in evaluation mode, on the CPU.

    Raises:
        InputError: If there are no snapshots, one is damaged, the length is out of range, or the file is not named
            `.safetensors`.
    """
    if not SHORTEST <= length <= LONGEST:
        raise InputError(f"the length of an average must be from {SHORTEST} to {LONGEST}, but is {length}")
    if file is not None and Path(file).suffix != SUFFIX:
        raise InputError(f"an average is written as safetensors: name the file ...{SUFFIX}, not {file}")
    snapshots = find_snapshots(run_folder)
    if not snapshots:
        raise InputError(
            f"there are no snapshots in {Path(run_folder) / FOLDER}: give the folder of a run that was trained with "
            "--trainer.callbacks+=AverageTracks"
        )
    images, lengths = zip(*((snapshot.images, snapshot.length) for snapshot in snapshots), strict=True)
    factors = combination(images, lengths, images[-1], length)
    state: dict[str, Tensor] = {}
    description: dict[str, Any] = {}
    for snapshot, factor in zip(snapshots, factors.tolist(), strict=True):
        content = read_snapshot(run_folder, snapshot)
        _add(state, content["state_dict"], factor, snapshot.path(run_folder))
        description = {key: content[key] for key in (GENERATOR_CLASS, CLASS_NAMES) if key in content}
    for name in [name for name in state if name.endswith("running_var")]:
        state[name].clamp_(min=0)  # some factors are negative, but variances must not be
    state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    generator = generator_in({**description, "state_dict": state}, Path(run_folder) / FOLDER)
    if file is not None:
        write_weights(file, state, {**description, DESCRIBED: asdict(Snapshot(images[-1], length))})
    return generator


def read_snapshot(run_folder: str | os.PathLike[str], snapshot: Snapshot) -> dict[str, Any]:
    """Read a snapshot as the content of a checkpoint.

    Raises:
        InputError: If it is damaged, or its name does not match its number of images and length.
    """
    path = snapshot.path(run_folder)
    try:
        content: dict[str, Any] = load_tensors(path)
    except InputError as error:
        raise InputError(_damaged(path)) from error
    tensors = content.get("state_dict", {})
    whole = all(value.isfinite().all() for value in tensors.values())
    if content.get(DESCRIBED) != asdict(snapshot) or not tensors or not whole:
        raise InputError(_damaged(path))
    return content


def _damaged(path: Path) -> str:
    return f"snapshot {path} is damaged: remove it, and the average is made of the others"


def _add(state: dict[str, Tensor], tensors: Mapping[str, Tensor], factor: float, path: Path) -> None:
    """Add weights times a factor in float64; counters are taken from the last snapshot."""
    shapes = {name: value.shape for name, value in tensors.items()}
    if state and shapes != {name: value.shape for name, value in state.items()}:
        raise InputError(f"snapshot {path} is of another network than those before it: remove those of one of them")
    for name, value in tensors.items():
        if not value.is_floating_point():
            state[name] = value
            continue
        added = value.to(torch.float64) * factor
        state[name] = state[name] + added if name in state else added
