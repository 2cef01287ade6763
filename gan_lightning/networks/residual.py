"""The residual networks of SNGAN (Miyato et al. 2018, arXiv 1802.05957, appendix B), for images of 16 to 256 pixels.

At 128 pixels they are those of the paper's table 5 (ImageNet) with `base_channels` 64. At other sizes blocks are left
out or added, as between its tables 4 and 5.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from gan_lightning.networks.dcgan import (
    MAX_WIDTH,
    DiscriminatorNormalization,
    GeneratorNormalization,
    check_architecture,
    normalization_layer,
)


def residual_widths(image_size: int, base_channels: int, max_width: int = MAX_WIDTH) -> list[int]:
    """Return the channels at image_size, image_size / 2, ..., 4 pixels: `base_channels`, doubled at each step."""
    steps = int(math.log2(image_size)) - 1
    return [base_channels * min(2**level, max_width) for level in range(steps)]


class UpBlock(nn.Module):
    """Residual block that doubles the size by repeating pixels; normalization and activation precede convolutions."""

    def __init__(self, inputs: int, outputs: int, normalization: GeneratorNormalization) -> None:
        super().__init__()
        self.norm0 = normalization_layer(normalization, inputs)
        self.conv0 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm1 = normalization_layer(normalization, outputs)
        self.conv1 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B,inputs,H,W) to (B,outputs,2H,2W)."""
        residual = self.conv0(_double(F.relu(self.norm0(features))))
        residual = self.conv1(F.relu(self.norm1(residual)))
        # The 1x1 convolution commutes with the repetition, and takes a quarter of the time before it.
        result: Tensor = residual + _double(self.skip(features))
        return result


class DownBlock(nn.Module):
    """Residual block of the discriminator; halves the size by the mean of 2x2 pixels if asked to.

    Args:
        inputs: Number of channels of the input.
        outputs: Number of channels of the output.
        normalization: Normalization before each activation.
        down: Halve the height and width.
        first: The input is an image, to which no activation is applied.
    """

    def __init__(
        self, inputs: int, outputs: int, normalization: DiscriminatorNormalization, down: bool, first: bool = False
    ) -> None:
        super().__init__()
        self.down, self.first = down, first
        self.norm0 = nn.Identity() if first else normalization_layer(normalization, inputs)
        self.conv0 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm1 = normalization_layer(normalization, outputs)
        self.conv1 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if down or inputs != outputs else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B,inputs,H,W) to (B,outputs,H/2,W/2), or to the same size."""
        residual = features if self.first else F.relu(self.norm0(features))
        residual = self.conv1(F.relu(self.norm1(self.conv0(residual))))
        if self.down:
            residual, features = F.avg_pool2d(residual, 2), F.avg_pool2d(features, 2)
        result: Tensor = residual + self.skip(features)
        return result


class ResidualGenerator(nn.Module):
    """Map from latents to images: a dense layer to 4x4 pixels, residual blocks that double the size, then tanh."""

    def __init__(
        self,
        image_size: int = 64,
        channels: int = 3,
        latent_dim: int = 100,
        base_channels: int = 64,
        normalization: GeneratorNormalization = "batch",
        max_width: int = MAX_WIDTH,
    ) -> None:
        """Build the network.

        Args:
            image_size: Height and width of the images: 16, 32, 64, 128 or 256.
            channels: 1 or 3.
            latent_dim: Length of the latent vector.
            base_channels: Number of channels at the full size.
            normalization: "batch", "group" or "none".
            max_width: Widest layer in units of `base_channels`; with 1 all blocks are equal, as in the paper's network
                for CIFAR-10 (32 pixels, `base_channels` 256).

        Raises:
            InputError: If a value is unsupported.
        """
        super().__init__()
        check_architecture(
            image_size, channels, latent_dim=latent_dim, base_channels=base_channels, max_width=max_width
        )
        self.image_size, self.channels, self.latent_dim = image_size, channels, latent_dim
        *narrower, first = residual_widths(image_size, base_channels, max_width)
        self.dense = nn.Linear(latent_dim, first * 4 * 4)
        self.blocks = nn.ModuleList()
        width = first
        for next_width in reversed(narrower):
            self.blocks.append(UpBlock(width, next_width, normalization))
            width = next_width
        self.norm = normalization_layer(normalization, width)
        self.last = nn.Conv2d(width, channels, 3, padding=1)
        initialize(self)

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (B, latent_dim), or (B, latent_dim, 1, 1), to images (B,C,H,W) in [-1, 1]."""
        return self.render(self.features(latents))

    def features(self, latents: Tensor) -> Tensor:
        """Map latents (B, latent_dim) to the features of the dense layer (B,C,4,4)."""
        flat: Tensor = self.dense(latents.flatten(1))
        return flat.view(flat.shape[0], -1, 4, 4)

    def render(self, features: Tensor) -> Tensor:
        """Map features (B,C,4,4) to images (B,C,H,W) in [-1, 1]."""
        for block in self.blocks:
            features = block(features)
        return self.last(F.relu(self.norm(features))).tanh()  # type: ignore[no-any-return]


class ResidualDiscriminator(nn.Module):
    """Map from images to logits: residual blocks that halve the size down to 4 pixels, one more, and a sum."""

    def __init__(
        self,
        image_size: int = 64,
        channels: int = 3,
        base_channels: int = 64,
        normalization: DiscriminatorNormalization = "spectral",
        max_width: int = MAX_WIDTH,
    ) -> None:
        """Build the network.

        Args:
            image_size: Height and width of the images: 16, 32, 64, 128 or 256.
            channels: 1 or 3.
            base_channels: Number of channels of the first block.
            normalization: "spectral", as in the paper, "batch", "group" or "none".
            max_width: Widest layer in units of `base_channels`.

        Raises:
            InputError: If a value is unsupported.
        """
        super().__init__()
        check_architecture(image_size, channels, base_channels=base_channels, max_width=max_width)
        self.image_size, self.channels = image_size, channels
        self.blocks = nn.ModuleList()
        width, widths = channels, residual_widths(image_size, base_channels, max_width)
        for index, next_width in enumerate(widths):
            down, first = index < len(widths) - 1, index == 0
            self.blocks.append(DownBlock(width, next_width, normalization, down, first))
            width = next_width
        self.norm = normalization_layer(normalization, width)
        self.head = nn.Linear(width, 1)
        initialize(self)
        if normalization == "spectral":
            for layer in list(self.modules()):
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    spectral_norm(layer)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,C,H,W) in [-1, 1] to logits (B,): positive means real."""
        logits: Tensor = self.head(self.summed(images))
        return logits[:, 0]

    def summed(self, images: Tensor) -> Tensor:
        """Map images (B,C,H,W) to the rectified features of the last block, summed over pixels (B,D)."""
        last = self.features(images)[-1]
        return F.relu(self.norm(last)).sum((2, 3))

    def features(self, images: Tensor) -> list[Tensor]:
        """Map images (B,C,H,W) to the outputs of the blocks, the largest first."""
        outputs = [images]
        for block in self.blocks:
            outputs.append(block(outputs[-1]))
        return outputs[1:]


def initialize(network: nn.Module) -> None:
    """Initialize weights by Glorot's rule, with gain sqrt(2) for the convolutions after an activation; biases are 0."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            rectified = name.endswith(("conv0", "conv1"))
            nn.init.xavier_uniform_(layer.weight, math.sqrt(2) if rectified else 1.0)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _double(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2, mode="nearest")
