"""Weights of trained networks as folders of safetensors: those that come with the package, and those that users save.

A file has the state dict of a checkpoint. The file's metadata has the other entries of a checkpoint about the networks,
so that `load_generator`, and every function that takes a generator, reads it like a checkpoint.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from gan_lightning.atomic import atomic_path
from gan_lightning.errors import InputError

SHIPPED: Final = Path(__file__).parent / "weights"
PARTS: Final = ("generator", "discriminator", "encoder")  # each in its own file
WHOLE: Final = "model"  # or all in one file, as `save_pretrained` writes them
SUFFIX: Final = ".safetensors"
DESCRIPTION: Final = "checkpoint"  # key of the metadata with everything of a checkpoint except tensors, as JSON
ORDER: Final = "names"  # key of the metadata with the names of the tensors, in the order of the layers
VALUES: Final = "images are float32 in [-1, 1]"


def shipped_weights() -> list[str]:
    """Return the names of the weights that come with the package."""
    return sorted(folder.name for folder in SHIPPED.glob("*") if weights_in(folder))


def weights_in(folder: Path) -> list[Path]:
    """Return the files of weights in a folder, or none for anything else."""
    return [path for name in (WHOLE, *PARTS) if (path := folder / f"{name}{SUFFIX}").is_file()]


def weights_folder(given: str | os.PathLike[str]) -> Path | None:
    """Return the folder of weights with a path or a name, or None if it is something else.

    A file or a folder of weights on disk takes precedence over weights of the package with the same name.

    Args:
        given: Path, or name of weights that come with the package.
    """
    path = Path(given).expanduser()
    if path.is_file():
        return None
    if weights_in(path):
        return path
    return SHIPPED / path.name if str(given) in shipped_weights() else None


def find_weights(given: str | os.PathLike[str], part: str) -> str | os.PathLike[str]:
    """Return the path of the file with a network: the given path, unless it is a folder or a name of weights.

    Args:
        given: Path of a checkpoint or of a folder of weights, or name of weights that come with the package.
        part: "generator", "discriminator" or "encoder".

    Raises:
        InputError: If neither a file nor weights with this name exist, or the weights lack the network.
    """
    if (folder := weights_folder(given)) is not None:
        there = [path.stem for path in weights_in(folder)]
        if part not in there and WHOLE not in there:
            raise InputError(f"{given} has no {part}, only {' and '.join(there)}: give a checkpoint that has one")
        return folder / f"{part if part in there else WHOLE}{SUFFIX}"
    check_name(given)
    return given


def check_name(given: str | os.PathLike[str]) -> None:
    """Check that weights exist if the argument can only be their name, because it is neither on disk nor a file name.

    Raises:
        InputError: If there are no such weights.
    """
    if re.fullmatch(r"[\w-]+", str(given)) and not Path(given).exists():
        known = ", ".join(shipped_weights())
        raise InputError(f"there is no file and there are no weights {given}: give a path, or one of {known}")


def read_weights(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file of safetensors.

    Args:
        path: Path of the file.

    Returns:
        The tensors by name, in the order of the layers, which the format does not keep. For a file written by
        `write_weights`, the content of a checkpoint, with the tensors under the key "state_dict".
    """
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    stored = load_file(path)
    order = json.loads(metadata.get(ORDER, "null")) or sorted(stored, key=_by_number)
    tensors: dict[str, Any] = {name: stored[name] for name in order}
    description = json.loads(metadata.get(DESCRIPTION, "null"))
    return {**description, "state_dict": tensors} if isinstance(description, dict) else tensors


def write_weights(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], description: Mapping[str, Any], *, half: bool = False
) -> None:
    """Write the weights of networks atomically.

    Args:
        path: File to write.
        tensors: Tensors by their names in the checkpoint.
        description: The other content of a checkpoint that belongs to the networks, such as hyperparameters.
        half: Write matrices and kernels in half precision. Vectors are kept, because they are small, and variances of
            batch normalization may be out of range.

    Raises:
        InputError: If a value is not finite, or too large for half precision.
    """
    written = {}
    for name, value in tensors.items():
        to_half = half and value.is_floating_point() and value.ndim > 1
        # A copy, because safetensors rejects tensors that share memory.
        written[name] = (value.half() if to_half else value.clone()).contiguous().cpu()
        if value.is_floating_point() and not written[name].isfinite().all():
            raise InputError(f"{name} has values that are not finite{' in half precision' * to_half}: train it again")
    metadata = {"format": "pt", "gan_lightning": version("gan-lightning"), "values": VALUES}
    metadata[ORDER] = json.dumps([*written])
    metadata[DESCRIPTION] = json.dumps(description, sort_keys=True)
    with atomic_path(path) as beside:
        save_file(written, beside, metadata)


def description_of(checkpoint: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """Return the entries of a checkpoint about its networks, without tensors and without entries of Lightning.

    Args:
        checkpoint: Content of a checkpoint.
        keys: Keys to keep in addition to the hyperparameters.
    """
    own = {name: value for name, value in checkpoint["hyper_parameters"].items() if name[0] != "_"}
    return {"hyper_parameters": own} | {key: checkpoint[key] for key in keys if key in checkpoint}


def whole_checkpoint(folder: Path) -> dict[str, Any]:
    """Return a folder of weights as the content of a checkpoint of a `DCGAN`, in the precision of the files.

    Args:
        folder: Folder of weights, with a generator and a discriminator.

    Raises:
        InputError: If the folder lacks one of them.
    """
    content: dict[str, Any] = {}
    state: dict[str, Tensor] = {}
    for part in ("discriminator", "generator"):  # the generator's description comes last, because it is more detailed
        read = read_weights(find_weights(folder, part))
        if "hyper_parameters" not in read:
            raise InputError(f"{folder} is not a folder of weights of this package: give a checkpoint")
        content, state = read, state | read["state_dict"]
    for name in [name for name in state if name.startswith("generator_ema.")]:  # shipped without G
        state.setdefault(name.replace("generator_ema.", "generator.", 1), state[name])
    return {**content, "state_dict": state}


def _by_number(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts main.10 after main.9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in name.split(".")]
