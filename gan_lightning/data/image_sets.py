"""Sets of images to compare: folders, zip archives, packs and NumPy arrays, each with images of one size."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gan_lightning.data.decode import (
    CropResize,
    describe_failure,
    to_channels,
    to_eight_bits,
    to_pixels,
    turn_upright,
)
from gan_lightning.data.listing import SYSTEM_FOLDERS, describe_left_out, read_paths
from gan_lightning.data.packed import PackedImages
from gan_lightning.errors import InputError
from gan_lightning.file_names import IMAGE_SUFFIXES, printable
from gan_lightning.hardware import count_cores

GRAY_MODES = ("1", "L", "LA", "La", "F")
SIZE_ADVICE = "give --image_size N to crop and resize all images of folders and archives alike"


@dataclass(frozen=True)
class Framing:
    """Crop, size and channels of the image files of a set.

    Attributes:
        image_size: Height and width of the images; None for those of the files.
        crop: Side of the centered square to which images are cropped first; None for the largest.
        channels: 1 or 3; None for those of the files.
    """

    image_size: int | None = None
    crop: int | None = None
    channels: int | None = None


class ImageSet(ABC):
    """Images of one shape, read in batches.

    Attributes:
        path: Source of the images, for messages.
        kind: Kind of the source: "folder", "zip", "pack", "array" or "checkpoint".
        shape: Shape (C,H,W) of an image.
    """

    path: str
    kind: str
    shape: tuple[int, int, int]

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def batches(self, batch_size: int, count: int) -> Iterator[Tensor]:
        """Yield batches (B,C,H,W) uint8 of `count` images, which are evenly spaced if there are more."""

    def describe(self) -> dict[str, str | int]:
        """Return a description of the source, for the protocol of a metric."""
        return {"path": self.path, "kind": self.kind, "available": len(self)}


class ArrayImages(ImageSet):
    """Images in an array, which may be a memory map, as it is read one batch at a time.

    Args:
        path: Source of the array.
        kind: Kind of the source.
        shape: Shape (C,H,W) of an image.
        rows: Rows of the array that contain an image.
        read: Function from rows (B) to images (B,C,H,W) uint8.
    """

    def __init__(
        self,
        path: str,
        kind: str,
        shape: tuple[int, int, int],
        rows: NDArray[np.int64],
        read: Callable[[NDArray[np.int64]], Tensor],
    ) -> None:
        self.path, self.kind, self.shape = path, kind, shape
        self._rows, self._read = rows, read

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self, batch_size: int, count: int) -> Iterator[Tensor]:
        """Yield batches, see `ImageSet.batches`."""
        for part in evenly_spaced(len(self), count, batch_size):
            yield self._read(self._rows[part])


class FileImages(ImageSet):
    """Image files of a folder or of a zip archive.

    Args:
        path: The folder or archive.
        framing: Crop, size and channels.

    Raises:
        InputError: If there is no image, one cannot be read, or the resulting sizes or channels differ.
    """

    def __init__(self, path: Path, framing: Framing) -> None:
        self.path, self._framing = printable(path), framing
        self._archive = zipfile.ZipFile(path) if path.is_file() else None
        if self._archive is None:
            listing = read_paths([path])
            self.kind, self._root, self._names = "folder", listing.root, listing.names
            self.left_out = describe_left_out(listing.left_out) if listing.left_out else ""
        else:
            names = (name for name in self._archive.namelist() if _is_image(name))
            self.kind, self._root, self._names, self.left_out = "zip", path, sorted(names), ""
        if not self._names:
            raise InputError(f"there is no image in {self.path}: looked for {', '.join(sorted(IMAGE_SUFFIXES))}")
        self.shape = self._check_shapes()

    def __len__(self) -> int:
        return len(self._names)

    def batches(self, batch_size: int, count: int) -> Iterator[Tensor]:
        """Yield batches, see `ImageSet.batches`; files are decoded by threads."""
        with ThreadPoolExecutor(count_cores()) as threads:
            for part in evenly_spaced(len(self), count, batch_size):
                images = list(threads.map(self._read, part.tolist()))
                yield torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)

    def _check_shapes(self) -> tuple[int, int, int]:
        """Return the shape of the images without decoding any pixels."""
        framing = self._framing
        with ThreadPoolExecutor(count_cores()) as threads:
            shapes = list(threads.map(self._shape, range(len(self))))
        for name, shape in zip(self._names, shapes, strict=True):
            if framing.image_size is None and shape[1:] != shapes[0][1:]:
                raise InputError(
                    f"the images in {self.path} differ in size: {printable(self._names[0])} has {size(shapes[0])}, "
                    f"{printable(name)} {size(shape)}; {SIZE_ADVICE}"
                )
            if shape[0] != shapes[0][0] and framing.channels is None:
                raise InputError(
                    f"the images in {self.path} differ: {printable(self._names[0])} is {color(shapes[0])}, "
                    f"{printable(name)} {color(shape)}; give --channels 1 or --channels 3 to convert all"
                )
            if framing.crop is not None and framing.crop > min(shape[1:]):
                raise InputError(
                    f"{printable(name)} in {self.path} is {size(shape)}, smaller than the crop of {framing.crop}: give "
                    "a smaller --crop, or none"
                )
        channels, height, width = shapes[0]
        side = framing.image_size
        return framing.channels or channels, side or height, side or width

    def _open(self, row: int) -> Image.Image:
        if self._archive is None:
            return Image.open(self._root / self._names[row])
        return Image.open(io.BytesIO(self._archive.read(self._names[row])))

    def _shape(self, row: int) -> tuple[int, int, int]:
        try:
            with self._open(row) as opened:
                turned = opened.getexif().get(0x0112, 1) > 4
                width, height = opened.size[::-1] if turned else opened.size
                gray = opened.mode in GRAY_MODES or opened.mode.startswith("I")
                return 1 if gray else 3, height, width
        except Exception as error:  # Pillow's plugins raise nearly any class
            raise self._unreadable(row, error) from error

    def _read(self, row: int) -> NDArray[np.uint8]:
        channels, framing = self.shape[0], self._framing
        try:
            with self._open(row) as opened:
                upright = turn_upright(opened)
                if framing.image_size is not None:
                    resize = CropResize(framing.image_size, framing.crop, channels)
                    return to_pixels(upright, resize, printable(self._names[row]))
                pixels = np.asarray(to_channels(to_eight_bits(upright), channels))
                return pixels[..., None] if channels == 1 else pixels
        except Exception as error:
            raise self._unreadable(row, error) from error

    def _unreadable(self, row: int, error: Exception) -> InputError:
        name = printable(self._names[row])
        reason = describe_failure(error, self._root / self._names[row])
        return InputError(f"{name} in {self.path} cannot be read ({reason}): replace it, or take it out of the set")


def open_images(path: str | os.PathLike[str], framing: Framing) -> ImageSet:
    """Open a folder, a pack, a zip archive, or a .npy or .npz file of images.

    Args:
        path: The path.
        framing: Crop, size and channels of the images of folders and archives.

    Raises:
        InputError: If the path does not exist, contains no images, or is something else.
    """
    given, shown = Path(path).expanduser(), printable(path)
    if not given.exists():
        raise InputError(
            f"{shown} does not exist: give a folder of images, a pack, a .zip or .npy file, or a checkpoint"
        )
    if (given / "pack.json").is_file():
        pack = PackedImages(given)
        height, width, channels = pack.crop_resize.shape
        return ArrayImages(shown, "pack", (channels, height, width), pack.rows, pack.read)
    if given.suffix.lower() in (".npy", ".npz"):
        pixels = read_array(given)
        count, height, width, channels = pixels.shape
        read = lambda rows: torch.from_numpy(pixels[rows]).permute(0, 3, 1, 2)  # noqa: E731
        return ArrayImages(shown, "array", (channels, height, width), np.arange(count), read)
    if given.is_dir():
        return FileImages(given, framing)
    if given.suffix.lower() == ".zip":
        if not zipfile.is_zipfile(given):
            raise InputError(f"{shown} is not a whole zip archive: copy or download it again")
        return FileImages(given, framing)
    raise InputError(f"{shown} is not a set of images: give a folder, a pack, a .zip or .npy file, or a checkpoint")


def read_array(path: Path) -> NDArray[np.uint8]:
    """Read images (N,H,W,C) uint8 from a NumPy file: its array of 3 or 4 dimensions, or the first such array of a .npz.

    Raises:
        InputError: If the file cannot be read, or contains something else.
    """
    try:
        content = np.load(path, mmap_mode="r", allow_pickle=False)
        arrays = [content] if isinstance(content, np.ndarray) else [content[name] for name in content.files]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{printable(path)} cannot be read: expected a complete NumPy file without objects") from error
    for array in arrays:
        if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.size == 0:
            continue
        if array.ndim == 3:
            return np.asarray(array)[..., None]
        if array.shape[3] in (1, 3):
            return np.asarray(array)
        if array.shape[1] in (1, 3):
            return np.asarray(array).transpose(0, 2, 3, 1)
    found = ", ".join(f"{array.dtype} {array.shape}" for array in arrays[:3])
    raise InputError(f"{printable(path)} holds {found}: expected images as uint8 (N,H,W) or (N,H,W,C), at least one")


def evenly_spaced(available: int, count: int, batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Yield, in batches, the positions of `count` images among those available."""
    # Evenly spaced as in training, because the first N images of a sorted folder may all be of one class.
    positions = np.arange(count, dtype=np.int64) * available // count
    for start in range(0, count, batch_size):
        yield positions[start : start + batch_size]


def pixels_digest(batches: Iterator[Tensor], into: list[str]) -> Iterator[Tensor]:
    """Yield batches of images unchanged, and at the end append the SHA-256 of their pixels to a list."""
    digest = hashlib.sha256()
    for batch in batches:
        digest.update(batch.permute(0, 2, 3, 1).contiguous().numpy().data)
        yield batch
    into.append(digest.hexdigest())


def size(shape: Sequence[int]) -> str:
    """Return "64 x 48" for a shape (C,H,W) of width 64."""
    return f"{shape[2]} x {shape[1]}"


def color(shape: Sequence[int]) -> str:
    """Return "gray" or "in color", depending on the shape (C,H,W)."""
    return "gray" if shape[0] == 1 else "in color"


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part in SYSTEM_FOLDERS for part in path.parts)
    return path.suffix.lower() in IMAGE_SUFFIXES and not hidden
