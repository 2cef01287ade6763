"""The base class of data modules whose images are packed once, and then read from a memory map."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from gan_lightning.data.batches import ImageDataset
from gan_lightning.data.image_data_module import ImageDataModule
from gan_lightning.data.listing import ImageListing
from gan_lightning.data.packed import PackedImages, open_packed
from gan_lightning.data.packing import pack_images
from gan_lightning.errors import InputError


class PackedDataModule(ImageDataModule):
    """Images on disk that are decoded, cropped and resized once, into the cache.

    Args:
        root: Folder of the images. It is only read, except by `download` and SyntheticFaces.
        auto_pack: Pack the images at the start of a run if they are not packed yet. If false, such a run is refused,
            for jobs that should spend no time on packing: run `gan-lightning pack` before them.
        **common: Options of ImageDataModule.
    """

    def __init__(self, root: str, *, auto_pack: bool = True, **common: Any) -> None:
        super().__init__(**common)
        self.root = Path(root).expanduser()
        self.auto_pack = auto_pack
        self._listing: ImageListing | None = None
        self._packed: PackedImages | None = None

    @property
    def source(self) -> str:
        """The folder of the images."""
        return str(self.root)

    @abstractmethod
    def read_files(self) -> ImageListing:
        """List the images."""

    def prepare_data(self) -> None:
        """Pack the images unless they are packed already. Lightning calls this on one process of each node.

        Raises:
            InputError: If they are not packed and `auto_pack` is off; otherwise as for `pack_images`.
        """
        listing, settings = self.read_files(), self._pack_settings()
        listing.report_left_out()
        if not self.auto_pack:
            open_packed(listing, **settings)
        pack_images(listing, strict=self.strict, **settings)

    def open(self) -> None:
        """Open the packed images, unless they are open already.

        Raises:
            InputError: If there is no pack of the images in their current state.
        """
        if self._packed is None:
            self._listing = self.read_files()
            self._packed = open_packed(self._listing, **self._pack_settings())
            self.name, self.class_names = self._listing.name, self._listing.class_names

    @property
    def packed(self) -> PackedImages:
        """The packed images. Needs `setup`."""
        if self._packed is None:
            raise InputError("The images are not open yet: call prepare_data() and setup() first.")
        return self._packed

    def dataset(self, split: str) -> ImageDataset:
        """Return a split, without the images that could not be read. Needs `setup`.

        Args:
            split: "train", "val", "test" or "all".

        Raises:
            InputError: If the split does not exist, or the images are not open yet.
        """
        packed = self.packed
        assert self._listing is not None  # opened together with the pack
        if split != "all" and split not in self._listing.splits:
            raise InputError(f"There is no split {split!r}: choose {', '.join(self._listing.splits)} or all.")
        rows = packed.rows
        if split != "all":
            rows = np.intersect1d(self._listing.splits[split], rows, assume_unique=True)
        return ImageDataset(packed, rows, self._listing.attributes, self._listing.labels)

    def _pack_settings(self) -> dict[str, Any]:
        return {
            "image_size": self.image_size,
            "crop": self.crop,
            "channels": self.channels,
            "cache_dir": self.cache_dir,
        }
