"""The generator as inversion uses it: a frozen copy, made fast, that leaves the original as it was."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gan_lightning.errors import InputError

BLOCK = 3  # layers of `main` to a block: convolution, normalisation, activation
PRODUCT_ROWS = 4  # a matrix product's last bits are those of any other of its rows in groups of four


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
        images: Tensor = self.rest(_fill_up(features, threads))[: len(features)]
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
        flat = F.linear(_fill_up(latents, PRODUCT_ROWS), self.weight, self.bias)[: len(latents)]
        features: Tensor = self.activation(flat.view(len(latents), *self.size, -1).permute(0, 3, 1, 2))
        return features


def _fill_up(batch: Tensor, multiple: int) -> Tensor:
    """Append zeros to a batch until its length is a multiple of a number."""
    missing = -len(batch) % multiple
    return torch.cat([batch, batch.new_zeros(missing, *batch.shape[1:])]) if missing else batch


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
