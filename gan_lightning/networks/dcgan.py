"""The networks of DCGAN (Radford et al. 2016), for images of 16 to 256 pixels.

At 64 pixels, with `latent_dim` 100 and `base_channels` 64, parameters and keys equal those of the PyTorch DCGAN
tutorial, except that the discriminator returns logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gan_lightning.errors import InputError

IMAGE_SIZES = (16, 32, 64, 128, 256)
MAX_WIDTH = 16  # widest layer, in units of base_channels; at 256 px, one more doubling would be half of all parameters
LAYERS_PER_BLOCK = 3  # of a generator's `main`: convolution, normalization, activation

NORMALIZED_GROUPS = 32  # of group normalization, or the largest number below that divides both it and the channels

GeneratorNormalization = Literal["batch", "group", "none"]
DiscriminatorNormalization = Literal["batch", "group", "spectral", "none"]


def channel_widths(image_size: int, base_channels: int) -> list[int]:
    """Return the channels at 4, 8, ..., image_size / 2 pixels: `base_channels` at the largest, doubled at each step."""
    steps = int(math.log2(image_size)) - 2
    return [base_channels * min(2**level, MAX_WIDTH) for level in reversed(range(steps))]


class Generator(nn.Module):
    """Map from latents to images: transposed convolutions with batch normalization and ReLU, then tanh.

    `main` holds the layers as a flat sequence, three per block: `main[3 * i : 3 * i + 3]` is block i, at 4 * 2**i
    pixels.
    """

    def __init__(
        self,
        image_size: int = 64,
        channels: int = 3,
        latent_dim: int = 100,
        base_channels: int = 64,
        normalization: GeneratorNormalization = "batch",
    ) -> None:
        """Build the network, with weights drawn from N(0, 0.02).

        Args:
            image_size: Height and width of the images: 16, 32, 64, 128 or 256.
            channels: 1 or 3.
            latent_dim: Length of the latent vector.
            base_channels: Number of channels of the layer before the last.
            normalization: "batch", "group" (Wu and He 2018) or "none".

        Raises:
            InputError: If a value is unsupported.
        """
        super().__init__()
        check_architecture(image_size, channels, latent_dim=latent_dim, base_channels=base_channels)
        self.image_size, self.channels, self.latent_dim = image_size, channels, latent_dim
        batch = normalization == "batch"
        layers: list[nn.Module] = []
        width = latent_dim
        for index, next_width in enumerate(channel_widths(image_size, base_channels)):
            stride, padding = (2, 1) if index else (1, 0)  # the first block turns 1x1 into 4x4
            layers += [
                nn.ConvTranspose2d(width, next_width, 4, stride, padding, bias=not batch),
                normalization_layer(normalization, next_width),
                nn.ReLU(inplace=True),
            ]
            width = next_width
        self.main = nn.Sequential(*layers, nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=not batch), nn.Tanh())
        self.apply(initialize)

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (B, latent_dim), or (B, latent_dim, 1, 1), to images (B,C,H,W) in [-1, 1]."""
        images: Tensor = self.main(latents.reshape(latents.shape[0], -1, 1, 1))
        return images


class Discriminator(nn.Module):
    """Map from images to logits: strided convolutions with LeakyReLU(0.2), no normalization of the first layer."""

    def __init__(
        self,
        image_size: int = 64,
        channels: int = 3,
        base_channels: int = 64,
        normalization: DiscriminatorNormalization = "batch",
    ) -> None:
        """Build the network, with weights drawn from N(0, 0.02).

        Args:
            image_size: Height and width of the images: 16, 32, 64, 128 or 256.
            channels: 1 or 3.
            base_channels: Number of channels of the first layer.
            normalization: "batch", "group" (Wu and He 2018), "spectral" (Miyato et al. 2018) or "none".

        Raises:
            InputError: If a value is unsupported.
        """
        super().__init__()
        check_architecture(image_size, channels, base_channels=base_channels)
        batch = normalization == "batch"
        layers: list[nn.Module] = []
        width = channels
        for index, next_width in enumerate(reversed(channel_widths(image_size, base_channels))):
            layers.append(nn.Conv2d(width, next_width, 4, 2, 1, bias=not batch))
            if index and normalization in ("batch", "group"):
                layers.append(normalization_layer(normalization, next_width))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            width = next_width
        self.main = nn.Sequential(*layers, nn.Conv2d(width, 1, 4, 1, 0, bias=not batch))
        self.apply(initialize)
        if normalization == "spectral":
            for layer in self.main:
                if isinstance(layer, nn.Conv2d):
                    spectral_norm(layer)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,C,H,W) in [-1, 1] to logits (B,): positive means real."""
        logits: Tensor = self.main(images)
        return logits.flatten()


def normalization_layer(normalization: str, channels: int) -> nn.Module:
    """Return a layer that normalizes features (B,C,H,W); the identity for "spectral", which normalizes weights."""
    if normalization == "batch":
        return nn.BatchNorm2d(channels)
    if normalization == "group":
        return nn.GroupNorm(math.gcd(NORMALIZED_GROUPS, channels), channels)
    return nn.Identity()


def check_architecture(image_size: int, channels: int, sizes: Sequence[int] = IMAGE_SIZES, **positive: int) -> None:
    """Check that networks can be built with these sizes.

    Args:
        image_size: Height and width of the images.
        channels: Number of channels of the images.
        sizes: Supported heights and widths; by default those of DCGAN.
        positive: Widths by name, which must be at least 1.

    Raises:
        InputError: If the image size is not supported, the channels are not 1 or 3, or a width is below 1.
    """
    if image_size not in sizes:
        raise InputError(f"image_size {image_size} is not supported: choose one of {', '.join(map(str, sizes))}")
    if channels not in (1, 3):
        raise InputError(f"channels {channels} is not supported: choose 1 (gray) or 3 (color)")
    for name, value in positive.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1, but is {value}")


def initialize(module: nn.Module) -> None:
    """Initialize weights as DCGAN does: N(0, 0.02) for convolutions, N(1, 0.02) for scales, zero for biases."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
