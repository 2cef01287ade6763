"""Load networks from checkpoints of this package, of the PyTorch DCGAN tutorial and of StyleGAN2.

Code in a file is never executed.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast, get_args

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from gan_lightning.errors import InputError
from gan_lightning.networks.architecture_shapes import (
    FIRST_MODERN,
    FIRST_RESIDUAL,
    build_modern_discriminator,
    build_modern_generator,
    build_residual_discriminator,
    build_residual_generator,
)
from gan_lightning.networks.architectures import make_generator
from gan_lightning.networks.conditional import ConditionalGenerator
from gan_lightning.networks.dcgan import (
    Discriminator,
    DiscriminatorNormalization,
    Generator,
    GeneratorNormalization,
)
from gan_lightning.networks.modern import ModernDiscriminator, ModernGenerator
from gan_lightning.networks.residual import ResidualDiscriminator, ResidualGenerator
from gan_lightning.networks.stylegan2 import StyleGAN2Generator
from gan_lightning.networks.stylegan2_discriminator import StyleGAN2Discriminator
from gan_lightning.networks.stylegan2_weights import (
    FIRST_STYLEGAN2,
    build_stylegan2,
    build_stylegan2_discriminator,
    export_command,
)
from gan_lightning.pretrained import find_weights, read_weights

AnyGenerator = Generator | ResidualGenerator | ModernGenerator | StyleGAN2Generator
AnyDiscriminator = Discriminator | ResidualDiscriminator | ModernDiscriminator | StyleGAN2Discriminator

FIRST_LAYER = "main.0.weight"
GENERATOR_CLASS = "generator_class"  # key of our checkpoints, because shapes do not distinguish classes of networks
DISCRIMINATOR_CLASS = "discriminator_class"
CLASS_NAMES = "class_names"  # key of checkpoints with labels
OF_CLASSES = "classes."  # beginning of the names of a discriminator's weights for labels
PREFERRED = ("generator_ema.", "G_ema.", "generator.")  # the average first, because metrics are measured on it


def load_generator(path: str | os.PathLike[str]) -> AnyGenerator:
    """Load a generator from a checkpoint of this package, of the PyTorch DCGAN tutorial, or of StyleGAN2.

    The architecture is inferred from the shapes. The state dict may be the content of the file or nested under keys of
    any name ("state_dict", "netG", ...), with or without the prefix "module." of DataParallel. From checkpoints of this
    package, the averaged generator is loaded. Weights of StyleGAN2 have the names of the public PyTorch implementation.

    Args:
        path: File written by `torch.save`, by Lightning, or by safetensors (`.safetensors`); folder that
            `DCGAN.save_pretrained` has written; or name of weights that come with the package, such as "faces64".

    Returns:
        The generator, in evaluation mode, on the CPU.

    Raises:
        InputError: If the file does not exist, is truncated, holds other objects than tensors and plain values,
            contains no generator, or contains a StyleGAN2 of an unsupported configuration.
    """
    path = find_weights(path, "generator")
    return generator_in(load_tensors(path), path)


def generator_in(content: Any, path: str | os.PathLike[str]) -> AnyGenerator:
    """Build the generator that the content of a checkpoint describes, in evaluation mode.

    Args:
        content: Content of the file.
        path: Path of the file, for messages.

    Raises:
        InputError: If there is no generator, or one that is not a network of this package.
    """
    made = content.get(GENERATOR_CLASS) if isinstance(content, dict) else None
    if made not in (None, *known_generators()):
        raise InputError(
            f"the generator of {path} is a {made}, not a DCGAN's: load it with the module that was trained, "
            "Mine.load_from_checkpoint(path).generator_ema"
        )
    trees = list(mappings(content))
    for first, build in BUILDERS.items():
        candidates = [candidate for tree in trees for candidate in generator_states(tree, first)]
        for state in sorted(candidates, key=lambda pair: pair[0]):
            if (generator := build(state[1])) is not None:
                if isinstance(generator, ConditionalGenerator):
                    generator.class_names = tuple(content.get(CLASS_NAMES, generator.class_names))
                return generator.eval()
    candidates = [candidate for tree in trees for candidate in generator_states(tree, FIRST_STYLEGAN2)]
    for state in sorted(candidates, key=lambda pair: pair[0]):
        parts = {name: value for name, value in state[1].items() if name.startswith(("mapping.", "synthesis."))}
        return build_stylegan2(parts, path).eval()
    raise InputError(
        f"{path} holds no DCGAN generator, and no StyleGAN2 generator: expected weights named '...{FIRST_LAYER}' or "
        f"'...{FIRST_STYLEGAN2}' and so on"
    )


def load_discriminator(path: str | os.PathLike[str]) -> AnyDiscriminator:
    """Read the discriminator from a checkpoint of this package; the architecture is inferred from the shapes.

    Args:
        path: Checkpoint of a `DCGAN` or `StyleGAN2`, or weights as for `load_generator`.

    Returns:
        The discriminator, in evaluation mode, without gradients, on the CPU.

    Raises:
        InputError: If the file is missing, truncated, or contains no discriminator.
    """
    prefix, path = "discriminator.", find_weights(path, "discriminator")
    for tree in mappings(load_tensors(path)):
        state = {name.removeprefix(prefix): value for name, value in tree.items() if name.startswith(prefix)}
        discriminator = (
            build_discriminator(state)
            or build_residual_discriminator(state)
            or build_modern_discriminator(state)
            or build_stylegan2_discriminator(state)
        )
        if discriminator is not None:
            return discriminator.eval().requires_grad_(False)
    raise InputError(f"{path} holds no discriminator: the perceptual loss needs a checkpoint of DCGAN or StyleGAN2")


def load_tensors(path: str | os.PathLike[str]) -> Any:
    """Load tensors and plain values from a file of `torch.save` or safetensors, on the CPU, without executing code.

    Args:
        path: Path of the file.

    Raises:
        InputError: If the file does not exist, cannot be read, is truncated, or holds other objects.
    """
    if Path(path).is_dir():
        raise InputError(f"{path} is a folder without weights: give the file of a checkpoint")
    if not Path(path).is_file():
        raise InputError(f"checkpoint {path} does not exist: check the path")
    suffix = Path(path).suffix.lower()
    if suffix == ".pkl" and not zipfile.is_zipfile(path):
        raise InputError(
            f"{path} is refused: unpickling it could run code. Export its weights in a copy of the code that wrote it "
            f"(docs/stylegan2.md), and give that file: {export_command(path)}"
        )
    try:
        if suffix == ".safetensors":
            return read_weights(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} is refused: it is not a checkpoint, or contains objects that could run code when loaded"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, SafetensorError) as error:
        raise InputError(f"{path} is not a whole checkpoint: it may be truncated, or something else") from error


def check_whole(path: str | os.PathLike[str]) -> None:
    """Check the checksums of a checkpoint: torch detects a truncated file, but not a changed byte.

    Args:
        path: Path of the checkpoint.

    Raises:
        InputError: If it is damaged.
    """
    if not zipfile.is_zipfile(path):
        return  # missing, truncated, or something else, which `load_tensors` reports
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        damaged = str(error)
    if damaged is not None:
        raise InputError(f"{path} is damaged: its content is not what was written")


def known_generators() -> list[str]:
    """Return the names of the classes of generators that can be built from their weights."""
    return [class_name(kind) for kind in (ConditionalGenerator, *get_args(AnyGenerator))]


def class_name(network: nn.Module | type[nn.Module]) -> str:
    """Return the full name of the class of a network."""
    kind = network if isinstance(network, type) else type(network)
    return f"{kind.__module__}.{kind.__qualname__}"


def mappings(content: Any) -> Iterator[Mapping[str, Any]]:
    """Iterate over nested dictionaries with string keys, outermost first."""
    if isinstance(content, Mapping) and all(isinstance(key, str) for key in content):
        yield content
        for value in content.values():
            yield from mappings(value)


def generator_states(tree: Mapping[str, Any], first: str) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Yield state dicts that may be those of a generator, without prefixes, each with its rank in `PREFERRED`.

    Args:
        tree: Values by name.
        first: Name of the tensor by which a generator is recognized.
    """
    for key in tree:
        if key.endswith(first):
            prefix = key.removesuffix(first)
            state = {name.removeprefix(prefix): value for name, value in tree.items() if name.startswith(prefix)}
            rank = next((i for i, name in enumerate(PREFERRED) if prefix.endswith(name)), len(PREFERRED))
            yield rank, {name: value for name, value in state.items() if isinstance(value, Tensor)}


