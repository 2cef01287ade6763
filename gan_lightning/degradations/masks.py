"""Masks of missing pixels: generated, read from files, or taken from the alpha channel of a photograph."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from gan_lightning.degradations.base import Degradation
from gan_lightning.errors import InputError


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
    """Mask read from an image file, white where pixels are known; all images share it.

    Args:
        path: Path of the image file.
        image_size: Height and width of the images.

    Raises:
        InputError: If the file does not exist, is not an image, or has a different size.
    """

    def __init__(self, path: str | os.PathLike[str], image_size: int) -> None:
        super().__init__(_read_mask(Path(path), image_size))


def read_masks(folder: str | os.PathLike[str], names: Sequence[str], image_size: int) -> Mask:
    """Read the masks of a batch from a folder, matching masks and images by name without the suffix.

    Args:
        folder: Folder of mask files, white where pixels are known.
        names: File names of the images, in the order of the batch.
        image_size: Height and width of the images.

    Raises:
        InputError: If a mask does not exist, is not an image, or has a different size.
    """
    files = {path.stem: path for path in sorted(Path(folder).glob("*")) if path.is_file()}
    stems = [Path(name).stem for name in names]
    if missing := [name for name, stem in zip(names, stems, strict=True) if stem not in files]:
        raise InputError(
            f"{folder} has no mask for {missing[0]} (missing: {len(missing)}): name each mask like its image"
        )
    return Mask(torch.stack([_read_mask(files[stem], image_size)[None] for stem in stems]))


def _read_mask(path: Path, image_size: int) -> Tensor:
    """Read an image file as a boolean mask (H,W), from its alpha channel if it has one, else from its brightness."""
    try:
        with Image.open(path) as image:
            # The size is in the header: an image of the wrong size is not decoded.
            if image.size != (image_size, image_size):
                raise InputError(
                    f"mask {path} is {image.width}x{image.height} pixels: "
                    f"it must have the size of the images, {image_size}x{image_size}"
                )
            picture = image.getchannel("A") if "A" in image.getbands() else image.convert("L")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(f"mask {path} cannot be read as an image: check the path and the file") from error
    return torch.from_numpy(np.array(picture) > 127)
