"""Conversion of color images to grayscale."""

from __future__ import annotations

import torch
from torch import Tensor

from gan_lightning.degradations.base import Degradation
from gan_lightning.errors import InputError

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class Grayscale(Degradation):
    """Conversion to one channel: the luma of ITU-R BT.601 for three channels, the mean for any other number.

    Args:
        channels: Number of channels of the images.

    Raises:
        InputError: If `channels` is less than 1. When called, if the images have a different number of channels.
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        if channels < 1:
            raise InputError(f"channels is {channels}: it must be 1 or more, the number of channels of the images")
        weights = torch.tensor(LUMA) if channels == 3 else torch.full((channels,), 1 / channels)
        self.register_buffer("weights", weights.reshape(1, channels, 1, 1), persistent=False)
        self.weights: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,C,H,W) to their luma (B,1,H,W)."""
        if images.shape[1] != self.weights.shape[1]:
            raise InputError(
                f"Grayscale(channels={self.weights.shape[1]}) got images with {images.shape[1]} channels: "
                f"set channels to {images.shape[1]}"
            )
        return (images * self.weights.to(images)).sum(1, keepdim=True)

    def adjoint(self, values: Tensor) -> Tensor:
        """Map values (B,1,H,W) to images (B,C,H,W), weighted as in the luma."""
        return values * self.weights.to(values)
