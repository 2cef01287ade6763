"""Networks that enlarge images, from our own weights or from those that spandrel recognizes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_lightning.errors import InputError, first_line
from gan_lightning.networks.checkpoints import generator_states, load_tensors, mappings
from gan_lightning.networks.rrdb import build_rrdb

FIRST_RRDB = "conv_first.weight"


@dataclass(frozen=True)
class Upscaler:
    """A network that enlarges images.

    Attributes:
        network: Function from images (B,C,H,W) in [0, 1] to images `scale` times as large.
        name: Name of the architecture.
        channels: Number of channels of the images.
        scale: Factor of the enlargement.
        digest: Hash of the file of the weights.
        multiple: Number that must divide height and width of the input, and the positions of tiles.
    """

    network: Callable[[Tensor], Tensor]
    name: str
    channels: int
    scale: int
    digest: str
    multiple: int = 1

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Enlarge images (B,C,H,W) in [-1, 1]."""
        height, width = images.shape[-2:]
        missing = -width % self.multiple, -height % self.multiple
        found = (images + 1) / 2
        if any(missing):
            found = torch.nn.functional.pad(found, (0, missing[0], 0, missing[1]), mode="replicate")
        large = self.network(found)[..., : height * self.scale, : width * self.scale]
        return 2 * large - 1


def load_upscaler(path: str | Path, device: torch.device) -> Upscaler:
    """Load a network that enlarges images, without executing code in the file.

    Args:
        path: Checkpoint of `ESRGAN`, whose averaged generator is used; weights of an RRDBNet; or weights of any
            architecture that spandrel reads.
        device: Device of the network.

    Raises:
        InputError: If the file does not exist, cannot be read, or contains no such network, or if spandrel is needed
            but not installed.
    """
    content = load_tensors(path)
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
    candidates = [pair for tree in mappings(content) for pair in generator_states(tree, FIRST_RRDB)]
    for _, state in sorted(candidates, key=lambda pair: pair[0]):
        if (network := build_rrdb(state)) is not None:
            network.eval().requires_grad_(False).to(device)
            check_finite(state, path)
            check_channels(network.channels, path)
            return Upscaler(network, "RRDBNet", network.channels, network.scale, digest, network.shuffle)
    return load_by_spandrel(content, path, digest, device)


def load_by_spandrel(content: Any, path: str | Path, digest: str, device: torch.device) -> Upscaler:
    """Load the network of an already read state dict with spandrel."""
    if find_spec("spandrel") is None:
        raise InputError(
            f"{path} holds no RRDBNet, the network of an ESRGAN: give weights of one; to read those of other networks "
            "that enlarge images: pip install 'gan-lightning[upscale]'"
        )
    from spandrel import ImageModelDescriptor, ModelLoader

    try:
        model = ModelLoader().load_from_state_dict(content)
    except Exception as error:  # each architecture raises different classes
        reason = f" ({first_line(error)})" if str(error) else ""
        raise InputError(f"{path} holds no network that spandrel reads{reason}") from error
    if not isinstance(model, ImageModelDescriptor) or model.input_channels != model.output_channels:
        raise InputError(f"{path} holds a {model.architecture.name}, which does not map images to images")
    check_channels(model.input_channels, path)
    model.eval().to(device)  # spandrel pads images that are too small
    multiple = model.size_requirements.multiple_of
    return Upscaler(model, model.architecture.name, model.input_channels, model.scale, digest, multiple)


def check_channels(channels: int, path: str | Path) -> None:
    """Raise an InputError if a network supports neither gray nor color images."""
    if channels not in (1, 3):
        raise InputError(f"{path} takes images of {channels} channels: expected 1 or 3")


def check_finite(state: dict[str, Tensor], path: str | Path) -> None:
    """Raise an InputError if weights are not finite."""
    if bad := [name for name, value in state.items() if not value.isfinite().all()]:
        raise InputError(f"{path} holds weights that are not finite ({bad[0]}): give an earlier checkpoint")
