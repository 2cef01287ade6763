"""The discriminator of Real-ESRGAN: a U-Net that judges every pixel (Wang et al. 2021, arXiv 2107.10833)."""

from __future__ import annotations

import itertools

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gan_lightning.errors import InputError

SLOPE = 0.2
REDUCTION = 8  # of height and width, at the coarsest level


class UNetDiscriminator(nn.Module):
    """Map images in [-1, 1] to a logit for each pixel, by convolutions with spectral normalization.

    Height and width of the images must be multiples of 8.
    """

    def __init__(self, channels: int = 3, base_channels: int = 64) -> None:
        """Build the network.

        Args:
            channels: Number of channels of the images.
            base_channels: Number of channels at the full size, doubled at each of three halvings of it.

        Raises:
            InputError: If a number is below 1.
        """
        super().__init__()
        if channels < 1 or base_channels < 1:
            raise InputError(f"channels and base_channels must be at least 1, but are {channels} and {base_channels}")
        widths = [base_channels * 2**level for level in range(4)]
        pairs = list(itertools.pairwise(widths))
        self.first = nn.Conv2d(channels, base_channels, 3, 1, 1)
        self.down = nn.ModuleList(normalized(narrow, wide, 4, 2) for narrow, wide in pairs)
        self.up = nn.ModuleList(normalized(wide, narrow, 3, 1) for narrow, wide in reversed(pairs))
        self.same = nn.ModuleList(normalized(base_channels, base_channels, 3, 1) for _ in range(2))
        self.last = nn.Conv2d(base_channels, 1, 3, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,C,H,W) in [-1, 1] to logits (B,1,H,W): positive means real."""
        return self.judge(images)[0]

    def judge(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return logits (B,1,H,W), and the features of the four levels of the encoder."""
        found = F.leaky_relu(self.first(images), SLOPE)
        levels = [found]
        for layer in self.down:
            found = F.leaky_relu(layer(found), SLOPE)
            levels.append(found)
        for layer, skipped in zip(self.up, reversed(levels[:-1]), strict=True):
            found = F.interpolate(found, scale_factor=2, mode="bilinear", align_corners=False)
            found = F.leaky_relu(layer(found), SLOPE) + skipped
        for layer in self.same:
            found = F.leaky_relu(layer(found), SLOPE)
        return self.last(found), levels


def normalized(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Module:
    """Return a convolution with spectral normalization (Miyato et al. 2018)."""
    return spectral_norm(nn.Conv2d(inputs, outputs, kernel, stride, 1, bias=False))
