"""The networks of R3GAN (Huang et al. 2024, arXiv 2501.05441, section 3 and table 2), for images of 16 to 256 pixels.

There is no normalization. A block is an inverted bottleneck around a grouped convolution, and its last layer starts at
zero, so that each network starts as a chain of resampling and 1x1 convolutions. Train them with the objective
`relativistic` and the penalties `r1` and `r2`, on which the paper's networks rely.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gan_lightning.networks.dcgan import check_architecture

BLOCKS = 2  # per size
EXPANSION = 2  # of a block's inner width
GROUP_SIZE = 16  # channels in a group of the 3x3 convolution
LEAK = 0.2
# base_channels / channels at the full size: a forward pass then takes about as many multiplications as DCGAN's.
NARROWING = 4
FIXUP = -0.25  # power of the number of blocks, for three layers in a block (Zhang et al. 2019): -1 / (2 * 3 - 2)


def modern_widths(image_size: int, base_channels: int) -> list[int]:
    """Return the channels at image_size, image_size / 2, ..., 4 pixels: `base_channels` / 4, doubled at each step."""
    steps = int(math.log2(image_size)) - 1
    return [max(1, base_channels * 2**level // NARROWING) for level in range(steps)]


class InvertedBottleneck(nn.Module):
    """Residual block: 1x1 convolution to twice the width, grouped 3x3 convolution, 1x1 convolution back.

    Args:
        width: Number of channels of the input and the output.
        gain: Factor of the initial weights.
    """

    def __init__(self, width: int, gain: float) -> None:
        super().__init__()
        inner = EXPANSION * width
        self.expand = nn.Conv2d(width, inner, 1)
        self.grouped = nn.Conv2d(inner, inner, 3, padding=1, groups=number_of_groups(inner))
        self.contract = nn.Conv2d(inner, width, 1, bias=False)
        for layer in (self.expand, self.grouped):
            nn.init.kaiming_normal_(layer.weight, LEAK)
            layer.weight.data *= gain
        nn.init.zeros_(self.contract.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B,width,H,W) to features of the same shape."""
        inner = F.leaky_relu(self.expand(features), LEAK)
        inner = F.leaky_relu(self.grouped(inner), LEAK)
        residual: Tensor = self.contract(inner)
        return features + residual


class Basis(nn.Module):
    """Learned 4x4 feature maps, scaled by a linear function of the latents."""

    def __init__(self, latent_dim: int, width: int) -> None:
        super().__init__()
        self.maps = nn.Parameter(torch.randn(width, 4, 4))
        self.scale = nn.Linear(latent_dim, width, bias=False)
        nn.init.normal_(self.scale.weight, 0.0, latent_dim**-0.5)

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (B, latent_dim) to features (B,width,4,4)."""
        scale: Tensor = self.scale(latents)
        return self.maps * scale[:, :, None, None]


class ModernGenerator(nn.Module):
    """Map from latents to images: a basis of 4x4 pixels, residual blocks, bilinear doubling of the size.

    There is no tanh at the end: as with StyleGAN2, images are only roughly in [-1, 1].
    """

    def __init__(self, image_size: int = 64, channels: int = 3, latent_dim: int = 100, base_channels: int = 64) -> None:
        """Build the network.

        Args:
            image_size: Height and width of the images: 16, 32, 64, 128 or 256.
            channels: 1 or 3.
            latent_dim: Length of the latent vector.
            base_channels: Four times the number of channels at the full size.

        Raises:
            InputError: If a value is unsupported.
        """
        super().__init__()
        check_architecture(image_size, channels, latent_dim=latent_dim, base_channels=base_channels)
        self.image_size, self.channels, self.latent_dim = image_size, channels, latent_dim
        widths = list(reversed(modern_widths(image_size, base_channels)))
        self.basis = Basis(latent_dim, widths[0])
        self.stages = nn.ModuleList(_stage(width, len(widths)) for width in widths)
        self.transitions = nn.ModuleList(map(_linear_convolution, widths[:-1], widths[1:]))
        self.last = _linear_convolution(widths[-1], channels, bias=True)

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (B, latent_dim), or (B, latent_dim, 1, 1), to images (B,C,H,W), about [-1, 1]."""
        return self.render(self.features(latents))

    def features(self, latents: Tensor) -> Tensor:
        """Map latents (B, latent_dim) to the output of the blocks at 4 pixels (B,C,4,4)."""
        features: Tensor = self.stages[0](self.basis(latents.flatten(1)))
        return features

    def render(self, features: Tensor) -> Tensor:
        """Map features (B,C,4,4) to images (B,C,H,W), about [-1, 1]."""
        for transition, stage in zip(self.transitions, self.stages[1:], strict=True):
            features = stage(double(transition(features)))  # they commute; this order takes a quarter of the time
        images: Tensor = self.last(features)
        return images


