"""The LightningDataModules that a configuration names: CelebA, ImageFolder, MNIST and their kin."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from gan_lightning.data.base_module import ImageDataModule
from gan_lightning.data.batches import ImageDataset
from gan_lightning.data.cache import exclusive, make_cache_dir
from gan_lightning.data.celeba import read_celeba
from gan_lightning.data.folder import read_folder
from gan_lightning.data.listing import SPLITS, ImageListing
from gan_lightning.data.mnist import PADDED_SIZE, MnistKind, read_mnist
from gan_lightning.data.photos import photo_loader
from gan_lightning.errors import InputError

if TYPE_CHECKING:
    from gan_lightning.data.streaming import StreamedBatches

logger = logging.getLogger(__name__)


class CelebA(ImageDataModule):
    """CelebA's aligned faces with their official split, from the official layout or Kaggle's.

    Args:
        root: The folder that holds celeba/, or that folder itself.
        crop: Side of the centred square that is cut out of each 178x218 file: 178, 148 and 108 are usual; null for the
            largest square, 178.
        attributes: Names of the attributes that batches carry (Smiling, Eyeglasses, ...); their list is needed only
            where there are some.
        download: Download what is missing with torchvision, which needs gdown and often meets the server's quota.
        **common: What ImageDataModule takes.
    """

    def __init__(
        self,
        root: str,
        *,
        crop: int | None = 178,
        attributes: list[str] | None = None,
        download: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(root, crop=crop, **common)
        self.attributes = attributes or []
        self.download = download

    def read_files(self) -> ImageListing:
        """List CelebA below the root."""
        return read_celeba(self.root, self.attributes)

    def prepare_data(self) -> None:
        """Download CelebA if told to and it is missing; then pack it."""
        if self.download:
            with _alone_with(self.root, self.cache_dir):
                self._download()
        super().prepare_data()

    def _download(self) -> None:
        try:
            self.read_files()
            return
        except InputError:
            from torchvision.datasets import CelebA as TorchvisionCelebA
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            TorchvisionCelebA(str(self.root), download=True)
        except Exception as error:  # no gdown, no network, a quota, a page in place of a file
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise InputError(
                f"CelebA cannot be downloaded ({reason}): fetch img_align_celeba.zip and list_eval_partition.txt by "
                f"hand from mmlab.ie.cuhk.edu.hk/projects/CelebA.html, put them in {self.root / 'celeba'}, unzip it."
            ) from error


class SyntheticFaces(ImageDataModule):
    """Faces that the package renders, in CelebA's own layout; they are made at the first use.

    Args:
        root: Folder in which celeba/ is written.
        count: Number of faces.
        faces_seed: Seed of the faces; `seed` is that of their order in training.
        crop: Side of the centred square that is cut out of each 178x218 file; null for the largest square, 178.
        attributes: Names of the attributes that batches carry (Smiling, Eyeglasses, ...).
        **common: What ImageDataModule takes.
    """

    def __init__(
        self,
        root: str = "data/synthetic",
        *,
        count: int = 20000,
        faces_seed: int = 0,
        crop: int | None = 178,
        attributes: list[str] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(root, crop=crop, **common)
        if count < 1:
            raise InputError(f"count is {count}: give 1 or more faces.")
        self.attributes = attributes or []
        self.count = count
        self.faces_seed = faces_seed

    def read_files(self) -> ImageListing:
        """List the first `count` faces below the root, which may hold more."""
        files = read_celeba(self.root, self.attributes)
        return replace(
            files,
            name="synthetic_faces",
            names=files.names[: self.count],
            splits={split: rows[rows < self.count] for split, rows in files.splits.items()},
            attributes=None if files.attributes is None else files.attributes[: self.count],
        )

    def prepare_data(self) -> None:
        """Render the faces that are missing; then pack them."""
        from gan_lightning.faces.synthesis import synthesize

        with _alone_with(self.root, self.cache_dir):
            synthesize(self.root, count=self.count, seed=self.faces_seed)
        super().prepare_data()


class ImageFolder(ImageDataModule):
    """Any tree of image files (jpg, png, webp, bmp, tif), with a seeded split.

    Args:
        root: Folder of the images. Hidden files, links to folders and links out of the root are skipped.
        split_fractions: Fractions of train, val and test, which sum to 1.
        split_seed: Seed of the split, which depends on it and the files' names alone.
        **common: What ImageDataModule takes.
    """

    def __init__(
        self,
        root: str,
        *,
        split_fractions: tuple[float, float, float] = (0.9, 0.05, 0.05),
        split_seed: int = 0,
        **common: Any,
    ) -> None:
        super().__init__(root, **common)
        self.split_fractions = split_fractions
        self.split_seed = split_seed

    def read_files(self) -> ImageListing:
        """List the images below the root."""
        return read_folder(self.root, self.split_fractions, self.split_seed)

    def prepare_data(self) -> None:
        """Pack the images; for `predict` they are read as they are."""
        if self.trainer is None or self.trainer.state.fn != "predict":
            super().prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Open the packed images; for `predict` they are read as they are."""
        if stage != "predict":
            super().setup(stage)

    def predict_dataloader(self) -> DataLoader[dict[str, Tensor | list[str]]]:
        """All images as they are, in the format that the model takes.

        Raises:
            InputError: The model takes no photographs, or the folder has none that it can take.
        """
        wanted = getattr(self.trainer.lightning_module if self.trainer else None, "photo_format", None)
        if wanted is None:
            raise InputError("predict on a folder of photographs needs a model that restores them: LatentRestoration")
        return photo_loader(self.root, wanted, self.eval_batch_size, self.num_workers)


