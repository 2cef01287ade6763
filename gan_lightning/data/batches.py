"""Batches of images: their order, their distribution over ranks, and datasets that read a whole batch at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler

from gan_lightning import distributed
from gan_lightning.data.decode import CropResize
from gan_lightning.errors import InputError

BatchIndex = tuple[NDArray[np.int64], NDArray[np.bool_]]


class ImageRows(Protocol):
    """Source of the images of a dataset: `PackedImages`, or a stream."""

    crop_resize: CropResize
    digest: str

    def read(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the images of these rows, (B,C,H,W) uint8 in channels_last memory."""


class EpochBatches(DistributedSampler[BatchIndex]):
    """The batches of an epoch as a pure function of seed, epoch and world size, without any random state.

    With `shuffle` an epoch is a permutation of all items that does not depend on the number of ranks. Rank r of W takes
    its items r, r + W, ..., so batch k of all ranks together has the same images as batch k of one rank with a W times
    larger batch. With `drop_last` (training) each rank gets the same number of full batches. Without it (evaluation)
    every item is read exactly once, and the ranks get the same number of batches, of sizes as even as possible. A rank
    that runs out of items gets an empty batch, because the others would wait for it.

    The class is a DistributedSampler so that Lightning leaves it in place and sets its epoch. Use it as
    `DataLoader(dataset, sampler=EpochBatches(...), batch_size=None)`.

    Args:
        num_items: Number of items in the dataset.
        batch_size: Number of items in a batch, per rank.
        shuffle: Permute the items, in a new order each epoch.
        drop_last: Drop items that do not fill a batch.
        seed: Seed of the order and the flips, not negative.
        flip_probability: Probability, in [0, 1], of flipping an item; drawn for each item and epoch.
        num_replicas: Number of ranks. If None, that of torch.distributed, or 1.
        rank: Index of this rank. If None, that of torch.distributed, or 0.

    Yields:
        Positions (B) int64 in [0, num_items), and whether to flip each, (B) bool.
    """

    def __init__(
        self,
        num_items: int,
        batch_size: int,
        *,
        shuffle: bool,
        drop_last: bool,
        seed: int = 0,
        flip_probability: float = 0.0,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"The batch size is {batch_size}: set it to 1 or more.")
        num_replicas = distributed.world_size() if num_replicas is None else num_replicas
        rank = distributed.rank() if rank is None else rank
        super().__init__(range(num_items), num_replicas, rank, shuffle, seed, drop_last)  # type: ignore[arg-type]
        self.num_items = num_items
        self.batch_size = batch_size
        self.flip_probability = flip_probability
        self._resumed = (-1, 0)  # an epoch, and the number of its batches that are already done

    def resume(self, epoch: int, batches_done: int) -> None:
        """Skip the first batches of one epoch, for a run that is resumed in the middle of it.

        Args:
            epoch: The epoch that was interrupted.
            batches_done: Number of its batches to skip, per rank.
        """
        self._resumed = (epoch, batches_done)
        self.set_epoch(epoch)  # worker processes start reading before Lightning sets it

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch on this rank."""
        if self.drop_last:
            return self.num_items // self.num_replicas // self.batch_size
        return math.ceil(math.ceil(self.num_items / self.num_replicas) / self.batch_size)

    def __iter__(self) -> Iterator[BatchIndex]:
        order = np.arange(self.num_items)
        flips = np.zeros(self.num_items, dtype=np.bool_)
        if self.shuffle or self.flip_probability:
            random = np.random.default_rng([self.seed, self.epoch])
            if self.shuffle:
                order = random.permutation(self.num_items)
            flips = random.random(self.num_items) < self.flip_probability
        order, flips = order[self.rank :: self.num_replicas], flips[self.rank :: self.num_replicas]
        if self.drop_last:
            bounds = np.arange(len(self) + 1) * self.batch_size
        else:
            bounds = np.arange(len(self) + 1) * len(order) // max(1, len(self))
        epoch, batches_done = self._resumed
        for start, stop in pairwise(bounds[batches_done if epoch == self.epoch else 0 :]):
            yield order[start:stop], flips[start:stop]


class ImageDataset(Dataset[dict[str, Tensor]]):
    """A split of images, read in whole batches.

    Args:
        images: Source of the images of the whole listing.
        rows: (N) rows of the listing that form the split, without images that cannot be read.
        attributes: (M,A) int8 for the whole listing, or None.
        labels: (M) int64 for the whole listing, or None.
    """

    def __init__(
        self,
        images: ImageRows,
        rows: NDArray[np.int64],
        attributes: NDArray[np.int8] | None = None,
        labels: NDArray[np.int64] | None = None,
    ) -> None:
        self.images = images
        self.rows = rows
        self.attributes = attributes
        self.labels = labels

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, positions: NDArray[np.int64]) -> Tensor:
        """Read the images at positions (B) in [0, N), without other keys: (B,C,H,W) uint8 in channels_last memory."""
        return self.images.read(self.rows[positions])

    def __getitem__(self, batch: BatchIndex) -> dict[str, Tensor]:
        """Return a batch with the keys of a loader in the table of `ImageDataModule`."""
        positions, _ = batch
        return {"image": self.read(positions), **self.describe(batch)}

    def describe(self, batch: BatchIndex) -> dict[str, Tensor]:
        """Return all keys of a batch except "image"."""
        positions, flips = batch
        rows = self.rows[positions]
        items = {"index": torch.from_numpy(rows), "flip": torch.from_numpy(flips.copy())}
        if self.attributes is not None:
            items["attributes"] = torch.from_numpy(self.attributes[rows])
        if self.labels is not None:
            items["label"] = torch.from_numpy(self.labels[rows])
        return items


def batches_done(trainer: Any) -> int:
    """Return the number of batches of the current epoch that a just resumed run has already seen; otherwise 0."""
    loop = trainer.fit_loop
    # Lightning also asks for loaders at other times, when the count is still that of the previous epoch.
    return int(loop.epoch_loop.batch_progress.current.ready) if loop.restarting else 0
