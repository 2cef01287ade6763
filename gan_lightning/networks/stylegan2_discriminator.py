"""The discriminator of StyleGAN2: residual blocks, the standard deviation over a batch, and a projection by labels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gan_lightning.networks.conditional import given
from gan_lightning.networks.stylegan2_layers import (
    EPSILON,
    GAIN,
    LEAK,
    MAPPING_RATE,
    EqualizedLinear,
    check_stylegan2,
    filter_images,
    low_pass,
    stylegan2_widths,
    unit_mean_square,
)

GROUP = 4  # number of images in the standard deviation


class EqualizedConv(nn.Module):
    """Convolution whose weights are scaled at runtime, with an optional low-pass filter and halving of the size.

    Args:
        inputs: Number of channels of the input.
        outputs: Number of channels of the output.
        kernel: 1 or 3.
        down: Halve the height and width.
        activation: Add a bias and apply a leaky rectifier with gain.
    """

    resample_filter: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, down: bool = False, activation: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if activation else None
        self.register_buffer("resample_filter", low_pass())
        self.down, self.padding, self.gain = down, kernel // 2, 1 / math.sqrt(inputs * kernel**2)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B,inputs,H,W) to (B,outputs,H,W) or (B,outputs,H/2,W/2)."""
        weight = self.gain * self.weight
        if self.down:
            features = filter_images(features, self.resample_filter, padding=1 + self.padding)
            features = F.conv2d(features, weight, self.bias, stride=2)
        else:
            features = F.conv2d(features, weight, self.bias, padding=self.padding)
        return features if self.bias is None else GAIN * F.leaky_relu(features, LEAK)


class ResidualBlock(nn.Module):
    """Two convolutions and a skip connection that halve the size; the first block also reads the pixels."""

    def __init__(self, channels: int, inputs: int, outputs: int) -> None:
        super().__init__()
        if channels:
            self.fromrgb = EqualizedConv(channels, inputs, 1)
        self.conv0 = EqualizedConv(inputs, inputs, 3)
        self.conv1 = EqualizedConv(inputs, outputs, 3, down=True)
        self.skip = EqualizedConv(inputs, outputs, 1, down=True, activation=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B,inputs,H,W), or images (B,channels,H,W) in the first block, to (B,outputs,H/2,W/2)."""
        if hasattr(self, "fromrgb"):
            features = self.fromrgb(features)
        result: Tensor = (self.skip(features) + self.conv1(self.conv0(features))) * math.sqrt(0.5)
        return result


class LastBlock(nn.Module):
    """Layers at 4 pixels: the standard deviation over the batch as another channel, a convolution, two dense layers."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.conv = EqualizedConv(width + 1, width, 3)
        self.fc = EqualizedLinear(width * 4 * 4, width, activation=True)
        self.out = EqualizedLinear(width, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B,C,4,4) to (B,outputs)."""
        features = self.conv(torch.cat([features, batch_deviation(features)], 1))
        outputs: Tensor = self.out(self.fc(features.flatten(1)))
        return outputs


class LabelMapping(nn.Module):
    """Map from labels to vectors, on which a discriminator projects its last features (arXiv 2006.06676)."""

    def __init__(self, label_dim: int, width: int, num_layers: int) -> None:
        super().__init__()
        self.label_dim, self.num_layers = label_dim, num_layers
        self.embed = EqualizedLinear(label_dim, width)
        for index in range(num_layers):
            self.add_module(f"fc{index}", EqualizedLinear(width, width, activation=True, rate=MAPPING_RATE))

    def forward(self, labels: Tensor) -> Tensor:
        """Map classes (B,) to (B,width)."""
        rows = unit_mean_square(self.embed(F.one_hot(labels.long(), self.label_dim).to(self.embed.weight)))
        for index in range(self.num_layers):
            rows = self.get_submodule(f"fc{index}")(rows)
        return rows


class StyleGAN2Discriminator(nn.Module):
    """Map from images to logits: blocks `b32`, ..., `b4`, with the names of the public PyTorch implementation."""

    def __init__(
        self,
        image_size: int = 256,
        channels: int = 3,
        base_channels: int = 64,
        max_channels: int = 512,
        label_dim: int = 0,
        mapping_layers: int = 8,
    ) -> None:
        """Build the network.

        Args:
            image_size: Height and width of the images: a power of two from 16 to 1024.
            channels: 1 or 3.
            base_channels: Number of channels at the full size, doubled at each halving of it.
            max_channels: Largest number of channels of a layer.
            label_dim: Number of classes, or 0.
            mapping_layers: Number of layers of the mapping of labels.

        Raises:
            InputError: If a value is unsupported.
        """
        super().__init__()
        check_stylegan2(image_size, channels, base_channels=base_channels, max_channels=max_channels)
        widths = stylegan2_widths(image_size, base_channels, max_channels)
        self.channels, self.sizes = channels, list(reversed(widths))
        for size in self.sizes[:-1]:
            block = ResidualBlock(channels if size == image_size else 0, widths[size], widths[size // 2])
            self.add_module(f"b{size}", block)
        self.num_classes = label_dim
        self.b4 = LastBlock(widths[4], widths[4] if label_dim else 1)
        if label_dim:
            self.mapping = LabelMapping(label_dim, widths[4], mapping_layers)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map images (B,C,H,W) in [-1, 1], and classes (B,) if there are any, to logits (B,): positive means real.

        A logit depends on up to three other images of the batch.

        Raises:
            InputError: If labels are missing.
        """
        outputs: Tensor = self.b4(self.features(images)[-1])
        if not self.num_classes:
            return outputs[:, 0]
        logits: Tensor = (outputs * self.mapping(given(labels, self))).sum(1) / math.sqrt(outputs.shape[1])
        return logits

    def features(self, images: Tensor) -> list[Tensor]:
        """Map images (B,C,H,W), each independently, to the outputs of the residual blocks, the largest first."""
        features = [images]
        for size in self.sizes[:-1]:
            features.append(self.get_submodule(f"b{size}")(features[-1]))
        return features[1:]


