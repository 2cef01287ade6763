"""Differentiable augmentation of a discriminator's images (Zhao et al. 2020, arXiv 2006.10738, appendix C).

All functions take images (B,C,H,W), with the amounts for each image as tensors (B,). They read nothing back from the
device, and no shape depends on a random number, so that a training step can be captured as a CUDA graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from gan_lightning.errors import InputError

AugmentationKind = Literal["color", "translation", "cutout"]

FARTHEST = 1 / 8  # largest translation, relative to the side
CUTOUT = 1 / 2  # side of the square, relative to that of the image
INTERVAL = 4  # number of batches between two changes of an adaptive probability
DRAWS = 10  # number of random numbers per image, for any kinds


@dataclass(frozen=True)
class Augmentation:
    """Differentiable augmentation of real and generated images, before the discriminator sees them.

    Attributes:
        kinds: Kinds of changes: "color" (brightness, saturation and contrast), "translation" by up to an eighth of the
            side, and "cutout" of a square of half the side.
        probability: Probability of applying each kind to an image; if adaptive, the largest probability.
        adaptive_target: Adapt the probability, starting from 0, to the overfitting of the discriminator (Karras et al.
            2020): it rises while the mean sign of the discriminator's logits of real images is above this target, and
            falls while it is below; 0.6 is common. Null for a fixed probability.
        adaptive_images: Number of real images in which an adaptive probability can rise from 0 to 1.

    Raises:
        InputError: If a kind is unknown, missing or given twice, or a number is out of range.
    """

    kinds: tuple[AugmentationKind, ...] = ("color", "translation", "cutout")
    probability: float = 1.0
    adaptive_target: float | None = None
    adaptive_images: int = 500_000

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", tuple(self.kinds))  # a list, in checkpoints and YAML
        known = get_args(AugmentationKind)
        if not self.kinds or len(set(self.kinds)) < len(self.kinds) or not set(self.kinds) <= set(known):
            raise InputError(
                f"augmentation.kinds is {list(self.kinds)}: give one or more of {', '.join(known)}, or set "
                "augmentation to null"
            )
        if not 0 < self.probability <= 1:
            raise InputError(
                f"augmentation.probability must lie in (0, 1], but is {self.probability}: set augmentation to null for "
                "none"
            )
        if self.adaptive_target is not None and not 0 < self.adaptive_target < 1:
            raise InputError(f"augmentation.adaptive_target must lie in (0, 1), but is {self.adaptive_target}")
        if self.adaptive_images < 1:
            raise InputError(f"augmentation.adaptive_images must be at least 1, but is {self.adaptive_images}")

    @classmethod
    def of(cls, given: Augmentation | Mapping[str, Any] | None) -> Augmentation | None:
        """Return the given settings, or those of a mapping from a checkpoint; None for no augmentation.

        Raises:
            InputError: If a name is unknown or a value unsupported.
        """
        if given is None or isinstance(given, Augmentation):
            return given
        names = cls.__dataclass_fields__.keys()
        if unknown := sorted(given.keys() - names):
            raise InputError(f"augmentation has no option {', '.join(unknown)}: its options are {', '.join(names)}")
        return cls(**given)

    def check_channels(self, channels: int) -> None:
        """Check that color augmentation supports the number of channels; gray images have no saturation.

        Raises:
            InputError: If the number of channels is not 1 or 3.
        """
        if "color" in self.kinds and channels not in (1, 3):
            raise InputError(
                f"the augmentation by color is for images of 1 or 3 channels, but these have {channels}: leave color "
                "out of augmentation.kinds"
            )

    def __call__(
        self, images: Tensor, rng: torch.Generator | None = None, probability: Tensor | float | None = None
    ) -> Tensor:
        """Augment each image independently.

        Args:
            images: Images (B,C,H,W) in [-1, 1].
            rng: Random generator on the device of the images.
            probability: Probability of each change, if it is adaptive: a number, or a scalar tensor on that device.

        Returns:
            The changed images, float32. Brightness and contrast may take pixels out of [-1, 1], as in the paper.
        """
        images, (height, width) = images.float(), images.shape[2:]
        draws = torch.rand(DRAWS, len(images), generator=rng, device=images.device)
        colored, brightness, saturation, contrast, moved, down, right, cut, row, column = draws
        probability = self.probability if probability is None else probability
        colored, moved, cut = (draw < probability for draw in (colored, moved, cut))
        if "color" in self.kinds:
            brightness, saturation, contrast = brightness - 0.5, 2 * saturation - 1, contrast - 0.5
            images = change_color(images, colored * brightness, 1 + colored * saturation, 1 + colored * contrast)
        if "translation" in self.kinds:
            down, right = as_shift(down, height), as_shift(right, width)
            images = translate(images, moved * down, moved * right)
        if "cutout" in self.kinds:
            top = as_integers(row, height + 1) - cutout_side(height) // 2  # the center may be on any border
            left = as_integers(column, width + 1) - cutout_side(width) // 2
            images = cut_out(images, top + ~cut * 2 * height, left)  # a position far below the image cuts nothing
        return images


class AdaptiveProbability(nn.Module):
    """The probability of an adaptive augmentation (Karras et al. 2020, arXiv 2006.06676, section 3.1).

    Every four batches it is increased if D overfits, and decreased otherwise. Everything is computed on the device.

    Attributes:
        probability: The probability, a scalar.
    """

    probability: Tensor
    signs: Tensor
    batches: Tensor
    images: Tensor

    def __init__(self, settings: Augmentation) -> None:
        super().__init__()
        self.settings = settings
        for name in ("probability", "signs", "batches", "images"):
            self.register_buffer(name, torch.zeros(()))

    @torch.no_grad()
    def update(self, sign: Tensor, images: int) -> None:
        """Count a batch, and adapt the probability if it is due.

        Args:
            sign: Mean sign of D's logits of real images, a scalar, the same on every rank.
            images: Number of real images in the batch, over all ranks.
        """
        assert self.settings.adaptive_target is not None
        self.signs += sign
        self.batches += 1
        self.images += images
        due = self.batches >= INTERVAL
        direction = torch.sign(self.signs / self.batches - self.settings.adaptive_target)
        self.probability += due * direction * self.images / self.settings.adaptive_images
        self.probability.clamp_(0, self.settings.probability)
        for counted in (self.signs, self.batches, self.images):
            counted *= ~due


def as_integers(uniform: Tensor, count: int) -> Tensor:
    """Convert uniform numbers in [0, 1) to equally likely integers from 0 to count - 1."""
    return (uniform * count).long().clamp(max=count - 1)  # the product may be rounded up


def as_shift(uniform: Tensor, side: int) -> Tensor:
    """Convert uniform numbers in [0, 1) to translations along a side, in pixels."""
    farthest = math.floor(side * FARTHEST + 0.5)
    return as_integers(uniform, 2 * farthest + 1) - farthest


def cutout_side(side: int) -> int:
    """Return the side of the cutout in an image, in pixels."""
    return math.floor(side * CUTOUT + 0.5)


def change_color(images: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Change brightness, then saturation, then contrast.

    Args:
        images: Images (B,C,H,W).
        brightness: Offset (B,) of all pixels.
        saturation: Factor (B,) of each pixel's distance from the mean of its channels.
        contrast: Factor (B,) of each pixel's distance from the mean of its image.

    Returns:
        Images (B,C,H,W). The three changes are linear in the pixels, and are applied in one operation.
    """
    gray = images.mean(1, keepdim=True)
    mean = gray.mean((2, 3), keepdim=True)
    brightness, saturation, contrast = (part.view(-1, 1, 1, 1) for part in (brightness, saturation, contrast))
    rest = gray * (contrast * (1 - saturation)) + (brightness + (1 - contrast) * mean)
    return torch.addcmul(rest, images, contrast * saturation)


