"""The abstract base class of the data modules: splits and loaders for any source of images."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from gan_lightning.data.batches import EpochBatches, ImageDataset, batches_done
from gan_lightning.data.decode import RESIZER, CropResize
from gan_lightning.data.labels import count_classes
from gan_lightning.data.resident import ResidentBatches, ResidentImages, fit_easily
from gan_lightning.errors import InputError
from gan_lightning.images import to_float
from gan_lightning.seeding import global_seed

if TYPE_CHECKING:
    from gan_lightning.data.streaming import StreamedBatches

SPLITS_OF_STAGE = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}


class ImageDataModule(L.LightningDataModule, ABC):
    """Base class of data modules with images in train, val and test splits; subclasses define the source of the images.

    A batch is a dict. On the device, `on_after_batch_transfer` converts the batch of a loader to the batch of a step:

    =============  ==========================================  ====================================================
    key            from a loader                               in a step of a module
    =============  ==========================================  ====================================================
    "image"        (B,C,H,W) uint8 in [0, 255], channels_last  (B,C,H,W) float32 in [-1, 1], channels_last, flipped
    "index"        (B) int64, row in the listing of all files  the same
    "flip"         (B) bool, whether to mirror the image       absent
    "attributes"   (B,A) int8, -1 or 1, if any were requested  the same
    "label"        (B) int64, class, if labels were requested  the same
    =============  ==========================================  ====================================================

    The order of the batches is a function of seed, epoch and number of ranks only, so that a run resumed in the middle
    of an epoch sees exactly the remaining images.

    Args:
        image_size: Height and width to which the images are resized, in pixels.
        channels: 3 for RGB, 1 for grayscale.
        crop: Side of the centered square to which each file is cropped before resizing, in pixels of the file; null for
            the largest square.
        batch_size: Number of images in a training batch, per device.
        eval_batch_size: Maximum number of images in a batch of validation and test; batch_size if null.
        flip: Mirror each training image left to right with probability one half.
        resident: Keep all training images in the memory of each device as uint8 (2 GB for CelebA's train split at
            64 px), so that an epoch reads none from the host. Their order and pixels do not change. If null, images are
            resident if they fit into a quarter of the free memory of a GPU and there are no worker processes.
        num_workers: Number of worker processes that read batches. For packed images, 0 is fast enough.
        cache_dir: Folder of derived data. If null, $GAN_LIGHTNING_CACHE, or gan-lightning in the user's cache.
        strict: Raise an error for images that cannot be read, instead of leaving them out with a warning.
        seed: Seed of the order of the images and of the flips, not negative; null for that of `seed_everything`.

    Attributes:
        name: Name of the dataset as it appears in the protocol of a metric.
        class_names: Names of the classes, by label; none if no labels were requested. Needs `setup`.

    Raises:
        InputError: If an option is out of range.
    """

    name: str = ""
    class_names: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        image_size: int = 64,
        channels: int = 3,
        crop: int | None = None,
        batch_size: int = 128,
        eval_batch_size: int | None = None,
        flip: bool = True,
        resident: bool | None = None,
        num_workers: int = 0,
        cache_dir: str | None = None,
        strict: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.crop_resize = CropResize(image_size, crop, channels)
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("eval_batch_size", eval_batch_size or batch_size, 1),
            ("num_workers", num_workers, 0),
            ("seed", seed or 0, 0),
        ):
            if value < least:
                raise InputError(f"{name} is {value}: set it to {least} or more.")
        self.image_size = image_size
        self.channels = channels
        self.crop = crop
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.flip = flip
        self.resident = resident
        self.num_workers = num_workers
        self.cache_dir = cache_dir
        self.strict = strict
        self._given_seed = seed
        self._resumed_seed: int | None = None
        self._resident: ResidentImages | None = None

    @property
    def seed(self) -> int:
        """Seed of the order of the images and of the flips; a resumed run keeps its original seed."""
        seeds = self._given_seed, self._resumed_seed, global_seed()
        return next(seed for seed in seeds if seed is not None)

    def state_dict(self) -> dict[str, Any]:
        """Return the seed for the checkpoint."""
        return {"seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the seed."""
        self._resumed_seed = state_dict["seed"]

    @property
    @abstractmethod
    def source(self) -> str:
        """The folder or address of the images, for messages."""

    @abstractmethod
    def open(self) -> None:
        """Open the source, unless it is open already, and set `name`."""

    @abstractmethod
    def dataset(self, split: str) -> ImageDataset:
        """Return a split. Needs `setup`.

        Args:
            split: "train", "val" or "test"; "all" if the source can be read as a whole.

        Raises:
            InputError: If the split does not exist, or the source is not open.
        """

    def setup(self, stage: str | None = None) -> None:
        """Open the source, and check that the splits suffice for the stage.

        Args:
            stage: "fit", "validate" or "test". Any other stage checks no split.

        Raises:
            InputError: If a split that the stage needs is empty or smaller than a batch on each device, if a class has
                no training image, or if resident images do not fit into the memory of the device.
        """
        self.open()
        for split in SPLITS_OF_STAGE.get(stage or "", ()):
            if split == "val" and self.trainer is not None and self.trainer.limit_val_batches == 0:
                continue
            if not len(self.dataset(split)):
                raise InputError(f"The {split} split of {self.source} is empty: change the split, or add images to it.")
        if stage == "fit":
            self._check_batch_size()
            self.class_counts()
            if self.trainer is not None and self.trainer.overfit_batches:  # type: ignore[attr-defined]
                raise InputError(
                    "overfit_batches would replace our order of the images by Lightning's: use limit_train_batches "
                    "with a max_epochs."
                )
            if self._resident is None and self._holds_images():
                self._resident = self._move_to_device()

    def teardown(self, stage: str | None = None) -> None:
        """Free the memory of resident images."""
        if self._resident is not None:
            self._resident.free()
        self._resident = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for another process, which moves resident images to its own device."""
        return {**self.__dict__, "_resident": None}

    def real_images(self, split: str) -> ImageDataset:
        """Return the images for metrics: `len()`, and `read(positions)` as uint8 (B,C,H,W). Needs `setup`."""
        return self.dataset(split)

    def protocol(self, split: str) -> dict[str, str | int]:
        """Describe exactly which pixels a split has; metrics log this and use it as the key of a cache. Needs `setup`.

        Args:
            split: As for `dataset`.

        Returns:
            Plain values: dataset, split, images (their number), crop, image_size, channels, resizer, and content, a
            SHA-256 in hex of the pixels and the rows of the split, and of the labels if there are any.
        """
        dataset = self.dataset(split)
        content = hashlib.sha256(dataset.images.digest.encode() + dataset.rows.astype("<i8").tobytes())
        if dataset.labels is not None:
            content.update(repr(self.class_names).encode() + dataset.labels[dataset.rows].astype("<i8").tobytes())
        return {
            "dataset": self.name,
            "split": split,
            "images": len(dataset),
            "crop": self.crop or "largest square",
            "image_size": self.image_size,
            "channels": self.channels,
            "resizer": RESIZER,
            "content": content.hexdigest(),
        }

    def class_counts(self) -> NDArray[np.int64] | None:
        """Return the number of training images of each class, or None if it is unknown. Needs `setup`.

        Raises:
            InputError: If a class has no image.
        """
        if not self.class_names or (dataset := self.dataset("train")).labels is None:
            return None
        return count_classes(dataset, self.class_names, self.source)

    def train_dataloader(self) -> Iterable[dict[str, Tensor]]:
        """Return full batches of the train split, in a new order each epoch."""
        if self._resident is None:
            if self.resident:
                raise InputError("The images are not on the device: call setup('fit') first.")
            return self.read_train()
        dataset = self.dataset("train")
        return ResidentBatches(self._resident, dataset, self._permutation(dataset))

    def read_train(self) -> Iterable[dict[str, Tensor]]:
        """Return the batches of `train_dataloader`, read from the source."""
        dataset = self.dataset("train")
        return self._loader(dataset, self._permutation(dataset))

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Return the val split in order, each image once over all ranks."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Return the test split in order, each image once over all ranks."""
        return self._evaluation_loader("test")

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Flip the images and map them to [-1, 1] on the device, so that only uint8 values are transferred."""
        flip, image = batch.pop("flip"), batch["image"].contiguous(memory_format=torch.channels_last)
        batch["image"] = to_float(torch.where(flip[:, None, None, None], image.flip(-1), image))
        return batch

    @property
    def flip_probability(self) -> float:
        """Probability that a training image is mirrored."""
        return 0.5 if self.flip else 0.0

    def _check_batch_size(self) -> None:
        count, devices = len(self.dataset("train")), self.trainer.world_size if self.trainer is not None else 1
        if count < self.batch_size * devices:
            raise InputError(
                f"A batch of {self.batch_size} on each of {devices} device(s) is more than the {count} images of the "
                f"train split: set batch_size to {count // devices} or less."
            )

    def _holds_images(self) -> bool:
        own = [name for name in ("train_dataloader", "read_train") if is_overridden(name, self, ImageDataModule)]
        if self.resident is not None or self.trainer is None or self.num_workers or own:
            return bool(self.resident)
        return fit_easily(self.dataset("train"), self.trainer.strategy.root_device)

    def _move_to_device(self) -> ResidentImages:
        if self.trainer is None:
            return ResidentImages(self.dataset("train"), torch.device("cpu"))
        device, first = self.trainer.strategy.root_device, self.trainer.is_global_zero
        return ResidentImages(self.dataset("train"), device, announce=first)

    def _permutation(self, dataset: ImageDataset) -> EpochBatches:
        batches = EpochBatches(
            len(dataset),
            self.batch_size,
            shuffle=True,
            drop_last=True,
            seed=self.seed,
            flip_probability=self.flip_probability,
        )
        self._resume(batches)
        return batches

    def _resume(self, batches: EpochBatches | StreamedBatches) -> None:
        """Skip the batches of the current epoch that a resumed run has already seen."""
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
            collate_fn=unchanged,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


def unchanged(batch: Any) -> Any:
    """Return a batch of tensors unchanged. By default torch would search it for arrays to convert."""
    return batch
