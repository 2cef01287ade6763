"""The data module of images streamed by litdata, for sources larger than a disk."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gan_lightning.data.batches import BatchIndex, ImageDataset
from gan_lightning.data.image_data_module import ImageDataModule
from gan_lightning.data.listing import SPLITS
from gan_lightning.errors import InputError

if TYPE_CHECKING:
    from gan_lightning.data.streaming import StreamedBatches

logger = logging.getLogger(__name__)


class StreamedDataset(ImageDataset):
    """A split whose labels are stored with the images, and only known when these are read."""

    def __getitem__(self, batch: BatchIndex) -> dict[str, Tensor]:
        """Return a batch with the keys of a loader in the table of `ImageDataModule`."""
        images: Any = self.images
        pixels, labels = images.read_labeled(self.rows[batch[0]])
        items = {"image": pixels, **self.describe(batch)}
        return {**items, "label": torch.tensor(labels, dtype=torch.int64)} if images.num_classes else items


class StreamedImages(ImageDataModule):
    """Images streamed by litdata (`pip install gan-lightning[streaming]`), for sources larger than a disk.

    The source contains the folders train, val and test, each written by `litdata.optimize`. An item is an image, or a
    dict with an image under "image": a Pillow image, the bytes of a file, or a uint8 array. Chunks are fetched when
    they are needed. An epoch visits the chunks in a seeded order, and the images of each chunk in a seeded order. The
    ranks share the chunks, and images that do not fill a batch are left out. In training, an image that cannot be read
    is reported and counted, and another image of its batch takes its place (`strict: true` raises an error instead); in
    evaluation it is an error.

    Args:
        root: A folder, or the address of a folder in an object store: s3://bucket/faces.
        num_workers: Number of worker processes that fetch and decode.
        num_classes: Number of classes, if items are dicts with an integer under "label"; 0 to ignore labels.
        **common: Options of ImageDataModule.
    """

    def __init__(self, root: str, *, num_workers: int = 4, num_classes: int = 0, **common: Any) -> None:
        super().__init__(num_workers=num_workers, **common)
        if num_classes and self.resident:
            raise InputError("resident images of a stream have no labels: leave resident or num_classes out")
        self.class_names = tuple(map(str, range(num_classes)))
        self.resident = bool(self.resident)  # by default, do not fetch every image before the first step
        self.url = root.rstrip("/")
        self._splits: dict[str, ImageDataset] = {}
        self._left_out = 0  # images of the training batches so far

    @property
    def source(self) -> str:
        """The folder or address of the images."""
        return self.url

    def open(self) -> None:
        """Check that litdata is installed. Splits are opened when they are needed.

        Raises:
            InputError: If litdata is not installed.
        """
        self.name = self.url.rsplit("/", 1)[-1]
        if find_spec("litdata") is None:
            raise InputError("StreamedImages needs litdata: pip install 'gan-lightning[streaming]'.")

    def dataset(self, split: str) -> ImageDataset:
        """Return a split whose images are fetched one by one, which is suited to evaluation but slow for epochs.

        Args:
            split: "train", "val" or "test".

        Raises:
            InputError: If the split does not exist or cannot be streamed.
        """
        if split not in SPLITS:
            raise InputError(f"There is no split {split!r}: choose {', '.join(SPLITS)}.")
        if split not in self._splits:
            from gan_lightning.data.streaming import StreamedSplit  # litdata is optional

            images = StreamedSplit(f"{self.url}/{split}", self.crop_resize, self.cache_dir, len(self.class_names))
            self._splits[split] = StreamedDataset(images, np.arange(images.count))
        return self._splits[split]

    def read_train(self) -> Iterable[dict[str, Tensor]]:
        """Return full batches of the train split, chunk after chunk, in a new order each epoch."""
        images: Any = self.dataset("train").images
        batches: StreamedBatches = images.batches(
            self.batch_size,
            seed=self.seed,
            flip_probability=self.flip_probability,
            num_workers=self.num_workers,
        )
        self._resume(batches)
        return batches

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Tensor]:
        """Report images that could not be read; then flip and map to [-1, 1], as for all data.

        Args:
            batch: A batch of `collate`.
            dataloader_idx: Not used.

        Raises:
            InputError: If an image could not be read, and `strict` is set or the batch has no other image.
        """
        reasons: list[str] = batch.pop("unreadable", [])
        if reasons and (self.strict or len(reasons) == len(batch["index"])):
            raise InputError(f"{reasons[0]}: write the source again without it.")
        for reason in reasons:
            logger.warning("%s: another of its batch takes its place", reason)
        self._left_out += len(reasons)
        return super().on_after_batch_transfer(batch, dataloader_idx)

    def teardown(self, stage: str | None = None) -> None:
        """Report the number of images that were left out, and free the memory of resident images."""
        if self._left_out:
            logger.warning("%d times an image of %s could not be read and was left out", self._left_out, self.url)
            self._left_out = 0
        super().teardown(stage)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for another process, which opens the source itself."""
        return {**super().__getstate__(), "_splits": {}}