def translate(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Shift images by whole pixels, with zeros at the borders.

    Args:
        images: Images (B,C,H,W).
        down: Number of pixels (B,) to move each image down; negative to move it up.
        right: Number of pixels (B,) to move each image to the right; negative to move it to the left.
    """
    moved: Tensor = Translation.apply(images, down, right)
    return moved


class Translation(torch.autograd.Function):
    """Translation with the inverse translation as its adjoint, which is faster than the derivative by autograd."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, down: Tensor, right: Tensor) -> Tensor:
        """Move images."""
        ctx.save_for_backward(down, right)
        height, width = images.shape[2:]
        rows = torch.arange(height, device=images.device) - down[:, None]  # (B,H), the source of each row
        columns = torch.arange(width, device=images.device) - right[:, None]
        inside = within(rows, height)[:, :, None] & within(columns, width)[:, None]
        source = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None]
        index = source.flatten(1)[:, None].expand(-1, images.shape[1], -1)
        return images.flatten(2).gather(2, index).view(images.shape) * inside[:, None]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Shift gradients back."""
        down, right = ctx.saved_tensors
        return translate(gradient, -down, -right), None, None


def within(positions: Tensor, count: int) -> Tensor:
    """Return which positions are from 0 to count - 1."""
    return (positions >= 0) & (positions < count)


def cut_out(images: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """Set a rectangle of half the side in each image to zero, as far as it is inside the image.

    Args:
        images: Images (B,C,H,W).
        top: First row (B,) of each rectangle, which may be negative.
        left: First column (B,) of each rectangle, which may be negative.
    """
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) - top[:, None]
    columns = torch.arange(width, device=images.device) - left[:, None]
    cut = within(rows, cutout_side(height))[:, :, None] & within(columns, cutout_side(width))[:, None]
    return images * ~cut[:, None]
