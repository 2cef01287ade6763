"""How far a prediction is from what was observed: functions of two batches, one number an image.

All are on the [0, 1] scale of pixels, so that `mse` is the figure that the literature states.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gan_lightning.errors import InputError
from gan_lightning.lpips import load_lpips

ImageLoss = Callable[[Tensor, Tensor], Tensor]  # (B,C,H,W) in [-1,1], twice -> (B,)
LossName = Literal["mse", "l1", "huber", "perceptual", "lpips"]

HUBER_DELTA = 0.1  # where the loss turns linear, on the [0, 1] scale


def mse(predicted: Tensor, observed: Tensor) -> Tensor:
    """Mean squared error of each image."""
    return ((predicted - observed) / 2).square().flatten(1).mean(1)


def l1(predicted: Tensor, observed: Tensor) -> Tensor:
    """Mean absolute error of each image."""
    return ((predicted - observed) / 2).abs().flatten(1).mean(1)


def huber(predicted: Tensor, observed: Tensor) -> Tensor:
    """Huber's loss of each image: squared up to 0.1, then linear."""
    return F.huber_loss(predicted / 2, observed / 2, reduction="none", delta=HUBER_DELTA).flatten(1).mean(1)


class PerceptualLoss:
    """Squared distance in the features of a discriminator, relative to their size, plus the mean squared error.

    Grey images are shown to a discriminator of colour as three equal channels.

    Args:
        discriminator: A gan_lightning.Discriminator, or another network with its layers in `main`; it is not changed.
        device: Of the images.

    Raises:
        InputError: A discriminator with no `main`.
    """

    def __init__(self, discriminator: nn.Module, device: torch.device) -> None:
        layers = getattr(discriminator, "main", None)
        if not isinstance(layers, nn.Sequential):
            raise InputError("the perceptual loss reads the features of gan_lightning.Discriminator: give one")
        self.layers = copy.deepcopy(layers[:-1]).eval().requires_grad_(False).to(device)
        self.channels = int(next(self.layers.parameters()).shape[1])

    def __call__(self, predicted: Tensor, observed: Tensor) -> Tensor:
        """Compare (B,C,H,W) in [-1, 1] with (B,C,H,W): (B,)."""
        loss = mse(predicted, observed)
        ours, theirs = (images.expand(-1, self.channels, -1, -1) for images in (predicted, observed))
        for layer in self.layers:
            ours, theirs = layer(ours), layer(theirs)
            if isinstance(layer, nn.LeakyReLU):
                distance = (ours - theirs).square().flatten(1).mean(1)
                loss = loss + distance / theirs.square().flatten(1).mean(1).clamp(min=1e-12)
        return loss


def make_loss(name: LossName, discriminator: nn.Module | None, device: torch.device) -> ImageLoss:
    """Find a loss by its name.

    Raises:
        InputError: A name that is not known, or a perceptual loss without a discriminator.
    """
    if name == "perceptual":
        if discriminator is None:
            raise InputError("the perceptual loss needs the discriminator that the generator was trained with: give it")
        return PerceptualLoss(discriminator, device)
    if name == "lpips":
        return load_lpips(device)
    plain: dict[str, ImageLoss] = {"mse": mse, "l1": l1, "huber": huber}
    if name not in plain:
        raise InputError(f"loss {name!r} is not known: choose mse, l1, huber, perceptual or lpips")
    return plain[name]
