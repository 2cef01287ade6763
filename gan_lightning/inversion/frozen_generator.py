"""The generator as inversion uses it: a frozen copy, made fast, that leaves the original as it was."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gan_lightning.errors import InputError
from gan_lightning.inversion.whitening import Whitening, fill_up, measure_metric, multiply_rows

NO_FIRST_BLOCK = "this generator is not laid out as gan_lightning.Generator: set refine to none"
BLOCK = 3  # layers of `main` to a block: convolution, normalisation, activation


class FrozenGenerator(nn.Module):
    """A copy of a generator in evaluation mode, whose normalisation is folded into the convolutions before it.

    The fold changes images by about 1e-6 and takes a third off the time of a step.

    An image is the same to the last bit in any batch on a CPU, where search would make much of a bit: convolutions sum
    in another order when threads cannot share a batch evenly, so that it is filled up.

    Args:
        generator: Maps (B, latent_dim) to (B,C,H,W) in [-1, 1]; has `latent_dim`. It is not changed.

    Raises:
        InputError: A generator without `latent_dim`.
    """

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        latent_dim = getattr(generator, "latent_dim", None)
        if not isinstance(latent_dim, int):
            raise InputError("the generator has no latent_dim: give it one, the length of its latent vectors")
        self.latent_dim = latent_dim
        self.first: FirstBlock | None = None
        # On the CPU first, where products are exact enough to tell whether the split makes the same images.
        self.rest: nn.Module = copy.deepcopy(generator).eval().requires_grad_(False).float().cpu()
        if (parts := _split(self.rest, latent_dim)) is not None:
            self.first, self.rest = parts
        self.to(next(generator.parameters()).device).to(memory_format=torch.channels_last)

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (B, latent_dim) to images (B,C,H,W) in [-1, 1]."""
        return self.render(latents if self.first is None else self.features(latents))

    def render(self, features: Tensor) -> Tensor:
        """Map what the first block made (B,C,4,4) to images (B,C,H,W) in [-1, 1]."""
        threads = torch.get_num_threads() if features.device.type == "cpu" and len(features) > 1 else 1
        images: Tensor = self.rest(fill_up(features, threads))[: len(features)]
        return images

    def features(self, latents: Tensor) -> Tensor:
        """Map latents (B, latent_dim) to what the first block makes of them, (B,C,4,4).

        Raises:
            InputError: The generator's layers are not laid out as in gan_lightning.Generator.
        """
        if self.first is None:
            raise InputError(NO_FIRST_BLOCK)
        features: Tensor = self.first(latents)
        return features

    @cached_property
    def whitening(self) -> Whitening:
        """The coordinates in which latents are searched for."""
        with torch.enable_grad():
            return Whitening(measure_metric(self, self.latent_dim, next(self.parameters())))


def freeze_generator(generator: nn.Module) -> FrozenGenerator:
    """Return the frozen copy of a generator, which keeps what it measured for as long as the generator stays as it is.

    Raises:
        InputError: A generator without `latent_dim`.
    """
    fresh, kept = FrozenGenerator(generator), _frozen.get(generator)
    # The weights themselves are compared: fused optimizers and `.data` change them without a trace.
    if kept is None or not _equal(fresh, kept):
        kept = _frozen[generator] = fresh
    return kept


_frozen: WeakKeyDictionary[nn.Module, FrozenGenerator] = WeakKeyDictionary()


def _equal(one: nn.Module, other: nn.Module) -> bool:
    """Whether two modules have the same layers and, to the bit, the same weights on the same device."""
    states = one.state_dict(), other.state_dict()
    return repr(one) == repr(other) and all(
        a.device == b.device and a.dtype == b.dtype and torch.equal(a, b)
        for a, b in zip(*(state.values() for state in states), strict=True)
    )


def _split(generator: nn.Module, latent_dim: int) -> tuple[FirstBlock, nn.Sequential] | None:
    """Split a generator that is laid out as gan_lightning.Generator into its first block and the rest, both folded.

    Returns:
        The two, or None where they would not make the same images.
    """
    main = getattr(generator, "main", None)
    first = main[0] if isinstance(main, nn.Sequential) and len(main) > BLOCK else None
    if main is None or not isinstance(first, nn.ConvTranspose2d) or len(first.weight) != latent_dim:
        return None
    with torch.no_grad():
        latents = torch.eye(2, latent_dim).to(first.weight)
        try:
            parts = FirstBlock(_fold(main[:BLOCK])), _fold(main[BLOCK:])
            same = torch.allclose(parts[1](parts[0](latents)), generator(latents), atol=1e-4, equal_nan=True)
        except (RuntimeError, ValueError):  # layers that do not follow each other as ours do
            return None
    return parts if same else None


class FirstBlock(nn.Module):
    """The first block as the matrix product that a transposed convolution of one pixel is: several times as fast.

    Args:
        folded: A transposed convolution, and the activations after it.
    """

    def __init__(self, folded: nn.Sequential) -> None:
        super().__init__()
        convolution: Any = folded[0]
        latent_dim, channels, *self.size = convolution.weight.shape
        weight = convolution.weight.detach().permute(2, 3, 1, 0).reshape(-1, latent_dim)  # channels last
        bias = torch.zeros(channels) if convolution.bias is None else convolution.bias.detach()
        self.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
        self.bias = nn.Parameter(bias.to(weight).repeat(len(weight) // channels), requires_grad=False)
        self.activation = folded[1:]

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (B, latent_dim) to features (B,C,4,4)."""
        flat = multiply_rows(latents, self.weight, self.bias)
        features: Tensor = self.activation(flat.view(len(latents), *self.size, -1).permute(0, 3, 1, 2))
        return features


def _fold(layers: nn.Sequential) -> nn.Sequential:
    """Fold batch normalisation into the transposed convolution before it; activations no longer work in place."""
    folded: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d) and folded and isinstance(folded[-1], nn.ConvTranspose2d):
            folded[-1] = fuse_conv_bn_eval(folded[-1], layer, transpose=True)
        elif isinstance(layer, nn.ReLU):
            folded.append(nn.ReLU())  # forward-mode derivatives need the values from before
        elif not isinstance(layer, nn.Identity):
            folded.append(layer)
    return nn.Sequential(*folded)
