"""A small network that removes white noise of a known level from color images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS = 3
MULTIPLE = 4  # images are padded so that both sides are multiples of this


class Denoiser(nn.Module):
    """U-Net of two scales that predicts the noise, with the noise level as an input (DRUNet, Zhang et al. 2021).

    It works on blocks of 2x2 pixels (FFDNet, Zhang et al. 2018). There are no biases: scaling the image and the noise
    level scales the result by the same factor, so that the network generalizes to noise levels outside of the training
    range (Mohan et al. 2020).

    Args:
        width: Number of channels of the features.
    """

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.head = _convolution(4 * CHANNELS + 1, width)
        self.fine = nn.Sequential(_Residual(width), _Residual(width))
        self.down = nn.Conv2d(width, width, 2, stride=2, bias=False)
        self.coarse = nn.Sequential(_Residual(width), _Residual(width))
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2, bias=False)
        self.merged = nn.Sequential(_Residual(width), _Residual(width))
        self.tail = _convolution(width, 4 * CHANNELS)
        with torch.no_grad():
            self.tail.weight *= 0.1

    def noise(self, noisy: Tensor, std: Tensor) -> Tensor:
        """Return the noise (B,3,H,W) of images whose sides are multiples of four.

        Args:
            noisy: Noisy images (B,3,H,W).
            std: (B,1,1,1) standard deviation of the noise, on the scale of the images.
        """
        blocks = F.pixel_unshuffle(noisy, 2)
        fine = self.fine(self.head(torch.cat([blocks, std.expand(-1, 1, *blocks.shape[-2:])], 1)))
        merged = self.merged(fine + self.up(self.coarse(self.down(fine))))
        return F.pixel_shuffle(self.tail(merged), 2)

    def forward(self, noisy: Tensor, noise_level: Tensor) -> Tensor:
        """Denoise images of any size.

        Args:
            noisy: Noisy images (B,3,H,W) in [-1, 1].
            noise_level: (B,) standard deviation of the noise on the [0, 1] scale.

        Returns:
            Denoised images (B,3,H,W).
        """
        height, width = noisy.shape[-2:]
        padded = F.pad(noisy, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="replicate")
        return noisy - self.noise(padded, 2 * noise_level[:, None, None, None])[..., :height, :width]


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _convolution(width, width), _convolution(width, width)
        with torch.no_grad():
            self.second.weight *= 0.3

    def forward(self, features: Tensor) -> Tensor:
        changed: Tensor = self.second(torch.relu(self.first(features)))
        return features + changed


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
