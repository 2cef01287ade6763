"""Masks of single images: their own transparency, or files of the same name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gan_lightning.degradations import Compose, Degradation, Identity, Mask, read_masks
from gan_lightning.errors import InputError

AT_ONCE = 256  # masks in memory while all of them are checked


class ImageMasks:
    """Masks of the images of a batch.

    Args:
        source: "alpha", or a folder of masks named like the images, white where pixels are known.
        image_size: Height and width of the masks.

    Raises:
        InputError: If the folder does not exist.
    """

    def __init__(self, source: str, image_size: int) -> None:
        if source != "alpha" and not Path(source).is_dir():
            raise InputError(f"masks {source} is no folder: give alpha, or a folder of masks named like the images")
        self.source, self.image_size = source, image_size
        self._names: Sequence[str] = []  # by index, for batches without names

    def describe(self) -> str:
        """Return the source and, for a folder, a digest of the names and contents of its files."""
        if self.source == "alpha":
            return self.source
        digest = hashlib.sha256()
        for path in sorted(path for path in Path(self.source).iterdir() if path.is_file()):
            digest.update(path.name.encode(errors="surrogateescape") + b"\0" + path.read_bytes())
        return f"{self.source} {digest.hexdigest()[:16]}"

    def prepare_test(self, data: Any) -> None:
        """Look up the names of the images of a test split, and check their masks.

        Args:
            data: Data module.

        Raises:
            InputError: If the data have no transparency or no file names, or a mask is missing or does not fit.
        """
        if self.source == "alpha":
            raise InputError("masks: alpha needs photographs with transparency, in predict: give a folder of masks")
        try:
            self._names = data.read_files().names
        except (AttributeError, NotImplementedError) as error:  # bare loaders, streams
            raise InputError("masks go by the names of files: give test a data module that reads files") from error
        self.check([self._names[row] for row in data.dataset("test").rows])

    def check(self, names: Sequence[str]) -> None:
        """Raise if the mask of an image of these names is missing or does not fit.

        Raises:
            InputError: If there is such a mask, which the message names.
        """
        if self.source != "alpha":
            for first in range(0, len(names), AT_ONCE):
                read_masks(self.source, names[first : first + AT_ONCE], self.image_size)

    def after(self, degradation: Degradation, batch: dict[str, Any], rows: list[int]) -> Degradation:
        """Return a degradation followed by the masks of some images of a batch."""
        if self.source == "alpha":
            mask = Mask(batch["alpha"][rows].clone() > 0.5)
        else:
            names = batch["name"] if "name" in batch else [self._names[index] for index in batch["index"].tolist()]
            mask = read_masks(self.source, [names[row] for row in rows], self.image_size)
        mask = mask.to(batch["image"].device)
        return mask if isinstance(degradation, Identity) else Compose([degradation, mask])
