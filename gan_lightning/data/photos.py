"""A user's own photographs, as they are: nothing is cropped, resized or repaired without being told to."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from gan_lightning import distributed
from gan_lightning.data.decode import MAX_PIXELS, to_eight_bits
from gan_lightning.data.folder import read_folder
from gan_lightning.errors import InputError
from gan_lightning.images import to_float

Resize = Literal["refuse", "centre_crop"]
GREY_TOLERANCE = 2  # how far apart the channels of a grey photograph may lie, after JPEG

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PhotoFormat:
    """What a model takes.

    Attributes:
        channels: 1 or 3. Grey photographs become three equal channels; coloured ones are never made grey.
        height: In pixels.
        width: In pixels.
        resize: What happens to larger photographs: "refuse", or "centre_crop" to the shape and then resize (bicubic,
            antialiased).
    """

    channels: int
    height: int
    width: int
    resize: Resize = "refuse"

    def __post_init__(self) -> None:
        if self.resize not in ("refuse", "centre_crop"):
            raise InputError(f"resize {self.resize!r} is not known: choose refuse or centre_crop")


class Photos(Dataset[dict[str, Tensor | list[str]]]):
    """The photographs below a folder, sorted by name, read by whole batches.

    All files are opened at once when it is made, so that what cannot be used is known before any work. Unreadable ones
    are named in a warning and skipped.

    Args:
        root: The folder.
        wanted: The format that the model takes.

    Attributes:
        names: Of the readable photographs, relative to the root.
        skipped: Number of unreadable ones.

    Raises:
        InputError: No folder, no photograph in it, none that can be read; one that is too large, too small, or coloured
            where the model takes grey.
    """

    def __init__(self, root: str | os.PathLike[str], wanted: PhotoFormat) -> None:
        listed = read_folder(root)
        self.root, self.wanted = listed.root, wanted
        self.names, unreadable = [], []
        for name in listed.names:
            try:
                read_photo(self.root / name, wanted)
            except InputError:
                raise
            except Exception as error:  # Pillow's plugins raise nearly anything on a broken file
                unreadable.append(name)
                log.warning("skipped %s: it cannot be read (%s)", name, str(error) or repr(error))
            else:
                self.names.append(name)
        self.skipped = len(unreadable)
        if not self.names:
            raise InputError(f"none of the {self.skipped} photographs below {root} can be read: {unreadable[0]}, ...")
        if unreadable:
            log.warning("skipped %d of %d photographs", self.skipped, len(listed.names))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: NDArray[np.int64]) -> dict[str, Tensor | list[str]]:
        """Read a batch.

        Args:
            rows: (B) positions in `names`.

        Returns:
            "image" (B,C,H,W) float32 in [-1, 1]; "alpha" (B,1,H,W) float32 in [0, 1], ones where a photograph has no
            transparency; "index" (B) int64; "name", a list of B.
        """
        shape = self.wanted.height, self.wanted.width
        images, alphas = torch.empty(len(rows), self.wanted.channels, *shape), torch.empty(len(rows), 1, *shape)
        for place, row in enumerate(rows):
            images[place], alphas[place] = read_photo(self.root / self.names[row], self.wanted)
        return {
            "image": images,
            "alpha": alphas,
            "index": torch.from_numpy(rows.copy()),
            "name": [self.names[row] for row in rows],
        }


class PhotoBatches(DistributedSampler[NDArray[np.int64]]):
    """Batches of positions in order, rank r of W taking r, r + W, ...; none is repeated.

    A rank without any gets one empty batch: Lightning would leave it out of the end, where the others wait for it.

    It is a DistributedSampler so that Lightning leaves it in place.

    Args:
        count: Number of photographs.
        batch_size: Of each rank.
    """

    def __init__(self, count: int, batch_size: int) -> None:
        if batch_size < 1:
            raise InputError(f"the batch size is {batch_size}: give 1 or more")
        super().__init__(range(count), distributed.world_size(), distributed.rank(), shuffle=False)  # type: ignore[arg-type]
        self.count, self.batch_size = count, batch_size

    def __len__(self) -> int:
        """Number of batches of this rank."""
        return max(1, -(-len(range(self.rank, self.count, self.num_replicas)) // self.batch_size))

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        own = np.arange(self.rank, self.count, self.num_replicas)
        for first in range(0, max(1, len(own)), self.batch_size):
            yield own[first : first + self.batch_size]


def photo_loader(
    root: str | os.PathLike[str], wanted: PhotoFormat, batch_size: int, num_workers: int = 0
) -> DataLoader[dict[str, Tensor | list[str]]]:
    """Give the photographs below a folder in batches, for `predict`.

    Args:
        root: The folder.
        wanted: The format that the model takes.
        batch_size: Photographs in a batch, on each rank.
        num_workers: Processes that read.

    Raises:
        InputError: As `Photos`.
    """
    photos = Photos(root, wanted)
    return DataLoader(photos, batch_size=None, sampler=PhotoBatches(len(photos), batch_size), num_workers=num_workers)


def read_photo(path: Path, wanted: PhotoFormat) -> tuple[Tensor, Tensor]:
    """Decode one photograph, upright (EXIF).

    Args:
        path: The file.
        wanted: The format to bring it to.

    Returns:
        (C,H,W) float32 in [-1, 1], and its alpha channel (1,H,W) in [0, 1].

    Raises:
        InputError: It does not fit the format.
        Exception: It cannot be read.
    """
    with Image.open(path) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"{opened.width} x {opened.height} pixels are more than the limit of {MAX_PIXELS}")
        upright = ImageOps.exif_transpose(opened)
        transparent = "A" in upright.getbands() or "transparency" in upright.info
        colours = _to_grey_or_rgb(upright, path, wanted)
        alpha = upright.convert("RGBA").getchannel("A") if transparent else Image.new("L", upright.size, 255)
    pixels, opacity = (np.array(_fit(picture, path, wanted)) for picture in (colours, alpha))
    if opacity.max() < 128:
        raise ValueError("it is transparent all over")
    image = torch.from_numpy(pixels.reshape(wanted.height, wanted.width, wanted.channels)).permute(2, 0, 1)
    return to_float(image), torch.from_numpy(opacity)[None] / 255


def _to_grey_or_rgb(image: Image.Image, path: Path, wanted: PhotoFormat) -> Image.Image:
    image = to_eight_bits(image)
    if wanted.channels == 3:
        return image.convert("RGB")
    if image.mode not in ("1", "L", "LA"):
        channels = np.asarray(image.convert("RGB")).astype(np.int16)
        if int(np.ptp(channels, axis=2).max()) > GREY_TOLERANCE:
            raise InputError(
                f"{path} is in colour, but the model takes grey: convert it, or choose another degradation"
            )
    return image.convert("L")


def _fit(image: Image.Image, path: Path, wanted: PhotoFormat) -> Image.Image:
    """Refuse, or crop and resize."""
    size, target = image.size, (wanted.width, wanted.height)
    if size == target:
        return image
    scale = min(size[0] / target[0], size[1] / target[1])
    told = f"{path} is {size[0]}x{size[1]} pixels, the model takes {target[0]}x{target[1]}"
    if scale < 1:
        raise InputError(f"{told}: give a larger photograph, or restore it by super-resolution (Downsample)")
    if wanted.resize == "refuse":
        raise InputError(f"{told}: set model.resize to centre_crop to have it cropped and resized")
    width, height = (round(scale * side) for side in target)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    box = (left, top, left + width, top + height)
    return image.crop(box).resize(target, Image.Resampling.BICUBIC)
