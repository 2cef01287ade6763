"""The data module of any tree of image files, split by a seed."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor
from torch.utils.data import DataLoader

from gan_lightning.data.labels import labeled_by_folder
from gan_lightning.data.listing import ImageListing, read_folder
from gan_lightning.data.packed_data_module import PackedDataModule
from gan_lightning.data.photos import photo_format_of, photo_loader


class ImageFolder(PackedDataModule):
    """Any tree of image files (jpg, png, webp, bmp, tif, gif, avif, jp2, ppm, ...), with a seeded split.

    Args:
        root: Folder of the images. Hidden files, links to folders and links out of the root are skipped.
        split_fractions: Fractions of train, val and test, which sum to 1.
        split_seed: Seed of the split, which depends only on the seed and the names of the files.
        labels: "folder" for classes, root/CLASS/*.png, named after their folders; null for no labels.
        **common: Options of PackedDataModule.
    """

    def __init__(
        self,
        root: str,
        *,
        split_fractions: tuple[float, float, float] = (0.9, 0.05, 0.05),
        split_seed: int = 0,
        labels: Literal["folder"] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(root, **common)
        self.split_fractions = split_fractions
        self.split_seed = split_seed
        self.labels = labels

    def read_files(self) -> ImageListing:
        """List the images below the root."""
        listing = read_folder(self.root, self.split_fractions, self.split_seed)
        return labeled_by_folder(listing) if self.labels else listing

    def prepare_data(self) -> None:
        """Pack the images; `predict` reads the files themselves."""
        if self.trainer is None or self.trainer.state.fn != "predict":
            super().prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Open the packed images; `predict` reads the files themselves.

        Args:
            stage: As for `ImageDataModule.setup`.
        """
        if stage != "predict":
            super().setup(stage)

    def predict_dataloader(self) -> DataLoader[dict[str, Tensor | list[str]]]:
        """Return all images as photographs in the format of the model; `Photos` can also crop and resize them.

        Raises:
            InputError: If the model does not take photographs, or these do not fit.
        """
        return photo_loader(self.root, photo_format_of(self), self.eval_batch_size, self.num_workers)

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Flip and map to [-1, 1], as for all data; photographs are passed on unchanged."""
        return super().on_after_batch_transfer(batch, dataloader_idx) if "flip" in batch else batch
