"""The generator of StyleGAN2 (Karras et al. 2020, arXiv 1912.04958 and 2006.06676), for images of 16 to 1024 pixels.

Parameters and buffers have the names of the public PyTorch implementation of the papers, whose weights `load_generator`
reads. Everything is plain torch in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gan_lightning.errors import InputError
from gan_lightning.networks.stylegan2_layers import MAPPING_RATE, EqualizedLinear, check_stylegan2, unit_mean_square
from gan_lightning.networks.stylegan2_synthesis import NoiseMode, Synthesis

MEAN_DECAY = 0.995  # per batch, of the average of w


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
            truncation_psi: Fraction of the distance from the average of w that is kept: 0 returns the average.
            truncation_cutoff: Number of the first inputs that are truncated. Default: all.

        Returns:
            (B, num_ws, w_dim).

        Raises:
            InputError: If labels are missing, or given to a generator without classes.
        """
        w = unit_mean_square(z)
        labels = self._one_hot(c)
        if labels is not None:
            w = torch.cat([w, unit_mean_square(self.embed(labels.expand(z.shape[0], -1)))], 1)
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
