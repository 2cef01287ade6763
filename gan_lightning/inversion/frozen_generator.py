"""Frozen copy of a generator, optimized for inversion."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gan_lightning.errors import InputError
from gan_lightning.inversion.noise_maps import normalize_maps
from gan_lightning.inversion.prior import DrawsLatents, HasFeatures, HasFilters, HasNoiseMaps
from gan_lightning.inversion.whitening import (
    DRAWS,
    MAX_WHITENED,
    NoWhitening,
    Whitening,
    curvature_of_draws,
    estimate_gauss_newton_matrix,
    multiply_rows,
    pad_batch,
    trim_batch,
)
from gan_lightning.networks.dcgan import LAYERS_PER_BLOCK
from gan_lightning.seeding import image_rng

NO_FIRST_BLOCK = "this generator is not laid out as gan_lightning.Generator, and offers no features: set refine to none"


class FrozenGenerator(nn.Module):
    """Copy of a generator in evaluation mode, split into two parts if possible.

    If the generator has the layout of `gan_lightning.Generator`, its batch normalization is folded into the preceding
    convolutions, which changes images by about 1e-6 and makes a step a third faster.

    On a CPU, an image is bit-identical in any batch, because the optimization would amplify a difference of one bit. To
    achieve this, batches are padded: convolutions sum in a different order if the threads cannot divide a batch evenly.

    Args:
        generator: A `Prior`: it maps latents (B, latent_dim) to images (B,C,H,W) in [-1, 1] and has an attribute
            `latent_dim`. It is not modified.

    Raises:
        InputError: If the generator has no `latent_dim`.
    """

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        latent_dim = getattr(generator, "latent_dim", None)
        if not isinstance(latent_dim, int):
            raise InputError("the generator has no attribute latent_dim: set it to the length of the latent vectors")
        self.latent_dim = latent_dim
        self.first: nn.Module | None = None
        # Split on the CPU, where products are exact enough to verify that the parts generate the same images.
        self.rest: nn.Module = _in_evaluation(copy.deepcopy(generator)).requires_grad_(False).float().cpu()
        self.noise_sizes = self.rest.noise_sizes if isinstance(self.rest, HasNoiseMaps) else ()
        self._noise = self.rest.noise if isinstance(self.rest, HasNoiseMaps) else None
        self._filtered = (self.rest,) if isinstance(self.rest, HasFilters) else None  # in a tuple: not registered twice
        self._draw = self.rest.draw if isinstance(self.rest, DrawsLatents) else None
        if (parts := _split(self.rest, latent_dim) or _offered(self.rest)) is not None:
            self.first, self.rest = parts
        self.to(next(generator.parameters()).device).to(memory_format=torch.channels_last)

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (B, latent_dim), optionally followed by noise maps, to images (B,C,H,W) in [-1, 1]."""
        own, noise = latents[:, : self.latent_dim], latents[:, self.latent_dim :]
        return self.render(own if self.first is None else self.features(own), noise)

    def held_noise(self) -> Tensor:
        """Return the default noise maps, flat: (N,)."""
        return next(self.parameters()).new_zeros(0) if self._noise is None else self._noise().detach()

    def draw(self, count: int, rng: torch.Generator) -> Tensor:
        """Return random latents of the prior (count, latent_dim), a function of the state of `rng`, a CPU generator."""
        if self._draw is None:
            return torch.randn(count, self.latent_dim, generator=rng)
        with torch.no_grad():
            return self._draw(count, rng)

    def render(self, features: Tensor, noise: Tensor | None = None) -> Tensor:
        """Map features (B,...), the output of the first part, to images (B,C,H,W) in [-1, 1].

        Args:
            features: Features.
            noise: (B,N) noise maps, which are normalized here, or (B,0) or None for the default ones.
        """
        threads = torch.get_num_threads() if features.device.type == "cpu" and len(features) > 1 else 1
        inputs = [pad_batch(features, threads)]
        if noise is not None and noise.shape[1]:
            inputs.append(pad_batch(normalize_maps(noise, self.noise_sizes), threads))
        images: Tensor = self.rest(*inputs)
        return trim_batch(images, len(features))

    @property
    def num_filters(self) -> int:
        """Number of filters that can have their own latent, see `HasFilters`."""
        return 0 if self._filtered is None else self._filtered[0].num_filters

    def render_filters(self, features: Tensor, shifts: Tensor) -> Tensor:
        """Map features (B,...), and the distances of the filters' latents from them (B,F), to images (B,C,H,W)."""
        assert self._filtered is not None
        threads = torch.get_num_threads() if features.device.type == "cpu" and len(features) > 1 else 1
        padded = (pad_batch(rows, threads) for rows in (features, shifts))
        images: Tensor = self._filtered[0].render_filters(*padded)
        return trim_batch(images, len(features))

    def features(self, latents: Tensor) -> Tensor:
        """Map latents (B, latent_dim) to features (B,...), the output of the first part: of our generator, (B,C,4,4).

        Raises:
            InputError: If the generator cannot be split: it neither has the layout of `gan_lightning.Generator` nor
                implements `HasFeatures`.
        """
        if self.first is None:
            raise InputError(NO_FIRST_BLOCK)
        features: Tensor = self.first(latents)
        return features

    @cached_property
    def whitening(self) -> Whitening | NoWhitening:
        """Preconditioner of the latents, computed on first use; none for very long latents."""
        if self.latent_dim > MAX_WHITENED:
            return NoWhitening()
        if self._draw is not None:
            latents = self.draw(DRAWS, image_rng(0, 0, "whitening")).to(next(self.parameters()))
            if (curvature := curvature_of_draws(latents)) is not None:
                return Whitening(curvature)
        with torch.enable_grad():
            return Whitening(estimate_gauss_newton_matrix(self, self.latent_dim, next(self.parameters())))