class MNIST(ImageDataModule):
    """Handwritten digits, 28 x 28 in a frame of zeros, as torchvision keeps them; the test split is the official one.

    Args:
        root: The folder that holds MNIST/raw.
        image_size: 32; the framed images are resized to any other.
        channels: 1 for grayscale, 3 for three equal ones.
        val_fraction: Fraction of the official training set that becomes the val split.
        split_seed: Seed of that split.
        flip: Mirror each training image left to right with probability one half; a mirrored digit is none.
        download: Download what is missing with torchvision.
        **common: What ImageDataModule takes, but crop.
    """

    kind: MnistKind = "MNIST"

    def __init__(
        self,
        root: str,
        *,
        image_size: int = PADDED_SIZE,
        channels: int = 1,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        flip: bool = False,
        download: bool = False,
        **common: Any,
    ) -> None:
        if common.pop("crop", None) is not None:
            raise InputError(f"{self.kind} is not cropped: set crop to null.")
        super().__init__(root, image_size=image_size, channels=channels, flip=flip, **common)
        self.val_fraction = val_fraction
        self.split_seed = split_seed
        self.download = download

    def read_files(self) -> ImageListing:
        """Read the images below the root."""
        return read_mnist(self.root, self.kind, val_fraction=self.val_fraction, seed=self.split_seed)

    def prepare_data(self) -> None:
        """Download the files if told to and they are missing; then pack the images."""
        if self.download:
            with _alone_with(self.root, self.cache_dir):
                read_mnist(self.root, self.kind, download=True)
        super().prepare_data()


class FashionMNIST(MNIST):
    """Articles of clothing, 28 x 28 in a frame of zeros, as torchvision keeps them; the test split is the official one.

    Args:
        root: The folder that holds FashionMNIST/raw.
        **common: What MNIST takes.
    """

    kind = "FashionMNIST"

    def __init__(self, root: str, **common: Any) -> None:
        super().__init__(root, **common)


class StreamedImages(ImageDataModule):
    """Images streamed by litdata (`pip install gan-lightning[streaming]`), for sources larger than a disk.

    The source holds the folders train, val and test, each as `litdata.optimize` writes it, of items that are an image
    or a dict with one under "image": a Pillow image, the bytes of a file, or a uint8 array. Chunks are fetched when
    they are needed. An epoch goes through chunks in a seeded order, and through the images of each in a seeded order;
    the ranks share the chunks, and what fills no batch is left out. In training, another image of its batch takes the
    place of one that cannot be read, which is named and counted (`strict: true` refuses it); in evaluation it is
    refused.

    Args:
        root: A folder, or the address of one in an object store: s3://bucket/faces.
        num_workers: Processes that fetch and decode.
        **common: What ImageDataModule takes.
    """

    def __init__(self, root: str, *, num_workers: int = 4, **common: Any) -> None:
        super().__init__(root, num_workers=num_workers, **common)
        self.url = root.rstrip("/")
        self._splits: dict[str, ImageDataset] = {}
        self._left_out = 0  # of the batches of training so far

    def prepare_data(self) -> None:
        """Do nothing: images are fetched as they are needed."""

    def open(self) -> None:
        """See that litdata is there.

        Raises:
            InputError: If it is not installed.
        """
        self.name = self.url.rsplit("/", 1)[-1]
        if find_spec("litdata") is None:
            raise InputError("StreamedImages needs litdata: pip install 'gan-lightning[streaming]'.")

    def dataset(self, split: str) -> ImageDataset:
        """A split, whose images are fetched one by one when they are read: right for evaluation, slow for an epoch.

        Args:
            split: "train", "val" or "test".
        """
        if split not in SPLITS:
            raise InputError(f"There is no split {split!r}: give {', '.join(SPLITS)}.")
        if split not in self._splits:
            from gan_lightning.data.streaming import StreamedSplit

            images = StreamedSplit(f"{self.url}/{split}", self.framing, self.cache_dir)
            self._splits[split] = ImageDataset(images, np.arange(images.count))
        return self._splits[split]

    def train_dataloader(self) -> Iterable[dict[str, Tensor]]:
        """Full batches of the train split, in a new order each epoch."""
        if self.resident:
            return super().train_dataloader()
        images: Any = self.dataset("train").images
        batches: StreamedBatches = images.batches(
            self.batch_size,
            seed=self.seed,
            flip_probability=0.5 if self.flip else 0.0,
            num_workers=self.num_workers,
        )
        self._resume(batches)
        return batches

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Tensor]:
        """Tell of images that could not be read; then as for all data.

        Args:
            batch: As `collate` gives it.
            dataloader_idx: Not used.

        Raises:
            InputError: If there are some, and `strict` is set or there are no others in the batch.
        """
        reasons: list[str] = batch.pop("unreadable", [])
        if reasons and (self.strict or len(reasons) == len(batch["index"])):
            raise InputError(f"{reasons[0]}: write the source anew without it.")
        for reason in reasons:
            logger.warning("%s: another of its batch takes its place", reason)
        self._left_out += len(reasons)
        return super().on_after_batch_transfer(batch, dataloader_idx)

    def teardown(self, stage: str | None = None) -> None:
        """Say how many images were left out.

        Args:
            stage: As for `setup`.
        """
        if self._left_out:
            logger.warning("%d times an image of %s could not be read and was left out", self._left_out, self.url)
            self._left_out = 0
        super().teardown(stage)

    def __getstate__(self) -> dict[str, Any]:
        """What goes to other processes: each opens the source by itself."""
        return {**super().__getstate__(), "_splits": {}}


def _alone_with(root: Path, cache_dir: str | None) -> AbstractContextManager[bool]:
    """Keep other processes, of other nodes too, from writing into the same root meanwhile."""
    key = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    return exclusive(make_cache_dir(cache_dir) / f".root-{key}.lock")
