"""Shared parts of the generator and the discriminator of StyleGAN2: equalized weights, filtered resampling, widths."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gan_lightning.networks.dcgan import check_architecture

IMAGE_SIZES = (16, 32, 64, 128, 256, 512, 1024)
LEAK = 0.2
GAIN = math.sqrt(2)  # of a leaky rectifier, so that it keeps the mean square of its input
TAPS = (1.0, 3.0, 3.0, 1.0)  # of the low-pass filter in each direction
EPSILON = 1e-8
MAPPING_RATE = 0.01  # learning rate of mappings, relative to that of other layers
PRODUCT_ROWS = 8  # rows of a matrix product are bit-identical in multiples of eight
SMALL = 20480  # up to this number of elements, torch convolves a single image on a CPU by another algorithm


class EqualizedLinear(nn.Module):
    """Dense layer whose weights are scaled at runtime, so that all layers learn at the same rate (Karras et al. 2018).

    Args:
        inputs: Length of the input.
        outputs: Length of the output.
        activation: Apply a leaky rectifier with gain.
        bias: Initial bias.
        rate: Learning rate relative to that of other layers.
    """

    def __init__(
        self, inputs: int, outputs: int, activation: bool = False, bias: float = 0.0, rate: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.activation, self.rate, self.gain = activation, rate, rate / math.sqrt(inputs)

    def forward(self, rows: Tensor) -> Tensor:
        """Map (B, inputs) to (B, outputs)."""
        product = multiply(rows, self.weight, self.bias * self.rate, self.gain)
        return GAIN * F.leaky_relu(product, LEAK) if self.activation else product


def unit_mean_square(rows: Tensor) -> Tensor:
    """Scale rows (B,D) to mean square one."""
    return rows * (rows.square().mean(1, keepdim=True) + EPSILON).rsqrt()


def multiply(rows: Tensor, weight: Tensor, bias: Tensor, gain: float = 1.0) -> Tensor:
    """Compute `gain * rows @ weight.T + bias` for rows (B,D), weight (E,D), bias (E,).

    On a CPU, a row is bit-identical in any batch. Sums are rounded differently in products of few rows, and an
    inversion amplifies a difference of one bit.
    """
    count = rows.shape[0]
    if _run_as_written(rows):
        rows = F.pad(rows, (0, 0, 0, -count % PRODUCT_ROWS))
    return torch.addmm(bias, rows, weight.T, alpha=gain)[:count]


def convolve(features: Tensor, convolution: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a convolution to features (B,C,H,W); on a CPU, an image is bit-identical in any batch."""
    if _run_as_written(features) and len(features) == 1 and features.numel() <= SMALL:
        return convolution(torch.cat([features, features]))[:1]
    return convolution(features)


def _run_as_written(inputs: Tensor) -> bool:
    """Return whether a network runs on a CPU and is not traced, since a traced program has no batch size."""
    return inputs.device.type == "cpu" and not torch.compiler.is_compiling()


def low_pass() -> Tensor:
    """Return the separable low-pass filter (4,4), which sums to one."""
    taps = torch.tensor(TAPS)
    return taps.outer(taps) / taps.sum().square()


def filter_images(images: Tensor, kernel: Tensor, padding: int) -> Tensor:
    """Convolve each channel of images (B,C,H,W), padded by zeros on all sides, with a kernel (K,K)."""
    return F.conv2d(images, _per_channel(kernel.flip(0, 1), images), padding=padding, groups=images.shape[1])


def upsample(images: Tensor, kernel: Tensor) -> Tensor:
    """Double the height and width of images (B,C,H,W) by zeros between pixels and a low-pass filter (4,4)."""
    weight = _per_channel(4 * kernel, images)  # three of four pixels were zero
    return F.conv_transpose2d(images, weight, stride=2, padding=1, groups=images.shape[1])


def _per_channel(kernel: Tensor, images: Tensor) -> Tensor:
    return kernel.to(images.dtype).expand(images.shape[1], 1, *kernel.shape)


def stylegan2_widths(image_size: int, base_channels: int, max_channels: int) -> dict[int, int]:
    """Return the number of channels at 4, 8, ..., image_size pixels: `base_channels` at the largest, then doubled."""
    sizes = [2**level for level in range(2, int(math.log2(image_size)) + 1)]
    return {size: min(base_channels * image_size // size, max_channels) for size in sizes}


def check_stylegan2(image_size: int, channels: int, **positive: int) -> None:
    """Check that networks can be built with these sizes, as `check_architecture` does, from 16 to 1024 pixels."""
    check_architecture(image_size, channels, IMAGE_SIZES, **positive)