class ModernDiscriminator(nn.Module):
    """Map from images to logits: the generator's layers in reverse order, and a 4x4 convolution of each channel."""

    def __init__(self, image_size: int = 64, channels: int = 3, base_channels: int = 64) -> None:
        """Build the network.

        Args:
            image_size: Height and width of the images: 16, 32, 64, 128 or 256.
            channels: 1 or 3.
            base_channels: Four times the number of channels at the full size.

        Raises:
            InputError: If a value is unsupported.
        """
        super().__init__()
        check_architecture(image_size, channels, base_channels=base_channels)
        self.image_size, self.channels = image_size, channels
        widths = modern_widths(image_size, base_channels)
        self.first = _linear_convolution(channels, widths[0], bias=True)
        self.stages = nn.ModuleList(_stage(width, len(widths)) for width in widths)
        self.transitions = nn.ModuleList(map(_linear_convolution, widths[:-1], widths[1:]))
        self.pool = nn.Conv2d(widths[-1], widths[-1], 4, groups=widths[-1], bias=False)
        nn.init.normal_(self.pool.weight, 0.0, 1 / 4)  # of 16 pixels
        self.head = nn.Linear(widths[-1], 1)
        nn.init.normal_(self.head.weight, 0.0, widths[-1] ** -0.5)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,C,H,W) in [-1, 1] to logits (B,): positive means real."""
        logits: Tensor = self.head(self.pool(self.features(images)[-1]).flatten(1))
        return logits[:, 0]

    def features(self, images: Tensor) -> list[Tensor]:
        """Map images (B,C,H,W) to the features at each size, the largest first."""
        outputs = [self.stages[0](self.first(images))]
        for transition, stage in zip(self.transitions, self.stages[1:], strict=True):
            outputs.append(stage(transition(halve(outputs[-1]))))
        return outputs


def double(features: Tensor) -> Tensor:
    """Double the height and width of features (B,C,H,W) by bilinear interpolation."""
    return F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)


def halve(features: Tensor) -> Tensor:
    """Halve the height and width of features (B,C,H,W) by bilinear interpolation, which is the mean of 2x2 pixels."""
    return F.avg_pool2d(features, 2)


def number_of_groups(channels: int) -> int:
    """Return the largest number of equal groups with at least `GROUP_SIZE` channels each."""
    return next((count for count in range(channels // GROUP_SIZE, 1, -1) if channels % count == 0), 1)


def _stage(width: int, sizes: int) -> nn.Sequential:
    gain = (BLOCKS * sizes) ** FIXUP
    return nn.Sequential(*(InvertedBottleneck(width, gain) for _ in range(BLOCKS)))


def _linear_convolution(inputs: int, outputs: int, bias: bool = False) -> nn.Conv2d:
    """Return a 1x1 convolution without activation, which keeps the variance of its input at the start."""
    layer = nn.Conv2d(inputs, outputs, 1, bias=bias)
    nn.init.normal_(layer.weight, 0.0, inputs**-0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
