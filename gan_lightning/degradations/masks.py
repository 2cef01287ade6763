"""Masks of missing pixels: generated, read from files, or taken from the alpha channel of a photograph."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan_lightning.degradations.base import Degradation
from gan_lightning.degradations.mask_files import MaskFolder, White, read_mask
from gan_lightning.errors import InputError
from gan_lightning.file_names import printable

logger = logging.getLogger(__name__)


class Mask(Degradation):
    """Mask that sets missing pixels to zero in all channels.

    For photographs with transparency, use `Mask(rgba[:, 3:] > 127)`.

    Args:
        mask: (H,W), (1,H,W) or (B,1,H,W), true or one where a pixel is known.

    Raises:
        InputError: If the mask has an unsupported shape or leaves no pixel of an image known. When called, if the
            images have a different size.
    """

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        if not 2 <= mask.ndim <= 4 or (mask.ndim > 2 and mask.shape[-3] != 1):
            raise InputError(f"a mask of shape {tuple(mask.shape)} is not supported: expected (H,W) or (B,1,H,W)")
        known = (mask if mask.dtype == torch.bool else mask >= 0.5).reshape(-1, 1, *mask.shape[-2:])
        if not known.flatten(1).any(1).all():
            raise InputError(
                "the mask leaves no pixel known: mark known pixels with 1 (white), missing ones with 0 (black)"
            )
        self.register_buffer("mask", known.to(torch.float32), persistent=False)
        self.mask: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Set the missing pixels of images (B,C,H,W) to zero."""
        if images.shape[-2:] != self.mask.shape[-2:] or len(self.mask) not in (1, len(images)):
            size, images_size = ("x".join(map(str, shape)) for shape in (self.mask.shape[-2:], images.shape[-2:]))
            raise InputError(
                f"got {len(self.mask)} mask(s) of {size} pixels for {len(images)} image(s) of {images_size}: "
                "pass one mask, or one per image, of the size of the images"
            )
        return images * self.mask.to(images)

    def adjoint(self, values: Tensor) -> Tensor:
        """Set the missing pixels to zero: a mask is self-adjoint."""
        masked: Tensor = self(values)
        return masked

    def select(self, rows: Tensor) -> Degradation:
        """Return the masks of some images of the batch."""
        return self if len(self.mask) == 1 else Mask(self.mask[rows.to(self.mask.device)])

    def known(self, observed: Tensor) -> Tensor | None:
        """Return the mask, (1 or B,1,H,W)."""
        return self.mask


class SquareMask(Mask):
    """Square hole, centered by default.

    Args:
        image_size: Height and width of the images.
        hole_size: Height and width of the hole, in pixels.
        top: Row of the top edge of the hole; centered by default.
        left: Column of the left edge of the hole; centered by default.

    Raises:
        InputError: If the hole does not lie inside the image.
    """

    def __init__(self, image_size: int, hole_size: int = 8, top: int | None = None, left: int | None = None) -> None:
        corner = [(image_size - hole_size) // 2 if place is None else place for place in (top, left)]
        if hole_size < 1 or min(corner) < 0 or max(corner) + hole_size > image_size:
            raise InputError(
                f"a hole of {hole_size} pixels at ({corner[0]}, {corner[1]}) does not lie inside {image_size} pixels"
            )
        mask = torch.ones(image_size, image_size)
        mask[corner[0] : corner[0] + hole_size, corner[1] : corner[1] + hole_size] = 0
        super().__init__(mask)


class RandomMask(Mask):
    """Randomly missing pixels, the same in every image.

    Args:
        image_size: Height and width of the images.
        fraction: Fraction of missing pixels, in (0, 1); their number is exact to the nearest pixel.
        seed: Seed of the random choice of pixels.

    Raises:
        InputError: If `fraction` is out of range.
    """

    def __init__(self, image_size: int, fraction: float, seed: int = 0) -> None:
        if not 0 < fraction < 1:
            raise InputError(f"fraction is {fraction}: it must be above 0 and below 1, the fraction of missing pixels")
        order = torch.randperm(image_size**2, generator=torch.Generator().manual_seed(seed))
        super().__init__((order >= round(fraction * image_size**2)).reshape(image_size, image_size))


class HalfMask(Mask):
    """Mask in which one half of the image is missing.

    Args:
        image_size: Height and width of the images.
        missing: Half of the image that is missing.

    Raises:
        InputError: If `missing` is not one of the four halves.
    """

    def __init__(self, image_size: int, missing: Literal["left", "right", "top", "bottom"] = "right") -> None:
        if missing not in ("left", "right", "top", "bottom"):
            raise InputError(f"unknown value of missing {missing!r}: choose left, right, top or bottom")
        first = torch.arange(image_size) < image_size // 2
        known = first if missing in ("right", "bottom") else ~first
        mask = known.expand(image_size, image_size)
        super().__init__(mask if missing in ("left", "right") else mask.mT)


class FileMask(Mask):
    """Mask read from a file, white where pixels are known, for all images.

    Args:
        path: Path of the file, in any format that `read_mask` supports.
        image_size: Height and width of the images.
        white: Meaning of white (or opaque) pixels of the file: "known" or "missing".

    Raises:
        InputError: If the file does not exist, is not a mask, has a different size, or marks every pixel as missing.
    """

    def __init__(self, path: str | os.PathLike[str], image_size: int, white: White = "known") -> None:
        known = check_mask(path, read_mask(path, white), image_size)
        if known.all():
            logger.warning("mask %s marks no pixel as missing", printable(path))
        super().__init__(torch.from_numpy(known))


def read_masks(folder: str | os.PathLike[str], names: Sequence[str], image_size: int, white: White = "known") -> Mask:
    """Read the masks of a batch from a folder, matching masks and images by name without the suffix.

    Args:
        folder: Folder of mask files, white where pixels are known.
        names: File names of the images, in the order of the batch.
        image_size: Height and width of the images.
        white: Meaning of white (or opaque) pixels of the files: "known" or "missing".

    Raises:
        InputError: If a mask does not exist or is ambiguous, cannot be read, has a different size, or marks every pixel
            as missing.
    """
    files = MaskFolder(folder).assign(names)
    paths = [Path(folder, files[name]) for name in names]
    masks = [check_mask(path, read_mask(path, white), image_size) for path in paths]
    return Mask(torch.from_numpy(np.stack(masks)[:, None]))


def check_mask(path: str | os.PathLike[str], known: NDArray[np.bool_], image_size: int) -> NDArray[np.bool_]:
    """Check a mask (H,W) of images of a given size, and return it.

    Raises:
        InputError: If it has a different size, or leaves no pixel known.
    """
    height, width = known.shape
    if (height, width) != (image_size, image_size):
        raise InputError(
            f"mask {printable(path)} is {width}x{height} pixels: it must have the size of the images, "
            f"{image_size}x{image_size}"
        )
    if not known.any():
        raise InputError(
            f"mask {printable(path)} marks every pixel as missing: known pixels are white, missing ones black "
            "(white: missing, or masks_white: missing, for the opposite)"
        )
    return known
