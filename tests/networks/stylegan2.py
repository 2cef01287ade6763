"""A StyleGAN2 generator of 32 px, and what the public implementation computes with it."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from gan_lightning.networks.checkpoints import load_generator
from gan_lightning.networks.stylegan2 import StyleGAN2Generator

REFERENCE = Path(__file__).parent / "stylegan2_tiny.safetensors"


def reference() -> dict[str, torch.Tensor]:
    """Return the tensors of the file: the state dict under "G.", inputs and outputs under "out."."""
    return load_file(REFERENCE)


def weights() -> dict[str, torch.Tensor]:
    """Return the state dict."""
    return {name.removeprefix("G."): value for name, value in reference().items() if name.startswith("G.")}


def tiny_stylegan2() -> StyleGAN2Generator:
    """Return the generator."""
    generator = load_generator(REFERENCE)
    assert isinstance(generator, StyleGAN2Generator)
    return generator
