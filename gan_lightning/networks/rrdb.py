"""The generator of ESRGAN: residual-in-residual dense blocks (Wang et al. 2018, arXiv 1809.00219, section 3.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_lightning.errors import InputError

SCALES = (1, 2, 4)
GROWTH = 32  # channels that a convolution in a dense block adds; other programs expect this value
RESIDUAL = 0.2  # weight of the residuals, in and around the dense blocks
SLOPE = 0.2
INITIAL = 0.1  # weights of the dense blocks at the start, relative to He's initialization


class ResidualDenseBlock(nn.Module):
    """Five convolutions on the outputs of all previous ones; the output of the last one is added to the input."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, GROWTH, 3, 1, 1)
        self.conv2 = nn.Conv2d(features + GROWTH, GROWTH, 3, 1, 1)
        self.conv3 = nn.Conv2d(features + 2 * GROWTH, GROWTH, 3, 1, 1)
        self.conv4 = nn.Conv2d(features + 3 * GROWTH, GROWTH, 3, 1, 1)
        self.conv5 = nn.Conv2d(features + 4 * GROWTH, features, 3, 1, 1)
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5):
            nn.init.kaiming_normal_(layer.weight)
            layer.weight.data.mul_(INITIAL)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B,F,H,W) to features of the same shape."""
        found = x
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            found = torch.cat([found, F.leaky_relu(layer(found), SLOPE)], 1)
        result: Tensor = x + RESIDUAL * self.conv5(found)
        return result


class RRDB(nn.Module):
    """Three dense blocks, whose output is added to their input."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.rdb1 = ResidualDenseBlock(features)
        self.rdb2 = ResidualDenseBlock(features)
        self.rdb3 = ResidualDenseBlock(features)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B,F,H,W) to features of the same shape."""
        result: Tensor = x + RESIDUAL * self.rdb3(self.rdb2(self.rdb1(x)))
        return result


class RRDBNet(nn.Module):
    """Map images in [0, 1] to images that are `scale` times as large.

    The names of the weights are those of the public RRDBNet ("conv_first", "body.0.rdb1.conv1", ...), so that programs
    for that network read this one, and vice versa. For scales below 4, 2x2 or 4x4 pixels are first moved into channels,
    as in Real-ESRGAN (Wang et al. 2021, arXiv 2107.10833, section 3.4).
    """

    def __init__(self, channels: int = 3, scale: int = 4, features: int = 64, blocks: int = 23) -> None:
        """Build the network.

        Args:
            channels: Number of channels of the images.
            scale: 1, 2 or 4.
            features: Number of channels between blocks.
            blocks: Number of blocks, each of three dense blocks.

        Raises:
            InputError: If a value is unsupported.
        """
        super().__init__()
        if scale not in SCALES:
            raise InputError(f"scale {scale} is not supported: choose one of {', '.join(map(str, SCALES))}")
        for name, value in (("channels", channels), ("features", features), ("blocks", blocks)):
            if value < 1:
                raise InputError(f"{name} must be at least 1, but is {value}")
        self.channels, self.scale, self.shuffle = channels, scale, 4 // scale
        self.conv_first = nn.Conv2d(channels * self.shuffle**2, features, 3, 1, 1)
        self.body = nn.Sequential(*(RRDB(features) for _ in range(blocks)))
        self.conv_body = nn.Conv2d(features, features, 3, 1, 1)
        self.conv_up1 = nn.Conv2d(features, features, 3, 1, 1)
        self.conv_up2 = nn.Conv2d(features, features, 3, 1, 1)
        self.conv_hr = nn.Conv2d(features, features, 3, 1, 1)
        self.conv_last = nn.Conv2d(features, channels, 3, 1, 1)

    @property
    def radius(self) -> int:
        """How far the receptive field reaches beyond a pixel of the input, in pixels of the input."""
        coarse = 4 + 15 * len(self.body)  # conv_first, body and conv_body; those at larger sizes together reach 2
        return self.shuffle * coarse + self.shuffle - 1

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,C,H,W) in [0, 1] to (B,C,scale*H,scale*W), about [0, 1]; H and W are multiples of 4 / scale."""
        first = self.conv_first(F.pixel_unshuffle(images, self.shuffle) if self.shuffle > 1 else images)
        found = first + self.conv_body(self.body(first))
        for layer in (self.conv_up1, self.conv_up2):
            found = F.leaky_relu(layer(F.interpolate(found, scale_factor=2, mode="nearest")), SLOPE)
        enlarged: Tensor = self.conv_last(F.leaky_relu(self.conv_hr(found), SLOPE))
        return enlarged


def build_rrdb(state: dict[str, Tensor]) -> RRDBNet | None:
    """Build the network that the shapes of a state dict describe, with its weights; None if they describe another."""
    try:
        first, last = state["conv_first.weight"], state["conv_last.weight"]
        shuffle = {1: 1, 4: 2, 16: 4}[first.shape[1] // last.shape[0]]
        blocks = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("body."))
        network = RRDBNet(last.shape[0], 4 // shuffle, first.shape[0], blocks)
        network.load_state_dict(state)
    except (KeyError, IndexError, ValueError, RuntimeError):
        return None
    return network
