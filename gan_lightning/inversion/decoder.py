"""The generator as inversion uses it: a frozen copy, made fast, that leaves the original as it was."""

from __future__ import annotations

import copy
from functools import cached_property
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gan_lightning.errors import InputError
from gan_lightning.inversion.whitening import Whitening, fill_up, measure_metric, multiply_rows

BLOCK = 3  # layers of `main` to a block: convolution, normalisation, activation


class Decoder(nn.Module):
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
        frozen = copy.deepcopy(generator).eval().requires_grad_(False)
        main = getattr(frozen, "main", None)
        # Only the layout of our own generators can be split into a first block and the rest.
        self.first = FirstBlock(_fold(main[:BLOCK])) if isinstance(main, nn.Sequential) else None
        self.rest = _fold(main[BLOCK:]) if isinstance(main, nn.Sequential) else frozen
        self.to(memory_format=torch.channels_last)

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
            raise InputError("this generator's first block is not known: set refine to none")
        features: Tensor = self.first(latents)
        return features

    @cached_property
    def whitening(self) -> Whitening:
        """The coordinates in which latents are searched for."""
        with torch.enable_grad():
            return Whitening(measure_metric(self, self.latent_dim, next(self.parameters())))


def decoder_of(generator: nn.Module) -> Decoder:
    """Give a generator's decoder, made and measured once for as long as the generator stays as it is.

    Raises:
        InputError: A generator without `latent_dim`.
    """
    kept = _decoders.get(generator)
    version = _version(generator)
    if kept is None or kept[0] != version:
        kept = version, Decoder(generator)
        _decoders[generator] = kept
    return kept[1]


_decoders: WeakKeyDictionary[nn.Module, tuple[object, Decoder]] = WeakKeyDictionary()


def _version(generator: nn.Module) -> object:
    """Give what changes when a tensor of the generator is replaced, moved or written to."""
    tensors = [*generator.parameters(), *generator.buffers()]
    if any(tensor.is_inference() for tensor in tensors):
        return object()  # writes to these are not counted: equal to no other
    return [(tensor.data_ptr(), tensor._version, tensor.device, tensor.dtype) for tensor in tensors]


class FirstBlock(nn.Module):
    """The first block as the matrix product that a transposed convolution of one pixel is: several times as fast.

    Args:
        folded: A transposed convolution, and the activations after it.
    """

    def __init__(self, folded: nn.Sequential) -> None:
        super().__init__()
        convolution = folded[0]
        assert isinstance(convolution, nn.ConvTranspose2d)
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