def build_generator(state: dict[str, Tensor]) -> Generator | None:
    """Build a generator from a state dict, with an architecture inferred from shapes; None if the dict is another's."""
    kernels = [value for value in state.values() if value.ndim == 4]
    if not kernels:
        return None
    normalized = any(name.startswith("main.1.") and name.endswith("running_mean") for name in state)
    scales = state.get("main.1.weight")
    plain: GeneratorNormalization = "none" if scales is None or scales.ndim == 2 else "group"
    classes = len(scales) if scales is not None and scales.ndim == 2 else 0
    sizes = {
        "image_size": 4 * 2 ** (len(kernels) - 1),
        "channels": kernels[-1].shape[1],
        "latent_dim": kernels[0].shape[0],
        "base_channels": kernels[-1].shape[0],
    }
    try:
        generator = make_generator("dcgan", "batch" if normalized else plain, classes, **sizes)
        # Files of old torch versions lack the counters of batches, which do not affect results.
        counters = {name: value for name, value in generator.state_dict().items() if name.endswith("batches_tracked")}
        generator.load_state_dict(counters | state)
    except (InputError, RuntimeError):
        return None
    return cast(Generator, generator)


BUILDERS: dict[str, Callable[[dict[str, Tensor]], AnyGenerator | None]] = {  # by the tensor that a state dict has
    FIRST_LAYER: build_generator,
    FIRST_RESIDUAL: build_residual_generator,
    FIRST_MODERN: build_modern_generator,
}


def build_discriminator(state: dict[str, Tensor]) -> Discriminator | None:
    """Build the network that the shapes of a state dict describe, with its weights; None if they describe another.

    For a discriminator with classes, the projection by class is left out.
    """
    state = {name: value for name, value in state.items() if not name.startswith(OF_CLASSES)}
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
    if any("running_mean" in name for name in state):
        return "batch"
    return "group" if any(value.ndim == 1 and name.endswith("weight") for name, value in state.items()) else "none"