def freeze_generator(generator: nn.Module) -> FrozenGenerator:
    """Return a frozen copy of a generator, kept together with its preconditioner until the generator changes.

    Raises:
        InputError: If the generator has no `latent_dim`.
    """
    kept = _frozen.get(generator)
    if kept is None or not kept[0].still_describes(generator):
        kept = _frozen[generator] = _Snapshot(generator), FrozenGenerator(generator)
    return kept[1]


def share_frozen(generator: nn.Module, earlier: nn.Module) -> None:
    """Let `freeze_generator` return for a generator what it made of an earlier one, while both are bit-identical.

    Args:
        generator: Network, as `load_generator` returns it, or a prior of it.
        earlier: Another one. Nothing is shared if it differs, or has not been frozen.
    """
    if type(generator) is type(earlier) and (kept := _frozen.get(earlier)) is not None:
        _frozen[generator] = kept


class _Snapshot:
    """Everything that determines the output of a module: layers, attributes, and a copy of parameters and buffers."""

    def __init__(self, module: nn.Module) -> None:
        self.layers = _layers(module)
        # The values themselves: fused optimizers and `.data` do not increment the versions of tensors.
        self.tensors = [tensor.detach().clone() for tensor in _tensors(module)]

    def still_describes(self, module: nn.Module) -> bool:
        """Return whether the module has the same layers, and bit-identical tensors on the same device."""
        now = _tensors(module)
        pairs = list(zip(self.tensors, now, strict=False))
        return (
            self.layers == _layers(module)
            and len(self.tensors) == len(now)
            and all(a.device == b.device and a.dtype == b.dtype and a.shape == b.shape for a, b in pairs)
            and (not pairs or bool(torch.stack([(a == b).all() for a, b in pairs]).all()))  # waits once
        )


_frozen: WeakKeyDictionary[nn.Module, tuple[_Snapshot, FrozenGenerator]] = WeakKeyDictionary()


def _layers(module: nn.Module) -> tuple[str, list[dict[str, Any]]]:
    plain = (bool, int, float, str, tuple)
    return repr(module), [
        {name: value for name, value in vars(part).items() if isinstance(value, plain) and name != "training"}
        for part in module.modules()
    ]


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _in_evaluation(network: nn.Module) -> nn.Module:
    """Set a network to evaluation mode, except exported programs in it, which have a single mode and would raise."""
    try:
        return network.eval()
    except NotImplementedError:
        for module in network.modules():
            module.training = False
        return network


def _offered(generator: nn.Module) -> tuple[nn.Module, nn.Module] | None:
    """Return the two parts that a generator offers, or None."""
    return (_Features(generator), _Render(generator)) if isinstance(generator, HasFeatures) else None


class _Features(nn.Module):
    """The first part of a generator that offers two."""

    def __init__(self, generator: Any) -> None:
        super().__init__()
        self.generator = (generator,)  # in a tuple: a module registered twice cannot be called with other weights

    def forward(self, latents: Tensor) -> Tensor:
        features: Tensor = self.generator[0].features(latents)
        return features


class _Render(nn.Module):
    """The second part, which owns the weights of both."""

    def __init__(self, generator: Any) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, features: Tensor, *noise: Tensor) -> Tensor:
        images: Tensor = self.generator.render(features, *noise)
        return images


def _split(generator: nn.Module, latent_dim: int) -> tuple[FirstBlock, nn.Sequential] | None:
    """Split a generator into its first block and the remaining layers, both with folded normalization.

    Returns:
        Both parts, or None if the generator does not have the layout of `gan_lightning.Generator`, so that the parts
        would generate different images.
    """
    main = getattr(generator, "main", None)
    first = main[0] if isinstance(main, nn.Sequential) and len(main) > LAYERS_PER_BLOCK else None
    if main is None or not isinstance(first, nn.ConvTranspose2d) or len(first.weight) != latent_dim:
        return None
    with torch.no_grad():
        latents = torch.eye(2, latent_dim).to(first.weight)
        try:
            parts = FirstBlock(_fold(main[:LAYERS_PER_BLOCK])), _fold(main[LAYERS_PER_BLOCK:])
            same = torch.allclose(parts[1](parts[0](latents)), generator(latents), atol=1e-4, equal_nan=True)
        except (RuntimeError, ValueError):  # layers in a different order than those of gan_lightning.Generator
            return None
    return parts if same else None


class FirstBlock(nn.Module):
    """First block of a generator as a matrix product, several times as fast as a transposed convolution of one pixel.

    Args:
        folded: Transposed convolution, followed by its activations.
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
    """Fold batch normalization into the preceding transposed convolutions and make activations out-of-place."""
    folded: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d) and folded and isinstance(folded[-1], nn.ConvTranspose2d):
            folded[-1] = fuse_conv_bn_eval(folded[-1], layer, transpose=True)
        elif isinstance(layer, nn.ReLU):
            folded.append(nn.ReLU())  # not in place: forward-mode derivatives need the input
        elif not isinstance(layer, nn.Identity):
            folded.append(layer)
    return nn.Sequential(*folded)
