"""The generator of StyleGAN2 (Karras et al. 2020, arXiv 1912.04958 and 2006.06676), for images of 16 to 1024 pixels.

Parameters and buffers have the names of the public PyTorch implementation of the papers, whose weights `load_generator`
reads. Everything is plain torch in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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
    upsample,
)

NoiseMode = Literal["const", "none", "random"]

IMAGE_SIZES = (16, 32, 64, 128, 256, 512, 1024)
MAPPING_RATE = 0.01  # learning rate of the mapping, relative to that of the synthesis
MEAN_DECAY = 0.995  # per batch, of the average of w


def stylegan2_widths(image_size: int, base_channels: int, max_channels: int) -> dict[int, int]:
    """Return the number of channels at 4, 8, ..., image_size pixels: `base_channels` at the largest, then doubled."""
    sizes = [2**level for level in range(2, int(math.log2(image_size)) + 1)]
    return {size: min(base_channels * image_size // size, max_channels) for size in sizes}


class Mapping(nn.Module):
    """Map from latents z, and labels, to w.

    Attributes:
        w_avg: (w_dim,) moving average of w over the training.
    """

    w_avg: Tensor

    def __init__(self, latent_dim: int, label_dim: int, w_dim: int, num_ws: int, num_layers: int) -> None:
        """Build the layers.

        Args:
            latent_dim: Length of z.
            label_dim: Number of classes, or 0.
            w_dim: Length of w.
            num_ws: Number of inputs of the synthesis.
            num_layers: Number of layers.
        """
        super().__init__()
        self.latent_dim, self.label_dim, self.num_ws, self.num_layers = latent_dim, label_dim, num_ws, num_layers
        if label_dim:
            self.embed = EqualizedLinear(label_dim, w_dim)
        widths = [latent_dim + (w_dim if label_dim else 0)] + [w_dim] * num_layers
        for index in range(num_layers):
            self.add_module(
                f"fc{index}", EqualizedLinear(widths[index], widths[index + 1], activation=True, rate=MAPPING_RATE)
            )
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Tensor:
        """Map latents to w, one copy for each input of the synthesis.

        Args:
            z: (B, latent_dim) latents from N(0, 1).
            c: (B,) classes or (B, label_dim) one-hot labels; None for a generator without classes.
            truncation_psi: Distance from the average of w that is kept: 1 keeps all, 0 returns the average.
            truncation_cutoff: Number of the first inputs that are truncated. Default: all.

        Returns:
            (B, num_ws, w_dim).

        Raises:
            InputError: If labels are missing, or given to a generator without classes.
        """
        w = _unit_mean_square(z)
        labels = self._one_hot(c)
        if labels is not None:
            w = torch.cat([w, _unit_mean_square(self.embed(labels.expand(len(z), -1)))], 1)
        for index in range(self.num_layers):
            w = self.get_submodule(f"fc{index}")(w)
        if self.training:
            self.w_avg.copy_(w.detach().mean(0).lerp(self.w_avg, MEAN_DECAY))
        ws = w[:, None].expand(-1, self.num_ws, -1)
        if truncation_psi == 1:
            return ws
        count = self.num_ws if truncation_cutoff is None else truncation_cutoff
        return torch.cat([self.w_avg.lerp(ws[:, :count], truncation_psi), ws[:, count:]], 1)

    def _one_hot(self, labels: Tensor | None) -> Tensor | None:
        if (labels is None) != (self.label_dim == 0):
            raise InputError(
                f"this generator has {self.label_dim} classes: give c, the class of each image"
                if labels is None
                else "this generator has no classes: leave c out"
            )
        if labels is None or labels.is_floating_point():
            return labels
        return F.one_hot(labels.long(), self.label_dim).to(self.w_avg) if labels.ndim == 1 else labels.to(self.w_avg)


class SynthesisLayer(nn.Module):
    """Convolution with modulated weights, noise and a leaky rectifier.

    The weights of each image would be `weight * style`, normalized for each output channel. Instead of making them,
    the input is scaled by the style and the output by the norm, so that all images share one dense convolution.
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

    def forward(self, features: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """Map features (B,I,h,w) to (B,O,H,W).

        Args:
            features: Input.
            w: (B, w_dim).
            noise: (H,W) or (B,1,H,W), or None for no noise.
        """
        styles = self.affine(w)
        squares = multiply(styles.square(), self.weight.square().sum((2, 3)), styles.new_tensor(EPSILON))
        scale = GAIN * squares.rsqrt()
        features = features * styles[:, :, None, None]
        features = convolve(features, self._upsample if self.up else lambda x: F.conv2d(x, self.weight, padding=1))
        shift = GAIN * self.bias[:, None, None]
        if noise is not None:
            shift = shift + (GAIN * self.noise_strength) * noise
        # The gain is in scale and shift, since the rectifier commutes with positive factors.
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

    def forward(self, features: Tensor, w: Tensor) -> Tensor:
        """Map features (B,I,H,W) to images (B,C,H,W)."""
        styles = self.gain * self.affine(w)
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
        self, features: Tensor | None, images: Tensor | None, ws: Tensor, noises: list[Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """Return the features and the images of this size.

        Args:
            features: (B,I,h,w), or None in the first block.
            images: (B,C,h,w), or None in the first block.
            ws: (B,N,w_dim), one for each layer and one for `torgb`.
            noises: Noise of each layer.
        """
        if features is None:
            features = self.const.expand(len(ws), *self.const.shape)
            if features.device.type == "cpu":  # channels last, where convolutions and filters are up to 3 times as fast
                features = features.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        for index, (layer, noise) in enumerate(zip(self.layers(), noises, strict=True)):
            features = layer(features, ws[:, index], noise)
        pixels = self.torgb(features, ws[:, len(noises)])
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

    def forward(self, ws: Tensor, noise_mode: NoiseMode | None = None, rng: torch.Generator | None = None) -> Tensor:
        """Map w to images.

        Args:
            ws: (B, num_ws, w_dim), one for each layer; or (B, w_dim) for all layers.
            noise_mode: "const" (the noise of the buffers), "none", or "random" (drawn for each image). Default:
                "random" in training, "const" in evaluation.
            rng: Generator of random noise, on the device of `ws`. Default: that of torch.

        Returns:
            Images (B,C,H,W), about [-1, 1], not clamped.

        Raises:
            InputError: If the noise mode is unknown, or the shape of `ws` does not fit.
        """
        mode = noise_mode or ("random" if self.training else "const")
        if mode not in get_args(NoiseMode):
            raise InputError(f"noise_mode {mode!r} is unknown: choose one of {', '.join(get_args(NoiseMode))}")
        if ws.ndim == 2:
            ws = ws[:, None].expand(-1, self.num_ws, -1)
        if ws.shape[1:] != (self.num_ws, self.w_dim):
            raise InputError(f"expected ws of shape (B, {self.num_ws}, {self.w_dim}) but got {tuple(ws.shape)}")
        features, images, first = None, None, 0
        for block in self.blocks():
            noises = [_noise(layer, mode, ws, rng) for layer in block.layers()]
            features, images = block(features, images, ws[:, first : first + len(noises) + 1], noises)
            first += len(noises)
        return cast(Tensor, images)


class StyleGAN2Generator(nn.Module):
    """Map from latents to images: `mapping` from z to w, `synthesis` from w to images.

    Attributes:
        mapping: `mapping(z, c=None, truncation_psi=1.0)` returns w (B, num_ws, w_dim).
        synthesis: `synthesis(ws, noise_mode="const")` returns images (B,C,H,W).
    """

    def __init__(
        self,
        image_size: int = 256,
        channels: int = 3,
        latent_dim: int = 512,
        base_channels: int = 64,
        max_channels: int = 512,
        w_dim: int = 512,
        label_dim: int = 0,
        mapping_layers: int = 8,
    ) -> None:
        """Build the network.

        Args:
            image_size: Height and width of the images: a power of two from 16 to 1024.
            channels: 1 or 3.
            latent_dim: Length of the latent vector z.
            base_channels: Number of channels at the full size, doubled at each halving of it.
            max_channels: Largest number of channels of a layer.
            w_dim: Length of w.
            label_dim: Number of classes, or 0.
            mapping_layers: Number of layers of the mapping.

        Raises:
            InputError: If a value is unsupported.
        """
        super().__init__()
        sizes = {"latent_dim": latent_dim, "w_dim": w_dim, "mapping_layers": mapping_layers}
        check_stylegan2(image_size, channels, base_channels=base_channels, max_channels=max_channels, **sizes)
        if label_dim < 0:
            raise InputError(f"label_dim must be at least 0, but is {label_dim}")
        self.image_size, self.channels, self.latent_dim, self.label_dim = image_size, channels, latent_dim, label_dim
        self.synthesis = Synthesis(image_size, channels, w_dim, base_channels, max_channels)
        self.mapping = Mapping(latent_dim, label_dim, w_dim, self.synthesis.num_ws, mapping_layers)

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise_mode: NoiseMode | None = None,
        rng: torch.Generator | None = None,
    ) -> Tensor:
        """Map latents (B, latent_dim) to images (B,C,H,W), about [-1, 1]; the options are those of both parts."""
        images: Tensor = self.synthesis(self.mapping(z, c, truncation_psi, truncation_cutoff), noise_mode, rng)
        return images


def check_stylegan2(image_size: int, channels: int, **positive: int) -> None:
    """Check that networks can be built with these sizes.

    Args:
        image_size: Height and width of the images.
        channels: Number of channels of the images.
        positive: Widths by name, which must be at least 1.

    Raises:
        InputError: If the image size is not a power of two from 16 to 1024, the channels are not 1 or 3, or a width is
            below 1.
    """
    if image_size not in IMAGE_SIZES:
        raise InputError(f"image_size {image_size} is not supported: choose one of {', '.join(map(str, IMAGE_SIZES))}")
    if channels not in (1, 3):
        raise InputError(f"channels {channels} is not supported: choose 1 (gray) or 3 (color)")
    for name, value in positive.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1, but is {value}")


def _unit_mean_square(rows: Tensor) -> Tensor:
    return rows * (rows.square().mean(1, keepdim=True) + EPSILON).rsqrt()


def _noise(layer: SynthesisLayer, mode: NoiseMode, ws: Tensor, rng: torch.Generator | None) -> Tensor | None:
    """Return the noise of a layer, (H,W) or (B,1,H,W); None for none."""
    if mode == "random":
        return torch.randn(len(ws), 1, layer.size, layer.size, generator=rng, device=ws.device, dtype=ws.dtype)
    return layer.noise_const if mode == "const" else None
