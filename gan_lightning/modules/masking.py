"""Masks of single images: their own transparency, or files of the same name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gan_lightning.data.decode import upright_size
from gan_lightning.data.listing import ImageArrays
from gan_lightning.data.photo_format import largest_crop
from gan_lightning.data.photos import report_names
from gan_lightning.degradations import Compose, Degradation, Identity, Mask
from gan_lightning.degradations.mask_files import MaskFolder, SharedMask, White, fit_mask, open_masks, read_mask
from gan_lightning.degradations.masks import check_mask
from gan_lightning.errors import InputError
from gan_lightning.file_names import printable

Size = tuple[int, int]  # width, height


class ImageMasks:
    """Masks of the images of a batch.

    A mask file has the size of the restored image, or that of the photograph. In the latter case it is cropped and
    resized with the photograph.

    Args:
        source: "alpha", a folder of masks named like the images, or one mask file for all of them, white where pixels
            are known.
        image_size: Height and width of the masks.
        white: Meaning of white (or opaque) pixels of the files: "known" or "missing".

    Raises:
        InputError: If the source does not exist, or `white` does not apply to it.
    """

    def __init__(self, source: str, image_size: int, white: White = "known") -> None:
        if source == "alpha" and white == "missing":
            raise InputError("masks_white is for mask files: with masks: alpha, transparent pixels are missing")
        if source != "alpha" and not Path(source).exists():
            raise InputError(
                f"masks {printable(source)} is neither a folder nor a file: give alpha, a mask file, or a folder of "
                "masks named like the images"
            )
        self.source, self.image_size, self.white = source, image_size, white
        self._names: Sequence[str] = []  # by index, for batches without names
        self._files: dict[str, str] = {}
        self._folder: MaskFolder | SharedMask | None = None
        self._photo: Callable[[str], tuple[Size, Size]] | None = None  # size of a photograph, and of its used part

    def describe(self) -> str:
        """Return the source and, for a folder, a digest of the names and contents of its files."""
        if self.source == "alpha":
            return self.source
        digest = hashlib.sha256()
        masks = open_masks(self.source)
        for name in masks.files:
            digest.update(name.encode(errors="surrogateescape") + b"\0" + Path(masks.folder, name).read_bytes())
        return f"{self.source} {digest.hexdigest()[:16]}" + (", white: missing" if self.white == "missing" else "")

    def prepare_test(self, data: Any) -> None:
        """Find the masks of the images of a test split, and check them.

        Args:
            data: Data module.

        Raises:
            InputError: If the data have no transparency or no file names, or a mask is missing or does not fit.
        """
        if self.source == "alpha":
            raise InputError("masks: alpha needs photographs with transparency, in predict: give a folder of masks")
        try:
            listing = data.read_files()
        except (AttributeError, NotImplementedError) as error:  # bare loaders, streams
            raise InputError("masks go by the names of files: give test a data module that reads files") from error

        def photo(name: str) -> tuple[Size, Size]:
            size = upright_size(listing.root / name)
            side = data.crop or min(size)
            return size, (side, side)

        self._names, self._photo = listing.names, None if isinstance(listing, ImageArrays) else photo
        self._check([listing.names[row] for row in data.dataset("test").rows], listing.names)

    def prepare_predict(self, photos: Any) -> None:
        """Find the masks of photographs, and check them.

        Args:
            photos: `PhotoDataset`, or another dataset, whose masks are looked up when they are needed.

        Raises:
            InputError: If a mask is missing or does not fit.
        """
        names = getattr(photos, "names", [])
        if self.source == "alpha":
            report_names(getattr(photos, "opaque", []), len(names), "photographs have no transparent pixel")
            return

        def photo(name: str) -> tuple[Size, Size]:
            size = upright_size(photos.root / name)
            return size, largest_crop(size, (self.image_size, self.image_size))

        self._photo = photo if getattr(photos, "resize", "refuse") != "refuse" else None
        listed = getattr(photos, "listed", names)  # unreadable photographs may also have masks
        self._check(names, listed)
        folder = open_masks(self.source)
        unused = sorted({*folder.files} - {folder.find(name, listed) for name in listed}) if listed else []
        report_names(unused, len(folder.files), f"masks in {printable(self.source)} belong to no photograph")

    def known_pixels(self, name: str, every: Sequence[str] = ()) -> NDArray[np.bool_] | None:
        """Return the mask of a photograph, (H,W), true where a pixel is known, before it is cropped and resized.

        Returns None with "alpha", because the mask is then part of the photograph.
        """
        return None if self.source == "alpha" else read_mask(self._path(name, every), self.white)

    def after(self, degradation: Degradation, batch: dict[str, Any], rows: list[int]) -> Degradation:
        """Return a degradation followed by the masks of some images of a batch."""
        if self.source == "alpha":
            mask = Mask(batch["alpha"][rows].clone() > 0.5)
        else:
            names = batch["name"] if "name" in batch else [self._names[index] for index in batch["index"].tolist()]
            mask = Mask(torch.from_numpy(np.stack([self._read(names[row]) for row in rows])[:, None]))
        mask = mask.to(batch["image"].device)
        return mask if isinstance(degradation, Identity) else Compose([degradation, mask])

    def _check(self, names: Sequence[str], every: Sequence[str]) -> None:
        """Find and read all masks once."""
        self._folder = open_masks(self.source)
        self._files = self._folder.assign(names, every)
        empty = [self._files[name] for name in names if self._read(name).all()]
        report_names(empty, len(names), f"masks in {printable(self.source)} mark no pixel as missing")

    def _read(self, name: str) -> NDArray[np.bool_]:
        """Return the mask of an image, (H,W), true where a pixel is known."""
        path = self._path(name)
        known, target = read_mask(path, self.white), (self.image_size, self.image_size)
        if known.shape != target and self._photo is not None:
            size, crop = self._photo(name)
            if known.shape[::-1] != size:
                width, height = known.shape[::-1]
                raise InputError(
                    f"mask {printable(path)} is {width}x{height} pixels: it must have the size of its photograph, "
                    f"{size[0]}x{size[1]}, or of the restored image, {target[0]}x{target[1]}"
                )
            known = fit_mask(known, crop, target)
        return check_mask(path, known, self.image_size)

    def _path(self, name: str, every: Sequence[str] = ()) -> Path:
        if self._folder is None or name not in self._files:
            if self._folder is None or self._folder.find(name, every) is None:
                self._folder = open_masks(self.source)
            self._files |= self._folder.assign([name], every)
        return Path(self._folder.folder, self._files[name])


def prepare_photos(photos: Any, masks: ImageMasks | None) -> None:
    """Check the masks of photographs, and log which photographs are transparent in parts that count as observed.

    Args:
        photos: `PhotoDataset`, or a dataset of another class, of which nothing is known.
        masks: Masks of the photographs, if any.

    Raises:
        InputError: If a mask is missing or does not fit.
    """
    if (masks is None or masks.source != "alpha") and hasattr(photos, "opaque"):
        hidden = sorted({*photos.names} - {*photos.opaque})
        what = "photographs are transparent in parts, whose hidden colors are restored (masks: alpha fills them in)"
        report_names(hidden, len(photos.names), what)
    if masks is not None:
        masks.prepare_predict(photos)


def make_masks(source: str | None, image_size: int, white: White) -> ImageMasks | None:
    """Return the `ImageMasks` of these options, or None without a source.

    Raises:
        InputError: As `ImageMasks`, or if `white` is given without a source.
    """
    if source is None and white != "known":
        raise InputError("masks_white is for mask files: set masks to their folder")
    return None if source is None else ImageMasks(source, image_size, white)
