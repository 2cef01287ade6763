"""The synthesis network of StyleGAN2, from w to images: modulated convolutions, noise, upsampled and added pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gan_lightning.errors import InputError
from gan_lightning.networks.stylegan2_layers import (
    EPSILON,
    GAIN,
    LEAK,
    EqualizedLinear,
    convolve,
    filter_images,
    low_pass,
    multiply,
    stylegan2_widths,
    upsample,
)

NoiseMode = Literal["const", "none", "random"]


class SynthesisLayer(nn.Module):
    """Convolution with modulated weights, noise and a leaky rectifier.

    The weights of each image are `weight * style`, normalized for each output channel. Instead of computing them, the
    input is scaled by the style and the output by the norm, so that all images share one dense convolution.
    """

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(self, inputs: int, outputs: int, w_dim: int, size: int, up: bool) -> None:
        """Build the layer.

        Args:
            inputs: Number of channels of the input.
            outputs: Number of channels of the output.
            w_dim: Length of w.
            size: Height and width of the output.
            up: Double the height and width of the input.
        """
        super().__init__()
        self.size, self.up = size, up
        self.affine = EqualizedLinear(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(size, size))
        self.register_buffer("resample_filter", low_pass())

    def styles(self, w: Tensor) -> Tensor:
        """Map w (B, w_dim) to the factors (B,I) of the input channels."""
        factors: Tensor = self.affine(w)
        return factors

    def forward(self, features: Tensor, styles: Tensor, noise: Tensor | None) -> Tensor:
        """Map features (B,I,h,w) to (B,O,H,W).

        Args:
            features: Input.
            styles: (B,I) factors of its channels.
            noise: (H,W) or (B,1,H,W), or None for no noise.
        """
        squares = multiply(styles.square(), self.weight.square().sum((2, 3)), styles.new_full((), EPSILON))
        scale = GAIN * squares.rsqrt()
        features = features * styles[:, :, None, None]
        features = convolve(features, self._upsample if self.up else lambda x: F.conv2d(x, self.weight, padding=1))
        shift = GAIN * self.bias[:, None, None]
        if noise is not None:
            shift = shift + (GAIN * self.noise_strength) * noise
        # The gain is included in scale and shift, because the rectifier commutes with positive factors.
        return F.leaky_relu(features * scale[:, :, None, None] + shift, LEAK)

    def _upsample(self, features: Tensor) -> Tensor:
        features = F.conv_transpose2d(features, self.weight.transpose(0, 1), stride=2)
        return filter_images(features, 4 * self.resample_filter, padding=1)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution from features to pixels, without normalization."""

    def __init__(self, inputs: int, channels: int, w_dim: int) -> None:
        super().__init__()
        self.affine = EqualizedLinear(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.gain = 1 / math.sqrt(inputs)

    def styles(self, w: Tensor) -> Tensor:
        """Map w (B, w_dim) to the factors (B,I) of the input channels."""
        factors: Tensor = self.gain * self.affine(w)
        return factors

    def forward(self, features: Tensor, styles: Tensor) -> Tensor:
        """Map features (B,I,H,W), with the factors (B,I) of their channels, to images (B,C,H,W)."""
        return convolve(features * styles[:, :, None, None], lambda x: F.conv2d(x, self.weight, self.bias))


class SynthesisBlock(nn.Module):
    """Layers at one size: `conv0` doubles the size (not in the first block), `conv1` follows, `torgb` adds pixels."""

    resample_filter: Tensor

    def __init__(self, inputs: int, outputs: int, w_dim: int, size: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("resample_filter", low_pass())
        if inputs:
            self.conv0 = SynthesisLayer(inputs, outputs, w_dim, size, up=True)
        else:
            self.const = nn.Parameter(torch.randn(outputs, size, size))
        self.conv1 = SynthesisLayer(outputs, outputs, w_dim, size, up=False)
        self.torgb = ToRGB(outputs, channels, w_dim)

    def layers(self) -> list[SynthesisLayer]:
        """Return the layers with noise, in order."""
        return [self.conv0, self.conv1] if hasattr(self, "conv0") else [self.conv1]

    def forward(
        self, features: Tensor | None, images: Tensor | None, styles: Sequence[Tensor], noises: list[Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """Return the features and the images of this size.

        Args:
            features: (B,I,h,w), or None in the first block.
            images: (B,C,h,w), or None in the first block.
            styles: (B,I) of each layer and of `torgb`.
            noises: Noise of each layer.
        """
        if features is None:
            features = self.const.expand(styles[0].shape[0], *self.const.shape)
            if features.device.type == "cpu":  # channels last, where convolutions and filters are up to 3 times as fast
                features = features.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        for index, (layer, noise) in enumerate(zip(self.layers(), noises, strict=True)):
            features = layer(features, styles[index], noise)
        pixels = self.torgb(features, styles[-1])
        return features, pixels if images is None else upsample(images, self.resample_filter) + pixels


class Synthesis(nn.Module):
    """Map from w to images: blocks `b4`, `b8`, ..., whose images are upsampled and added."""

    def __init__(self, image_size: int, channels: int, w_dim: int, base_channels: int, max_channels: int) -> None:
        super().__init__()
        widths = stylegan2_widths(image_size, base_channels, max_channels)
        self.sizes, self.w_dim, self.num_ws = list(widths), w_dim, 2 * len(widths)
        inputs = 0
        for size, width in widths.items():
            self.add_module(f"b{size}", SynthesisBlock(inputs, width, w_dim, size, channels))
            inputs = width

    def blocks(self) -> Iterator[SynthesisBlock]:
        """Iterate over the blocks, the smallest first."""
        for size in self.sizes:
            yield cast(SynthesisBlock, self.get_submodule(f"b{size}"))

    def layers(self) -> list[SynthesisLayer]:
        """Return the layers with noise, in order."""
        return [layer for block in self.blocks() for layer in block.layers()]

    def forward(
        self, ws: Tensor, noise_mode: NoiseMode | Sequence[Tensor] | None = None, rng: torch.Generator | None = None
    ) -> Tensor:
        """Map w to images.

        Args:
            ws: (B, num_ws, w_dim), one for each layer; or (B, w_dim) for all layers.
            noise_mode: "const" (the noise of the buffers), "none", or "random" (drawn for each image); or the noise of
                each layer, (B,1,H,W) of its size. Default: "random" in training, "const" in evaluation.
            rng: Generator of random noise, on the device of `ws`. Default: that of torch.

        Returns:
            Images (B,C,H,W), about [-1, 1], not clamped.

        Raises:
            InputError: If the noise mode is unknown, or the shape of `ws` does not fit.
        """
        if ws.ndim == 2:
            ws = ws[:, None].expand(-1, self.num_ws, -1)
        if ws.shape[1:] != (self.num_ws, self.w_dim):
            raise InputError(f"expected ws of shape (B, {self.num_ws}, {self.w_dim}) but got {tuple(ws.shape)}")
        return self.from_styles(self.styles(ws), noise_mode, rng)

    def styles(self, ws: Tensor) -> list[Tensor]:
        """Map w (B, num_ws, w_dim) to the styles (B,I) of all convolutions, in order; `torgb` follows its block."""
        first, styles = 0, []
        for block in self.blocks():
            modulated: list[SynthesisLayer | ToRGB] = [*block.layers(), block.torgb]
            styles += [layer.styles(ws[:, first + index]) for index, layer in enumerate(modulated)]
            first += len(modulated) - 1
        return styles

    def from_styles(
        self,
        styles: Sequence[Tensor],
        noise_mode: NoiseMode | Sequence[Tensor] | None = None,
        rng: torch.Generator | None = None,
    ) -> Tensor:
        """Map the styles of all convolutions to images; the other arguments are those of `forward`."""
        mode = noise_mode or ("random" if self.training else "const")
        given = None if isinstance(mode, str) else iter(mode)
        if isinstance(mode, str) and mode not in get_args(NoiseMode):
            raise InputError(f"noise_mode {mode!r} is unknown: choose one of {', '.join(get_args(NoiseMode))}")
        features, images, first = None, None, 0
        for block in self.blocks():
            noises = [next(given) if given else _noise(layer, mode, styles[0], rng) for layer in block.layers()]
            last = first + len(noises) + 1
            features, images = block(features, images, styles[first:last], noises)
            first = last
        return cast(Tensor, images)


def _noise(layer: SynthesisLayer, mode: object, like: Tensor, rng: torch.Generator | None) -> Tensor | None:
    """Return the noise of a layer, (H,W) or (B,1,H,W); None for none."""
    if mode == "random":
        return torch.randn(len(like), 1, layer.size, layer.size, generator=rng, device=like.device, dtype=like.dtype)
    return layer.noise_const if mode == "const" else None