def batch_deviation(features: Tensor) -> Tensor:
    """Return the mean standard deviation of features over groups of images, (B,1,H,W) (Karras et al. 2018).

    A group has four images, or the largest smaller number that divides the batch. Image i is in group i modulo the
    number of groups.
    """
    batch, channels, height, width = features.shape
    group = max(count for count in range(1, GROUP + 1) if batch % count == 0)
    variance = features.reshape(group, batch // group, channels, height, width).var(0, correction=0)
    deviation = (variance + EPSILON).sqrt().mean((1, 2, 3))
    return deviation.repeat(group)[:, None, None, None].expand(batch, 1, height, width)


def path_lengths(synthesis: Callable[[Tensor], Tensor], ws: Tensor, rng: torch.Generator | None = None) -> Tensor:
    """Compute the length of J'y for a random image y, where J is the Jacobian of the image with respect to w.

    Equation 4 of arXiv 1912.04958 regularizes a generator by the squared distance of these lengths from their mean.

    Args:
        synthesis: Function from w (B, num_ws, w_dim) to images (B,C,H,W).
        ws: (B, num_ws, w_dim).
        rng: Generator of y, on the device of `ws`.

    Returns:
        Lengths (B,), differentiable.
    """
    ws = ws if ws.requires_grad else ws.detach().requires_grad_()
    images = synthesis(ws)
    noise = torch.randn(images.shape, generator=rng, device=images.device, dtype=images.dtype)
    product = (images * noise).sum() / math.sqrt(images.shape[2] * images.shape[3])
    (gradient,) = torch.autograd.grad(product, ws, create_graph=True)
    lengths: Tensor = gradient.square().sum(2).mean(1).sqrt()
    return lengths
