"""Losses between predicted and observed images, one value per image.

All losses refer to pixel values in [0, 1], so that `mse` agrees with values in the literature.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gan_lightning.errors import InputError
from gan_lightning.inversion.reductions import mean_of_each
from gan_lightning.lpips import load_lpips

ImageLoss = Callable[[Tensor, Tensor], Tensor]  # predicted and observed images (B,C,H,W) in [-1,1] -> (B,)
LossName = Literal["mse", "l1", "huber", "perceptual", "lpips"]

HUBER_DELTA = 0.1  # absolute error above which the loss is linear, on the [0, 1] scale


def mse(predicted: Tensor, observed: Tensor) -> Tensor:
    """Compute the mean squared error of each image."""
    return mean_of_each(F.mse_loss(predicted, observed, reduction="none")) / 4


def l1(predicted: Tensor, observed: Tensor) -> Tensor:
    """Compute the mean absolute error of each image."""
    return mean_of_each(((predicted - observed) / 2).abs())


def huber(predicted: Tensor, observed: Tensor) -> Tensor:
    """Compute the Huber loss of each image, quadratic up to an error of 0.1 and linear above."""
    return mean_of_each(F.huber_loss(predicted / 2, observed / 2, reduction="none", delta=HUBER_DELTA))


@runtime_checkable
class OffersFeatures(Protocol):
    """A discriminator other than `gan_lightning.Discriminator` that the perceptual loss can use: a `torch.nn.Module`.

    Attributes:
        channels: Number of channels of its images.
    """

    channels: int

    def features(self, images: Tensor) -> Sequence[Tensor]:
        """Map images (B,C,H,W) to the outputs of the layers, (B,...) each, independently for each image."""


class PerceptualLoss:
    """Relative squared distance between discriminator features, summed over layers, plus the mean squared error.

    Grayscale images are expanded to the number of channels of the discriminator.

    Args:
        discriminator: `gan_lightning.Discriminator`, another network with its layers in `main`, or one that
            `OffersFeatures`, such as that of `StyleGAN2`. It is not modified.
        device: Device of the images.

    Raises:
        InputError: If the discriminator has no `main`, and offers no features.
    """

    def __init__(self, discriminator: nn.Module, device: torch.device) -> None:
        layers = getattr(discriminator, "main", None)
        if isinstance(layers, nn.Sequential):
            discriminator = _MainLayers(layers[:-1])
        if not isinstance(discriminator, OffersFeatures):
            raise InputError("the perceptual loss reads the features of gan_lightning.Discriminator: pass one")
        network: Any = copy.deepcopy(discriminator).eval().requires_grad_(False).to(device)
        self.network: OffersFeatures = network

    def __call__(self, predicted: Tensor, observed: Tensor) -> Tensor:
        """Compute the loss (B,) between images (B,C,H,W) in [-1, 1]."""
        loss = mse(predicted, observed)
        for features, targets in zip(*map(self._features, (predicted, observed)), strict=True):
            distance = mean_of_each((features - targets).square())
            loss = loss + distance / mean_of_each(targets.square()).clamp(min=1e-12)
        return loss

    def _features(self, images: Tensor) -> list[Tensor]:
        """Return the features of images; on a CPU, those of a single image are bit-identical to those in a batch."""
        images, count = images.expand(-1, self.network.channels, -1, -1), len(images)
        if count == 1 and images.device.type == "cpu":
            images = torch.cat([images, images])
        return [features[:count] for features in self.network.features(images)]


class _MainLayers(nn.Module):
    """The layers of a DCGAN discriminator; its features are the outputs of each LeakyReLU."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers, self.channels = layers, int(next(layers.parameters()).shape[1])

    def features(self, images: Tensor) -> list[Tensor]:
        features = []
        for layer in self.layers:
            images = layer(images)
            if isinstance(layer, nn.LeakyReLU):
                features.append(images)
        return features


def make_loss(name: LossName, discriminator: nn.Module | None, device: torch.device) -> ImageLoss:
    """Return the loss with the given name.

    Args:
        name: Name of the loss.
        discriminator: Discriminator for the perceptual loss.
        device: Device of the images.

    Raises:
        InputError: If the name is unknown, or if the perceptual loss has no discriminator.
    """
    if name == "perceptual":
        if discriminator is None:
            raise InputError("the perceptual loss needs the discriminator of the generator: give it")
        return PerceptualLoss(discriminator, device)
    if name == "lpips":
        return load_lpips(device)
    plain: dict[str, ImageLoss] = {"mse": mse, "l1": l1, "huber": huber}
    if name not in plain:
        raise InputError(f"unknown loss {name!r}: choose mse, l1, huber, perceptual or lpips")
    return plain[name]
