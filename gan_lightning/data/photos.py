"""Photographs for `predict`: nothing is cropped, resized or repaired unless requested."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from gan_lightning import distributed
from gan_lightning.data.decode import describe_failure
from gan_lightning.data.listing import ImageListing, read_folder, read_paths
from gan_lightning.data.photo_format import PhotoFormat, Resize, check_resize, has_frames, read_photo
from gan_lightning.errors import InputError
from gan_lightning.file_names import printable

Root = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
KnownPixels = Callable[[str, Sequence[str]], NDArray[np.bool_] | None]

logger = logging.getLogger(__name__)


class Photos(L.LightningDataModule):
    """Photographs that are already degraded, in the format of the model, for `predict`.

    Args:
        root: Folder of the photographs, or a list of files and folders; subfolders are included.
        resize: Treatment of photographs that are larger than the model expects. "refuse" stops before any work;
            "center_crop" crops them to the right aspect ratio and resizes them (bicubic, antialiased).
        to_gray: Convert color photographs if the model expects gray ones, as for colorization, instead of refusing
            them.
        batch_size: Number of photographs in a batch, per device.
        num_workers: Number of worker processes that read batches.

    Raises:
        InputError: If an option is unsupported.
    """

    def __init__(
        self,
        root: str | list[str],
        *,
        resize: Resize = "refuse",
        to_gray: bool = False,
        batch_size: int = 16,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        check_resize(resize)
        if batch_size < 1 or num_workers < 0:
            raise InputError(
                f"batch_size is {batch_size} and num_workers {num_workers}: set them to at least 1 and at least 0."
            )
        self.root: Root = Path(root).expanduser() if isinstance(root, str) else root
        self.resize: Resize = "center_crop" if resize == "centre_crop" else resize  # one name for one result
        self.to_gray = to_gray
        self.batch_size = batch_size
        self.num_workers = num_workers

    def setup(self, stage: str | None = None) -> None:
        """Check that the photographs are used for restoration.

        Raises:
            InputError: If the stage is not "predict".
        """
        if stage not in (None, "predict"):
            raise InputError(f"Photos is for predict, not for {getattr(stage, 'value', stage)}: use ImageFolder.")

    def read_files(self) -> ImageListing:
        """List the photographs."""
        return list_photos(self.root)

    def predict_dataloader(self) -> DataLoader[dict[str, Tensor | list[str]]]:
        """Return all photographs in the format of the model.

        Raises:
            InputError: If the model does not take photographs, or these do not fit.
        """
        photo_format = photo_format_of(self)
        known = getattr(self.trainer.lightning_module, "known_pixels", None)  # type: ignore[union-attr]
        return photo_loader(
            self.root, photo_format, self.batch_size, self.num_workers, self.resize, known, self.to_gray
        )


class PhotoDataset(Dataset[dict[str, Tensor | list[str]]]):
    """Photographs sorted by name, read in whole batches.

    All files are decoded once by the constructor, so that every unusable photograph is known before any work.
    Unreadable ones are reported in a warning and skipped.

    Args:
        root: Folder, or files and folders, as for `Photos`.
        photo_format: Format that the model expects.
        resize: As for `Photos`.
        known: Function from the name of a photograph, and the names of all, to its known pixels (H,W) before resizing,
            or None for all pixels. Unknown pixels do not affect their neighbors.
        to_gray: As for `Photos`.

    Attributes:
        names: Names of the readable photographs, relative to the root.
        listed: Names of all photographs.
        opaque: Names of the readable photographs without a transparent pixel.
        skipped: Number of photographs that cannot be read.

    Raises:
        InputError: If the folder does not exist or contains no readable photograph, or if a photograph is too large,
            too small, or in color while the model expects gray.
    """

    def __init__(
        self,
        root: Root,
        photo_format: PhotoFormat,
        resize: Resize = "refuse",
        known: KnownPixels | None = None,
        to_gray: bool = False,
    ) -> None:
        check_resize(resize)
        self.known, self.to_gray = known, to_gray
        listing = list_photos(root)
        if distributed.rank() == 0:
            listing.report_left_out()
        self.root, self.photo_format, self.resize = listing.root, photo_format, resize
        self.listed, self.names, self.opaque = listing.names, [], []
        unreadable, of_several = [], []
        for name in listing.names:
            try:
                _, alpha = read_photo(self.root / name, photo_format, resize, to_gray=to_gray)
            except InputError:
                raise
            except Exception as error:  # Pillow's plugins raise nearly any class on a broken file
                unreadable.append(name)
                reason = describe_failure(error, self.root / name)
                logger.warning("skipped %s: it cannot be read (%s)", printable(name), reason)
            else:
                self.names.append(name)
                if bool(alpha.gt(0.5).all()):
                    self.opaque.append(name)
                if has_frames(self.root / name):
                    of_several.append(name)
        self.skipped = len(unreadable)
        if not self.names:
            example = printable(unreadable[0])
            raise InputError(
                f"none of the {self.skipped} photographs below {printable(self.root)} can be read: {example}, ..."
            )
        if unreadable:
            logger.warning("skipped %d of %d photographs", self.skipped, len(listing.names))
        report_names(of_several, len(self.names), "photographs have several frames, of which the first is taken")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: NDArray[np.int64]) -> dict[str, Tensor | list[str]]:
        """Read a batch.

        Args:
            rows: (B) positions in `names`.

        Returns:
            "image" (B,C,H,W) float32 in [-1, 1]; "alpha" (B,1,H,W) float32 in [0, 1], ones where a photograph has no
            transparency; "index" (B) int64; "name", a list of B.

        Raises:
            InputError: If a photograph no longer exists or can no longer be read.
        """
        shape = self.photo_format.height, self.photo_format.width
        images, alphas = torch.empty(len(rows), self.photo_format.channels, *shape), torch.empty(len(rows), 1, *shape)
        for place, row in enumerate(rows):
            path = self.root / self.names[row]
            known = self.known(self.names[row], self.listed) if self.known else None
            try:
                images[place], alphas[place] = read_photo(path, self.photo_format, self.resize, known, self.to_gray)
            except Exception as error:  # the file was readable when the run started
                raise InputError(
                    f"{printable(path)} cannot be read any more ({describe_failure(error, path)}): restore it, and run "
                    "the same command again; without it, choose another folder (--name)"
                ) from error
        return {
            "image": images,
            "alpha": alphas,
            "index": torch.from_numpy(rows.copy()),
            "name": [self.names[row] for row in rows],
        }


class PhotoBatches(DistributedSampler[NDArray[np.int64]]):
    """Batches of positions in order; rank r of W takes positions r, r + W, ..., and none is repeated.

    A rank without photographs yields one empty batch: otherwise Lightning would skip the end of the loop on this rank,
    where the other ranks wait for it. The class is a DistributedSampler so that Lightning does not replace it.

    Args:
        count: Number of photographs.
        batch_size: Number of photographs in a batch, per rank.

    Raises:
        InputError: If the batch size is not positive.
    """

    def __init__(self, count: int, batch_size: int) -> None:
        if batch_size < 1:
            raise InputError(f"the batch size is {batch_size}: set it to 1 or more")
        super().__init__(range(count), distributed.world_size(), distributed.rank(), shuffle=False)  # type: ignore[arg-type]
        self.count, self.batch_size = count, batch_size

    def __len__(self) -> int:
        """Return the number of batches of this rank."""
        return max(1, -(-len(range(self.rank, self.count, self.num_replicas)) // self.batch_size))

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        own = np.arange(self.rank, self.count, self.num_replicas)
        for first in range(0, max(1, len(own)), self.batch_size):
            yield own[first : first + self.batch_size]


def report_names(names: Sequence[str], count: int, what: str) -> None:
    """Log how many of several files something is true of, if any, and the names of the first."""
    if names and distributed.rank() == 0:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        logger.warning("%d of %d %s: %s%s", len(names), count, what, ", ".join(map(printable, names[:3])), more)


def list_photos(root: Root) -> ImageListing:
    """List the photographs below a folder, or in a list of files and folders."""
    return read_folder(root) if isinstance(root, str | os.PathLike) else read_paths(root)


def photo_format_of(data: L.LightningDataModule) -> PhotoFormat:
    """Return the format of photographs that the model of the trainer of a data module expects.

    Raises:
        InputError: If the model does not take photographs.
    """
    model = data.trainer.lightning_module if data.trainer else None
    photo_format: PhotoFormat | None = getattr(model, "photo_format", None)
    if photo_format is None:
        raise InputError("predict on a folder of photographs needs a model that restores them: LatentRestoration")
    return photo_format


def photo_loader(
    root: Root,
    photo_format: PhotoFormat,
    batch_size: int,
    num_workers: int = 0,
    resize: Resize = "refuse",
    known: KnownPixels | None = None,
    to_gray: bool = False,
) -> DataLoader[dict[str, Tensor | list[str]]]:
    """Return a loader of photographs in batches for `predict`; the options are those of `PhotoDataset`."""
    photos = PhotoDataset(root, photo_format, resize, known, to_gray)
    return DataLoader(photos, batch_size=None, sampler=PhotoBatches(len(photos), batch_size), num_workers=num_workers)
