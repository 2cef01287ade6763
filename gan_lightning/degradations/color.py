"""Loss of colour."""

from __future__ import annotations

import torch
from torch import Tensor

from gan_lightning.degradations.base import Degradation
from gan_lightning.errors import InputError

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class Grayscale(Degradation):
    """Colour to one channel, by the luma of ITU-R BT.601; channels other than three are averaged.

    Args:
        channels: Channels of the images.

    Raises:
        InputError: Fewer than one channel; at the call, images of another number of channels.
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        if channels < 1:
            raise InputError(f"channels is {channels}: give the images' number of channels, 1 or more")
        weights = torch.tensor(LUMA) if channels == 3 else torch.full((channels,), 1 / channels)
        self.register_buffer("weights", weights.reshape(1, channels, 1, 1), persistent=False)
        self.weights: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,C,H,W) to their luma (B,1,H,W)."""
        if images.shape[1] != self.weights.shape[1]:
            raise InputError(
                f"Grayscale(channels={self.weights.shape[1]}) met images of {images.shape[1]} channels: "
                f"set channels to {images.shape[1]}"
            )
        return (images * self.weights.to(images)).sum(1, keepdim=True)

    def adjoint(self, values: Tensor) -> Tensor:
        """Spread values (B,1,H,W) over the channels."""
        return values * self.weights.to(values)
