"""The data module of faces rendered by the package."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gan_lightning.data.cache import exclusive_root
from gan_lightning.data.celeba import read_celeba
from gan_lightning.data.listing import ImageListing
from gan_lightning.data.packed_data_module import PackedDataModule
from gan_lightning.errors import InputError


class SyntheticFaces(PackedDataModule):
    """Synthetic faces in the layout of CelebA, rendered on first use.

    Args:
        root: Folder to which celeba/ is written.
        count: Number of faces.
        faces_seed: Seed of the faces; `seed` is the seed of their order in training.
        crop: Side of the centered square that is cropped from each 178x218 file; null for the largest square, 178.
        attributes: Names of the attributes in batches (Smiling, Eyeglasses, ...).
        labels: Names of the attributes whose combinations are the classes of the images, as for CelebA.
        **common: Options of PackedDataModule.
    """

    def __init__(
        self,
        root: str = "data/synthetic",
        *,
        count: int = 20000,
        faces_seed: int = 0,
        crop: int | None = 178,
        attributes: list[str] | None = None,
        labels: list[str] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(root, crop=crop, **common)
        if count < 1:
            raise InputError(f"count is {count}: set it to 1 or more.")
        self.attributes, self.labels = attributes or [], labels or []
        self.count = count
        self.faces_seed = faces_seed

    def read_files(self) -> ImageListing:
        """List the first `count` faces below the root, which may hold more."""
        listing = read_celeba(self.root, self.attributes, self.labels)
        return replace(
            listing,
            name="synthetic_faces",
            names=listing.names[: self.count],
            splits={split: rows[rows < self.count] for split, rows in listing.splits.items()},
            attributes=None if listing.attributes is None else listing.attributes[: self.count],
            labels=None if listing.labels is None else listing.labels[: self.count],
        )

    def prepare_data(self) -> None:
        """Render missing faces, then pack them."""
        from gan_lightning.faces.synthesis import synthesize

        with exclusive_root(self.root, self.cache_dir):
            synthesize(self.root, count=self.count, seed=self.faces_seed)
        super().prepare_data()
