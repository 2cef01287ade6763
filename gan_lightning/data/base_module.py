"""The base of the LightningDataModules: images packed once, read in batches, made float and flipped on the device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from gan_lightning.data.batches import EpochBatches, ImageDataset, batches_done
from gan_lightning.data.decode import RESIZER, CropResize
from gan_lightning.data.listing import ImageListing
from gan_lightning.data.packed import PackedImages, open_packed
from gan_lightning.data.packing import pack_images
from gan_lightning.data.resident import ResidentBatches, ResidentImages
from gan_lightning.errors import InputError
from gan_lightning.images import to_float

if TYPE_CHECKING:
    from gan_lightning.data.streaming import StreamedBatches

SPLITS_OF_STAGE = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}


class ImageDataModule(L.LightningDataModule):
    """Images in train, val and test splits; the base of all data modules.

    A batch on the device is a dict: "image" (B,C,H,W) float32 in [-1, 1], channels_last; "index" (B) int64, the row in
    the listing of all files; "attributes" (B,A) int8, -1 or 1, where some were asked for.

    Args:
        root: Folder of the images; only read, but by `download` and SyntheticFaces.
        image_size: Height and width that the images are resized to, in pixels.
        channels: 3 for RGB, 1 for grayscale.
        crop: Side of the centred square that is cut out of each file before it is resized, in pixels of the file; null
            for the largest square.
        batch_size: Images in a training batch, on each device.
        eval_batch_size: The most images in a batch of validation and test; batch_size if null.
        flip: Mirror each training image left to right with probability one half.
        resident: Hold all training images in the memory of each device, as uint8 (2 GB for CelebA's train split at
            64 px), so that an epoch reads none from the host; their order and pixels stay the same.
        num_workers: Processes that read batches of packed images; reading is so quick that 0 is enough.
        cache_dir: Folder of the packed images; if null, $GAN_LIGHTNING_CACHE, or gan-lightning in the user's cache.
        auto_pack: Pack the images at the start of a run, where that was not done before; false refuses then, for a job
            that is to spend no time on it: `gan-lightning pack` does it ahead.
        strict: Refuse to start if an image cannot be read, in place of leaving it out with a warning.
        seed: Seed of the order of the images and of the flips, not negative.
    """

    def __init__(
        self,
        root: str,
        *,
        image_size: int = 64,
        channels: int = 3,
        crop: int | None = None,
        batch_size: int = 128,
        eval_batch_size: int | None = None,
        flip: bool = True,
        resident: bool = False,
        num_workers: int = 0,
        cache_dir: str | None = None,
        auto_pack: bool = True,
        strict: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.framing = CropResize(image_size, crop, channels)
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("eval_batch_size", eval_batch_size or batch_size, 1),
            ("num_workers", num_workers, 0),
            ("seed", seed, 0),
        ):
            if value < least:
                raise InputError(f"{name} is {value}: give {least} or more.")
        self.root = Path(root).expanduser()
        self.image_size = image_size
        self.channels = channels
        self.crop = crop
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.flip = flip
        self.resident = resident
        self.num_workers = num_workers
        self.cache_dir = cache_dir
        self.auto_pack = auto_pack
        self.strict = strict
        self.seed = seed
        self._files: ImageListing | None = None
        self._images: PackedImages | None = None
        self._resident: ResidentImages | None = None

    def read_files(self) -> ImageListing:
        """List the images: what a source of images has to define."""
        raise NotImplementedError

    def prepare_data(self) -> None:
        """Pack the images, unless that was done before. Lightning calls it on one process of each node.

        Raises:
            InputError: If they are not packed and `auto_pack` is off; else as `pack_images`.
        """
        files, settings = self.read_files(), {"cache_dir": self.cache_dir, **self._framing_arguments()}
        if not self.auto_pack:
            open_packed(files, **settings)
        pack_images(files, strict=self.strict, **settings)

    def setup(self, stage: str | None = None) -> None:
        """Open the packed images, and refuse what could not train.

        Args:
            stage: "fit", "validate" or "test"; any other checks no split.

        Raises:
            InputError: If a split that the stage needs is empty, or smaller than a batch on each device; if the
                training images are to be resident and the device has no room for them.
        """
        self.open()
        for split in SPLITS_OF_STAGE.get(stage or "", ()):
            if split == "val" and self.trainer is not None and self.trainer.limit_val_batches == 0:
                continue
            if not len(self.dataset(split)):
                raise InputError(f"The {split} split of {self.root} is empty: change the split, or add images to it.")
        if stage == "fit":
            self._check_batch_size()
            if self.trainer is not None and self.trainer.overfit_batches:  # type: ignore[attr-defined]
                raise InputError(
                    "overfit_batches would put Lightning's order of images in place of ours: use limit_train_batches, "
                    "with a max_epochs."
                )
            if self.resident and self._resident is None:
                self._resident = self._move_to_device()

    def open(self) -> None:
        """Open the packed images, unless they are open already."""
        if self._images is None:
            self._files = self.read_files()
            self._images = open_packed(self._files, cache_dir=self.cache_dir, **self._framing_arguments())
            self.name = self._files.name

    def teardown(self, stage: str | None = None) -> None:
        """Free the memory of resident images.

        Args:
            stage: As for `setup`.
        """
        if self._resident is not None:
            self._resident.free()
        self._resident = None

    def __getstate__(self) -> dict[str, Any]:
        """What goes to other processes: each moves resident images to a device of its own."""
        return {**self.__dict__, "_resident": None}

    @property
    def packed(self) -> PackedImages:
        """The packed images. Needs `setup`."""
        if self._images is None:
            raise InputError("The images are not open yet: call prepare_data() and setup() first.")
        return self._images

    def dataset(self, split: str) -> ImageDataset:
        """A split, without the images that could not be read. Needs `setup`.

        Args:
            split: "train", "val", "test" or "all".
        """
        images = self.packed
        assert self._files is not None  # opened with them
        if split != "all" and split not in self._files.splits:
            raise InputError(f"There is no split {split!r}: give {', '.join(self._files.splits)} or all.")
        rows = images.rows
        if split != "all":
            rows = np.intersect1d(self._files.splits[split], rows, assume_unique=True)
        return ImageDataset(images, rows, self._files.attributes)

    def real_images(self, split: str) -> ImageDataset:
        """The images that metrics compare with: `len()`, and `read(positions)` as uint8 (B,C,H,W). Needs `setup`.

        Args:
            split: "train", "val", "test" or "all".
        """
        return self.dataset(split)

    def protocol(self, split: str) -> dict[str, str | int]:
        """Say exactly which pixels the images of a split are, for a metric to state and to key its cache by.

        Args:
            split: "train", "val", "test" or "all".

        Returns:
            Plain values: dataset, split, images (their number), crop, image_size, channels, resizer, and content, a
            SHA-256 in hex of the pixels and the rows of the split.
        """
        dataset = self.dataset(split)
        content = hashlib.sha256(dataset.images.digest.encode() + dataset.rows.astype("<i8").tobytes())
        return {
            "dataset": str(self.name),
            "split": split,
            "images": len(dataset),
            "crop": self.crop or "largest square",
            "image_size": self.image_size,
            "channels": self.channels,
            "resizer": RESIZER,
            "content": content.hexdigest(),
        }

    def train_dataloader(self) -> Iterable[dict[str, Tensor]]:
        """Full batches of a permutation of the train split, a new one each epoch."""
        dataset = self.dataset("train")
        batches = EpochBatches(
            len(dataset),
            self.batch_size,
            shuffle=True,
            drop_last=True,
            seed=self.seed,
            flip_probability=0.5 if self.flip else 0.0,
        )
        self._resume(batches)
        if not self.resident:
            return self._loader(dataset, batches)
        if self._resident is None:
            raise InputError("The images are not on the device: call setup('fit') first.")
        return ResidentBatches(self._resident, dataset, batches)

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """The val split in order, each image once over all ranks."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """The test split in order, each image once over all ranks."""
        return self._evaluation_loader("test")

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Flip, and map to [-1, 1], on the device: a quarter of the bytes cross to it, and no core of the host works.

        Args:
            batch: As `ImageDataset` gives it.
            dataloader_idx: Not used.
        """
        if "flip" not in batch:  # photographs as they are
            return batch
        flip, image = batch.pop("flip"), batch["image"].contiguous(memory_format=torch.channels_last)
        batch["image"] = to_float(torch.where(flip[:, None, None, None], image.flip(-1), image))
        return batch

    def _framing_arguments(self) -> dict[str, Any]:
        return {"image_size": self.image_size, "crop": self.crop, "channels": self.channels}

    def _check_batch_size(self) -> None:
        count, devices = len(self.dataset("train")), self.trainer.world_size if self.trainer is not None else 1
        if count < self.batch_size * devices:
            raise InputError(
                f"A batch of {self.batch_size} on each of {devices} device(s) is more than the {count} images of the "
                f"train split: set batch_size to {count // devices} or less."
            )

    def _move_to_device(self) -> ResidentImages:
        if self.trainer is None:
            return ResidentImages(self.dataset("train"), torch.device("cpu"))
        device, first = self.trainer.strategy.root_device, self.trainer.is_global_zero
        return ResidentImages(self.dataset("train"), device, announce=first)

    def _resume(self, batches: EpochBatches | StreamedBatches) -> None:
        """Leave out what a run that is resumed in the middle of its epoch has seen."""
        if self.trainer is not None:
            batches.resume(self.trainer.current_epoch, batches_done(self.trainer))

    def _evaluation_loader(self, split: str) -> DataLoader[dict[str, Tensor]]:
        dataset = self.dataset(split)
        return self._loader(dataset, EpochBatches(len(dataset), self.eval_batch_size, shuffle=False, drop_last=False))

    def _loader(self, dataset: ImageDataset, batches: EpochBatches) -> DataLoader[dict[str, Tensor]]:
        return DataLoader(
            dataset,
            batch_size=None,
            sampler=batches,
            collate_fn=as_it_is,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


def as_it_is(batch: Any) -> Any:
    """Give a batch that is made of tensors already; by default torch would look through it for arrays."""
    return batch
