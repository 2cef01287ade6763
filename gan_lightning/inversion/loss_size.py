"""Losses at a reduced size of the generator's images, as in published restorations with StyleGAN."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gan_lightning.degradations.base import Compose, Degradation, Identity
from gan_lightning.degradations.separable import Downsample
from gan_lightning.errors import InputError
from gan_lightning.inversion.prior import DrawsLatents


def reduction(image_size: int, loss_size: int | None) -> Degradation:
    """Return the operator that reduces images to the size of the comparison, by averaging squares of pixels.

    Args:
        image_size: Height of the images.
        loss_size: Height at which they are compared; None for that of the images.

    Raises:
        InputError: If the size is larger than that of the images, or does not divide it.
    """
    if loss_size is None or loss_size == image_size:
        return Identity()
    if image_size % loss_size:
        fits = [str(size) for size in range(1, image_size + 1) if image_size % size == 0 and size >= image_size // 8]
        raise InputError(
            f"loss_size is {loss_size}, but images of the generator have {image_size} pixels: choose {', '.join(fits)}"
        )
    return Downsample(image_size // loss_size)


def after_reduction(reduce: Degradation, degradation: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the degradation of reduced images, as a function of images of the generator."""
    if isinstance(reduce, Identity):
        return degradation
    if not isinstance(degradation, Degradation):
        return lambda images: degradation(reduce(images))
    return reduce if isinstance(degradation, Identity) else Compose([reduce, degradation])


class ReducedPrior(nn.Module):
    """A prior whose images are the reduced images of another prior.

    Args:
        prior: `Prior`.
        reduce: Operator that reduces images.
    """

    def __init__(self, prior: nn.Module, reduce: Degradation) -> None:
        super().__init__()
        self.prior, self.reduce = prior, reduce
        self.latent_dim: int = getattr(prior, "latent_dim")  # noqa: B009  of a protocol, not of nn.Module

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (B, latent_dim) to reduced images (B,C,h,w)."""
        images: Tensor = self.reduce(self.prior(latents))
        return images

    def draw(self, count: int, rng: torch.Generator) -> Tensor:
        """Return random latents of the prior (count, latent_dim)."""
        if isinstance(self.prior, DrawsLatents):
            return self.prior.draw(count, rng)
        return torch.randn(count, self.latent_dim, generator=rng)
