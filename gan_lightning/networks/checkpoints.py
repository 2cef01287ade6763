"""Reading networks from files: ours, and those of the PyTorch DCGAN tutorial. No pickled code is ever run."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_lightning.errors import InputError
from gan_lightning.networks.dcgan import Discriminator, DiscriminatorNormalization, Generator

FIRST_LAYER = "main.0.weight"
PREFERRED = ("generator_ema.", "generator.")  # the average first: it is what was measured


def load_generator(path: str | os.PathLike[str]) -> Generator:
    """Read a generator from a checkpoint of this package or from a state dict of the PyTorch DCGAN tutorial.

    The architecture is read off the shapes. The state dict may lie bare in the file or under keys of any name
    ("state_dict", "netG", ...), with or without the "module." that DataParallel adds. Of our own checkpoints the
    averaged generator is taken.

    Args:
        path: File written by `torch.save`, or by Lightning.

    Returns:
        The generator, in evaluation mode, on the CPU.

    Raises:
        InputError: The file is missing, truncated, holds more than tensors and plain values, or no DCGAN generator.
    """
    content = load_tensors(path)
    candidates = [candidate for tree in mappings(content) for candidate in generator_states(tree)]
    for state in sorted(candidates, key=lambda pair: pair[0]):
        if (generator := build_generator(state[1])) is not None:
            return generator.eval()
    raise InputError(f"{path} holds no DCGAN generator: expected weights named '...{FIRST_LAYER}' and the layers after")


def load_discriminator(path: str | os.PathLike[str]) -> Discriminator:
    """Read the discriminator from a checkpoint of this package; the architecture is read off the shapes.

    Args:
        path: Checkpoint of a `DCGAN`.

    Returns:
        The discriminator, in evaluation mode, without gradients, on the CPU.

    Raises:
        InputError: If the file is missing, truncated, or holds no discriminator.
    """
    prefix = "discriminator."
    for tree in mappings(load_tensors(path)):
        state = {name.removeprefix(prefix): value for name, value in tree.items() if name.startswith(prefix)}
        if (discriminator := build_discriminator(state)) is not None:
            return discriminator.eval().requires_grad_(False)
    raise InputError(f"{path} holds no discriminator: the perceptual loss needs a checkpoint of DCGAN")


def load_tensors(path: str | os.PathLike[str]) -> Any:
    """Read a file of `torch.save` that holds tensors and plain values, on the CPU; code in it is refused, not run.

    Raises:
        InputError: The file is missing or not readable, is no whole checkpoint, or holds other objects.
    """
    if not Path(path).is_file():
        raise InputError(f"checkpoint {path} is not there: check the path")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} is refused: it is no checkpoint, or holds objects that could run code, not only tensors"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is not a whole checkpoint: it may be truncated, or something else") from error


def check_whole(path: str | os.PathLike[str]) -> None:
    """See that a checkpoint is as it was written: torch notices that the end is missing, but no changed byte.

    Raises:
        InputError: It is damaged.
    """
    if not zipfile.is_zipfile(path):
        return  # missing, truncated, or something else: `load_tensors` says which
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        damaged = str(error)
    if damaged is not None:
        raise InputError(f"{path} is damaged: its content is not what was written")


def mappings(content: Any) -> Iterator[Mapping[str, Any]]:
    """Walk nested dictionaries with string keys, outermost first."""
    if isinstance(content, Mapping) and all(isinstance(key, str) for key in content):
        yield content
        for value in content.values():
            yield from mappings(value)


def generator_states(tree: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Find state dicts that may be a generator's, stripped of their prefixes, each with its rank in preference."""
    for key in tree:
        if key.endswith(FIRST_LAYER):
            prefix = key.removesuffix(FIRST_LAYER)
            state = {name.removeprefix(prefix): value for name, value in tree.items() if name.startswith(prefix)}
            rank = next((i for i, name in enumerate(PREFERRED) if prefix.endswith(name)), len(PREFERRED))
            yield rank, {name: value for name, value in state.items() if isinstance(value, Tensor)}


def build_generator(state: dict[str, Tensor]) -> Generator | None:
    """Build the network that the shapes of a state dict tell of, with its weights; None if they tell of another."""
    kernels = [value for value in state.values() if value.ndim == 4]
    steps = len(kernels) - 1
    try:
        generator = Generator(
            image_size=4 * 2**steps,
            channels=kernels[-1].shape[1],
            latent_dim=kernels[0].shape[0],
            base_channels=kernels[-1].shape[0],
            normalization="batch" if "main.1.running_mean" in state else "none",
        )
        # Files of old torch versions have no counters of batches; they matter to no result.
        counters = {name: value for name, value in generator.state_dict().items() if name.endswith("batches_tracked")}
        generator.load_state_dict(counters | state)
    except (InputError, RuntimeError):
        return None
    return generator


def build_discriminator(state: dict[str, Tensor]) -> Discriminator | None:
    """Build the network that the shapes of a state dict describe, with its weights; None if they describe another."""
    kernels = [value for value in state.values() if isinstance(value, Tensor) and value.ndim == 4]
    if not kernels:
        return None
    try:
        discriminator = Discriminator(
            image_size=4 * 2 ** (len(kernels) - 1),
            channels=kernels[0].shape[1],
            base_channels=kernels[0].shape[0],
            normalization=_discriminator_normalization(state),
        )
        discriminator.load_state_dict(state)
    except (InputError, RuntimeError):
        return None
    return discriminator


def _discriminator_normalization(state: Mapping[str, Tensor]) -> DiscriminatorNormalization:
    if any("parametrizations" in name for name in state):
        return "spectral"
    return "batch" if any("running_mean" in name for name in state) else "none"
