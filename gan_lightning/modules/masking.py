"""Masks that each image has for itself: its own transparency, or a file of its name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gan_lightning.degradations import Compose, Degradation, Identity, Mask, read_masks
from gan_lightning.errors import InputError

AT_ONCE = 256  # masks that are held in memory while all are checked


class ImageMasks:
    """Finds the masks of the images of a batch.

    Args:
        source: "alpha", or a folder of masks named like the images, white where pixels are known.
        image_size: Height and width of the masks.

    Attributes:
        listed: Names of the data's images by index, for batches that do not bring their names.

    Raises:
        InputError: A folder that is not there.
    """

    def __init__(self, source: str, image_size: int) -> None:
        if source != "alpha" and not Path(source).is_dir():
            raise InputError(f"masks {source} is no folder: give alpha, or a folder of masks named like the images")
        self.source, self.image_size = source, image_size
        self.listed: Sequence[str] = []

    def describe(self) -> str:
        """Digest the source: its name and, of a folder, the names and bytes of its files."""
        if self.source == "alpha":
            return self.source
        digest = hashlib.sha256()
        for path in sorted(path for path in Path(self.source).iterdir() if path.is_file()):
            digest.update(path.name.encode(errors="surrogateescape") + b"\0" + path.read_bytes())
        return f"{self.source} {digest.hexdigest()[:16]}"

    def check(self, names: Sequence[str]) -> None:
        """Refuse masks that are missing or do not fit.

        Raises:
            InputError: It names the mask.
        """
        if self.source != "alpha":
            for first in range(0, len(names), AT_ONCE):
                read_masks(self.source, names[first : first + AT_ONCE], self.image_size)

    def after(self, degradation: Degradation, batch: dict[str, Any], rows: list[int]) -> Degradation:
        """Give a degradation followed by the masks of some images of a batch."""
        if self.source == "alpha":
            mask = Mask(batch["alpha"][rows].clone() > 0.5)
        else:
            names = batch["name"] if "name" in batch else [self.listed[index] for index in batch["index"].tolist()]
            mask = read_masks(self.source, [names[row] for row in rows], self.image_size)
        mask = mask.to(batch["image"].device)
        return mask if isinstance(degradation, Identity) else Compose([degradation, mask])
