"""Build the networks of StyleGAN2 from state dicts, with a configuration inferred from the shapes."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from gan_lightning.errors import InputError
from gan_lightning.networks.stylegan2 import StyleGAN2Generator
from gan_lightning.networks.stylegan2_discriminator import StyleGAN2Discriminator

FIRST_STYLEGAN2 = "synthesis.b4.const"
EXPORT = (  # docs/stylegan2.md explains it
    "import pathlib, pickle, sys; from safetensors.torch import save_file; "
    "G = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())['G_ema']; "
    "save_file({k: v.float().contiguous() for k, v in G.state_dict().items()}, sys.argv[2])"
)


def export_command(path: str | os.PathLike[str]) -> str:
    """Return the command that exports the weights of a pickled network, in a copy of the code that pickled it."""
    source, target = (shlex.quote(str(name)) for name in (path, Path(path).with_suffix(".safetensors")))
    return f'python -c "{EXPORT}" {source} {target}'


def build_stylegan2(state: Mapping[str, Tensor], path: str | os.PathLike[str]) -> StyleGAN2Generator:
    """Build the StyleGAN2 generator that the shapes of a state dict describe, with its weights.

    Args:
        state: Tensors by the names of `StyleGAN2Generator`.
        path: Path of their file, for messages.

    Raises:
        InputError: If the tensors are those of another configuration; the first one that does not fit is named.
    """
    configuration = _configuration(state, path)
    try:
        generator = StyleGAN2Generator(**configuration)
    except InputError as error:
        raise InputError(f"{path} holds a StyleGAN2 generator of an unsupported configuration: {error}") from error
    expected = generator.state_dict()
    for name in [*expected, *sorted(state.keys() - expected.keys())]:
        ours, theirs = (tuple(tensors[name].shape) if name in tensors else None for tensors in (expected, state))
        if ours != theirs:
            _refuse(path, name, "no such tensor" if ours is None else f"shape {ours}", theirs)
    generator.load_state_dict(dict(state))
    return generator


def build_stylegan2_discriminator(state: Mapping[str, Tensor]) -> StyleGAN2Discriminator | None:
    """Build the discriminator that the shapes of a state dict describe, with its weights; None if it is another's."""
    size = max(_sizes(state, "b"), default=0)
    first = state.get(f"b{size}.fromrgb.weight")
    last = state.get("b4.conv.weight")
    if first is None or last is None:
        return None
    try:
        embed = state.get("mapping.embed.weight")
        labels = {"label_dim": 0 if embed is None else embed.shape[1], "mapping_layers": _mapping_layers(state)}
        discriminator = StyleGAN2Discriminator(size, first.shape[1], first.shape[0], last.shape[0], **labels)
        discriminator.load_state_dict(dict(state))
    except (InputError, RuntimeError, IndexError):
        return None
    return discriminator


def _sizes(state: Mapping[str, Tensor], prefix: str) -> list[int]:
    """Return the sizes of the blocks, once for each tensor."""
    return [int(match[1]) for name in state if (match := re.match(rf"{re.escape(prefix)}(\d+)\.", name))]


def _configuration(state: Mapping[str, Tensor], path: str | os.PathLike[str]) -> dict[str, int]:
    """Return the arguments of `StyleGAN2Generator` that the shapes imply."""

    def shape(name: str, dimensions: int) -> tuple[int, ...]:
        if name not in state or state[name].ndim != dimensions:
            theirs = tuple(state[name].shape) if name in state else None
            _refuse(path, name, f"a tensor of {dimensions} dimensions", theirs)
        return tuple(state[name].shape)

    size = max(_sizes(state, "synthesis.b"), default=4)
    last = shape(f"synthesis.b{size}.torgb.weight", 4)
    w_dim = shape("mapping.w_avg", 1)[0]
    label_dim = shape("mapping.embed.weight", 2)[1] if "mapping.embed.weight" in state else 0
    return {
        "image_size": size,
        "channels": last[0],
        "latent_dim": shape("mapping.fc0.weight", 2)[1] - (w_dim if label_dim else 0),
        "base_channels": last[1],
        "max_channels": shape(FIRST_STYLEGAN2, 3)[0],
        "w_dim": w_dim,
        "label_dim": label_dim,
        "mapping_layers": _mapping_layers(state),
    }


def _mapping_layers(state: Mapping[str, Tensor]) -> int:
    return len([name for name in state if re.fullmatch(r"mapping\.fc\d+\.weight", name)])


def _refuse(path: str | os.PathLike[str], name: str, expected: str, shape: tuple[int, ...] | None) -> None:
    found = "it is missing" if shape is None else f"got shape {shape}"
    raise InputError(
        f"{path} holds a StyleGAN2 generator of an unsupported configuration: {name}: expected {expected} but {found}"
    )
