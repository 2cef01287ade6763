"""Images streamed from a folder or an object store by litdata, for sources larger than a disk.

This module is imported only when it is used, because litdata is an extra: `pip install gan-lightning[streaming]`.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from litdata import StreamingDataLoader, StreamingDataset  # type: ignore[import-not-found, import-untyped, unused-ignore]
from litdata.streaming.sampler import ChunkedIndex  # type: ignore[import-not-found, import-untyped, unused-ignore]
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gan_lightning.data.cache import make_cache_dir
from gan_lightning.data.decode import CropResize, CropTooLargeError, to_pixels, turn_upright
from gan_lightning.data.stream_formats import SERIALIZERS, check_formats
from gan_lightning.errors import InputError, first_line

Item = tuple[int, NDArray[np.uint8], bool, str, int | None]


class StreamedSplit:
    """One split of a source, read item by item in any order; the counterpart of `PackedImages`.

    Args:
        url: Folder of the split, written by `litdata.optimize`: a path, or the address (s3://, gs://, ...) of a folder
            in an object store.
        crop_resize: Crop, size and channels of the pixels.
        cache_dir: Folder of the chunks that are fetched; `default_cache_dir()` if None.
        num_classes: Number of classes, for items with labels; 0 to ignore labels.

    Attributes:
        crop_resize: Crop, size and channels of the pixels.
        digest: SHA-256 in hex of crop_resize and of the source's index, which states when it was written.
        count: Number of images.

    Raises:
        InputError: If the source does not exist, or cannot be reached.
    """

    def __init__(self, url: str, crop_resize: CropResize, cache_dir: str | None = None, num_classes: int = 0) -> None:
        self.url, self.crop_resize, self.cache_dir, self.num_classes = url, crop_resize, cache_dir, num_classes
        self._process = os.getpid()
        self._stream = CroppedStream(self, drop_last=False)
        self.count = sum(stop - start for start, stop in self._stream.region_of_interest)
        index = (Path(self._stream.input_dir.path) / "index.json").read_bytes()
        check_formats(index, url)
        self.digest = hashlib.sha256(index + repr((url, crop_resize)).encode()).hexdigest()

    def __reduce__(self) -> tuple[type[StreamedSplit], tuple[str, CropResize, str | None, int]]:
        return StreamedSplit, (self.url, self.crop_resize, self.cache_dir, self.num_classes)

    def read(self, rows: NDArray[np.int64]) -> Tensor:
        """Read a batch, image by image.

        Args:
            rows: (B) positions in the split.

        Returns:
            (B,C,H,W) uint8 in channels_last memory.

        Raises:
            InputError: If an image cannot be read.
        """
        return self.read_labeled(rows)[0]

    def read_labeled(self, rows: NDArray[np.int64]) -> tuple[Tensor, list[int | None]]:
        """Read a batch as `read` does, and the labels (B) of its images, None if there are no classes."""
        if self._process != os.getpid():  # forked: the threads and locks of the stream belong to the parent
            self._process, self._stream = os.getpid(), CroppedStream(self, drop_last=False)
        pixels = np.empty((len(rows), *self.crop_resize.shape), np.uint8)
        labels = []
        for place, row in enumerate(rows):
            _, pixels[place], _, reason, label = self._stream[int(row)]
            if reason:  # a metric must use exactly these images
                raise InputError(f"{reason}: write that split again without it.")
            labels.append(label)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2), labels

    def batches(self, batch_size: int, *, seed: int, flip_probability: float, num_workers: int) -> StreamedBatches:
        """Return the batches of training: chunk after chunk, in a new order each epoch, shared by the ranks.

        Args:
            batch_size: Number of images in a batch, per rank.
            seed: Seed of the order and the flips.
            flip_probability: Probability of flipping an image.
            num_workers: Number of worker processes that fetch and decode.
        """
        stream = CroppedStream(self, drop_last=True, shuffle=True, seed=seed, flip_probability=flip_probability)
        return StreamedBatches(
            StreamingDataLoader(
                stream,
                batch_size=batch_size,
                num_workers=num_workers,
                collate_fn=collate,
                pin_memory=torch.cuda.is_available(),
            )
        )


class StreamedBatches:
    """The batches of an epoch as a function of only seed, epoch and ranks, independent of earlier reads.

    The class wraps the loader of litdata, whose own state is ahead of the training by the batches read in advance.

    Args:
        loader: Loader of litdata for a `CroppedStream`.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.epoch = 0
        self.sampler = self  # Lightning sets the epoch on it
        self._resumed = (-1, 0)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch

    def resume(self, epoch: int, batches_done: int) -> None:
        """Skip the first batches of one epoch without fetching them, see `EpochBatches.resume`."""
        self._resumed = (epoch, batches_done)
        self.set_epoch(epoch)

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch on this rank."""
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch, done = self._resumed
        loader, done = self.loader, done if epoch == self.epoch else 0
        if done >= len(self):
            return
        loader.restore = False  # do not continue an unfinished epoch
        loader.current_epoch = self.epoch  # litdata increments it, and counts epochs from 1
        if done:
            items, number = done * loader.batch_size, self.epoch + 1
            state = loader.dataset.state_dict(items, loader.num_workers, loader.batch_size) | {"current_epoch": number}
            worker = (done - 1) % max(1, loader.num_workers)
            loader.load_state_dict(
                {"dataset": state, "current_epoch": number, "num_samples_yielded": items, "latest_worker_idx": worker}
            )
        yield from loader


class CroppedStream(StreamingDataset):  # type: ignore[misc, unused-ignore]
    """Stream of the cropped images of a split.

    An item consists of the position, the pixels (H,W,C) uint8, whether to flip them, the reason why they could not be
    read or "", and the label or None.
    """

    def __init__(
        self,
        source: StreamedSplit,
        *,
        drop_last: bool,
        shuffle: bool = False,
        seed: int = 0,
        flip_probability: float = 0.0,
    ) -> None:
        self._url, self._crop_resize, self._flip_probability = source.url, source.crop_resize, flip_probability
        self._num_classes = source.num_classes
        cache = str(make_cache_dir(source.cache_dir) / "streams")
        try:
            order = {"shuffle": shuffle, "drop_last": drop_last, "seed": seed}
            super().__init__(source.url, cache_dir=cache, serializers=SERIALIZERS, **order)
        except Exception as error:  # a missing folder, index or network, or missing credentials raise different classes
            reason = first_line(error)
            if isinstance(error, ModuleNotFoundError):  # such as google-cloud-storage; the address may be right
                raise InputError(f"{source.url} cannot be streamed: {reason}") from error
            raise InputError(
                f"{source.url} cannot be streamed ({reason}): give the folder or address that holds train/, val/ and "
                "test/ as litdata.optimize writes them."
            ) from error

    def __getitem__(self, index: Any) -> Item:
        position = int(index.index if isinstance(index, ChunkedIndex) else index)
        name, reason = f"Image {position} of {self._url}", ""
        stored = None
        try:
            stored = super().__getitem__(index)
            pixels = to_pixels(turn_upright(to_pillow(stored)), self._crop_resize, name)
        except (CropTooLargeError, MemoryError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:  # not a problem of the image
                raise InputError(
                    f"{name} cannot be fetched ({error}): check the source, and resume with --ckpt_path last."
                ) from error
            reason = f"{name} cannot be read ({first_line(error)})"
            pixels = np.zeros(self._crop_resize.shape, dtype=np.uint8)
        label = None
        if self._num_classes:
            label = 0 if reason else to_label(stored, self._num_classes, name)
        flip = False
        if self._flip_probability:
            random = np.random.default_rng([self.seed, self.current_epoch, position])
            flip = bool(random.random() < self._flip_probability)
        return position, pixels, flip, reason, label


def to_label(item: Any, num_classes: int, name: str) -> int:
    """Return the label of an item.

    Args:
        item: A dict with an integer under "label".
        num_classes: Number of classes.
        name: Name of the image, for messages.

    Raises:
        InputError: If the label is missing, or not in [0, num_classes).
    """
    label = item.get("label") if isinstance(item, dict) else None
    if not isinstance(label, int | np.integer | Tensor) or not 0 <= int(label) < num_classes:
        has = "no label" if label is None else f"the label {label}"
        raise InputError(
            f"{name} has {has}: data.num_classes is {num_classes}, so that every item needs an integer from 0 to "
            f'{num_classes - 1} under "label"'
        )
    return int(label)


def to_pillow(item: Any) -> Image.Image:
    """Return the image of an item.

    Args:
        item: A Pillow image, the bytes of a file, a NumPy array (H,W) or (H,W,C) uint8, a torch tensor (C,H,W) uint8,
            or a dict with one of these under "image".

    Raises:
        TypeError: If the item is none of these.
    """
    if isinstance(item, dict):
        item = item.get("image")
    if isinstance(item, bytes | memoryview):  # litdata returns bytes as a view
        return Image.open(io.BytesIO(item))
    if isinstance(item, Tensor):
        item = item.permute(1, 2, 0).contiguous().numpy()
    if isinstance(item, np.ndarray) and item.dtype == np.uint8:
        return Image.fromarray(item[..., 0] if item.shape[2:] == (1,) else item)
    if isinstance(item, Image.Image):
        return item
    raise TypeError(f"a {type(item).__name__} is not an image")


def collate(items: list[Item]) -> dict[str, Any]:
    """Collate a batch like those of `ImageDataset`, replacing images that could not be read by others.

    Args:
        items: Items of a `CroppedStream`.

    Returns:
        The batch. If images could not be read, "unreadable" lists the reasons; if all could not, they are zeros.
    """
    reasons = [item[3] for item in items if item[3]]
    good = [item for item in items if not item[3]] or items
    items = [good[place % len(good)] if item[3] else item for place, item in enumerate(items)]
    positions, pixels, flips, _, labels = zip(*items, strict=True)
    batch: dict[str, Any] = {
        "image": torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2),
        "index": torch.tensor(positions),
        "flip": torch.tensor(flips),
    }
    if labels[0] is not None:
        batch["label"] = torch.tensor(labels)
    return {**batch, "unreadable": reasons} if reasons else batch
