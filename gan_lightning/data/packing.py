"""Packing: decode every image of a listing once, and write a pack (see packed.py).

A pack is written under a temporary name, synced and renamed, so that it is either complete or absent. The next process
removes the files that a killed one left behind.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import logging
import os
import shutil
import socket
import time
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm  # type: ignore[import-untyped]

from gan_lightning.atomic import own_suffix
from gan_lightning.data.cache import exclusive, make_cache_dir
from gan_lightning.data.decode import CropResize, CropTooLargeError, describe_failure
from gan_lightning.data.fingerprint import MAX_THREADS, look_at
from gan_lightning.data.listing import IMAGE_ERRORS, ImageListing
from gan_lightning.data.packed import (
    FORMAT_VERSION,
    PackedImages,
    Skipped,
    describe_size,
    fingerprint_of,
    pack_folder,
    pixel_bytes,
)
from gan_lightning.errors import InputError
from gan_lightning.file_names import printable
from gan_lightning.hardware import count_cores

logger = logging.getLogger(__name__)

CHUNK = 64  # images per task: enough to hide the overhead of a task, few enough to keep many chunks in memory
STALE = 24 * 3600  # seconds after which an unfinished pack of another host counts as abandoned
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk, quota, limit on the size of files
NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS)

Decoded = tuple[NDArray[np.uint8], list[Skipped]]  # pixels of a chunk, and its images that could not be read


def pack_images(
    listing: ImageListing,
    *,
    image_size: int,
    crop: int | None,
    channels: int,
    cache_dir: str | os.PathLike[str] | None = None,
    strict: bool = False,
    num_workers: int | None = None,
    progress: bool = True,
) -> PackedImages:
    """Pack a listing of images, or open the pack if it exists.

    Several processes may call it at once: one packs, the others wait and open the result.

    Args:
        listing: The images.
        image_size: Height and width of the packed images, in pixels.
        crop: Side of the centered square to which each file is cropped, in pixels; None for the largest square.
        channels: 1 for grayscale, 3 for RGB.
        cache_dir: Folder of the packs; `default_cache_dir()` if None.
        strict: Raise an error for the first image that cannot be read, instead of leaving it out with a warning.
        num_workers: Number of decoding threads; one per core, up to `MAX_THREADS`, if None.
        progress: Show a progress bar on a terminal.

    Raises:
        InputError: If an argument is out of range; if an image is smaller than the crop; if no image can be read or,
            with `strict`, one cannot; if an image changes during the packing; or if the cache is not writable or its
            disk is full.
        OSError: If a file cannot be opened because of a problem of the machine (such as an unavailable file system).
    """
    crop_resize = CropResize(image_size, crop, channels)
    look = look_at(listing)
    folder = pack_folder(listing, crop_resize, make_cache_dir(cache_dir))
    packed = _open_or_none(folder)
    if packed is not None:
        logger.info("Already packed: %s in %s", describe_size(len(listing), crop_resize), folder)
    else:
        try:
            packed = _pack(
                listing,
                crop_resize,
                folder,
                look,
                strict=strict,
                num_workers=num_workers or min(MAX_THREADS, count_cores()),
                progress=progress,
            )
        except OSError as error:
            if error.errno in DISK_FULL:
                raise _disk_full(len(listing), crop_resize, folder.parent) from error
            if error.errno in NO_ACCESS:  # to the cache; an image without permission is left out
                raise InputError(
                    f"Cannot write to the cache folder {folder.parent} ({error.strerror}): set cache_dir or "
                    "$GAN_LIGHTNING_CACHE."
                ) from error
            raise
    if packed.skipped and strict:
        raise _refusal(packed.skipped[0], listing)
    if packed.skipped:
        warnings.warn(
            f"{len(packed.skipped)} of {len(listing)} images in {printable(listing.root)} cannot be read and are left "
            f"out: {_example(packed.skipped)}.",
            stacklevel=2,
        )
    return packed


def _pack(
    listing: ImageListing,
    crop_resize: CropResize,
    folder: Path,
    look: str,
    *,
    strict: bool,
    num_workers: int,
    progress: bool,
) -> PackedImages:
    with exclusive(folder.with_name(f".{folder.name}.lock")) as alone:
        if (packed := _open_or_none(folder)) is not None:  # another process made it while this one waited
            return packed
        if alone:  # the processes that started these parts have ended
            for part in folder.parent.glob(f".{glob.escape(folder.name)}.*.part"):
                if _is_left_over(part, f".{folder.name}.{socket.gethostname()}-"):
                    shutil.rmtree(part, ignore_errors=True)
        part = folder.with_name(f".{folder.name}{own_suffix()}")
        try:
            part.mkdir()
            if shutil.disk_usage(folder.parent).free < pixel_bytes(len(listing), crop_resize):
                raise _disk_full(len(listing), crop_resize, folder.parent)
            header = _write_pixels(listing, crop_resize, part, strict, num_workers, progress)
            _write_header({**header, "fingerprint": fingerprint_of(folder)}, part)
            if look_at(listing) != look:
                raise InputError(
                    f"Images in {listing.root} changed while they were packed: start again when all are written."
                )
            _publish(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return PackedImages(folder)


def _is_left_over(part: Path, of_this_host: str) -> bool:
    """Return whether no process still writes a part. Other hosts, which locks may not reach, are given a day."""
    if part.name.startswith(of_this_host):
        return True
    times = [file.stat().st_mtime for file in (part, *part.iterdir()) if file.exists()]
    return time.time() - max(times, default=0.0) > STALE


def _open_or_none(folder: Path) -> PackedImages | None:
    try:
        return PackedImages(folder)
    except (FileNotFoundError, InputError):
        return None


def _publish(part: Path, folder: Path) -> None:
    """Rename a finished pack, unless another process, which the lock did not exclude, has just done so."""
    try:
        part.rename(folder)
    except OSError:
        if _open_or_none(folder) is not None:
            return
        shutil.rmtree(folder)  # damaged later, because only complete packs are renamed
        part.rename(folder)
    _sync(folder.parent)


def _write_pixels(
    listing: ImageListing, crop_resize: CropResize, part: Path, strict: bool, num_workers: int, progress: bool
) -> dict[str, Any]:
    """Write pixels.npy, and return the header that describes it."""
    logger.info("Packing %s: %s on disk", printable(listing.root), describe_size(len(listing), crop_resize))
    skipped: list[Skipped] = []
    digest = hashlib.sha256()
    shape = (len(listing), *crop_resize.shape)
    bar = tqdm(total=len(listing), desc="Packing", unit=" images", disable=None if progress else True)
    with (part / "pixels.npy").open("wb") as file, bar:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for pixels, unreadable in _decode_all(listing, crop_resize, num_workers):
            if unreadable and strict:
                raise _refusal(unreadable[0], listing)
            skipped += unreadable
            digest.update(pixels.data)
            file.write(pixels.data)
            bar.update(len(pixels))
        _flush(file)
    if len(skipped) == len(listing):
        raise InputError(
            f"None of the {len(listing)} images in {printable(listing.root)} can be read: {_example(skipped)}."
        )
    return {
        "format_version": FORMAT_VERSION,
        "framing": asdict(crop_resize),
        "images": len(listing),
        "digest": digest.hexdigest(),
        "skipped": skipped,
    }


def _write_header(header: dict[str, Any], part: Path) -> None:
    with (part / "pack.json").open("wb") as file:
        file.write(json.dumps(header, indent=1).encode())
        _flush(file)
    _sync(part)


def _decode_all(listing: ImageListing, crop_resize: CropResize, num_workers: int) -> Iterator[Decoded]:
    """Decode in chunks, in order, with a bounded number of them in memory."""
    # Threads, because Pillow decodes and resizes without the interpreter lock. Processes would only be faster for small
    # images on many cores, and would run scripts without `if __name__ == "__main__":` again.
    executor = ThreadPoolExecutor(num_workers, thread_name_prefix="pack")
    pending: deque[Future[Decoded]] = deque()
    try:
        for start in range(0, len(listing), CHUNK):
            pending.append(executor.submit(_decode_chunk, listing, crop_resize, start))
            if len(pending) > 2 * num_workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)


def _decode_chunk(listing: ImageListing, crop_resize: CropResize, start: int) -> Decoded:
    names = listing.names[start : start + CHUNK]
    pixels = np.zeros((len(names), *crop_resize.shape), dtype=np.uint8)
    unreadable = []
    for offset, name in enumerate(names):
        try:
            pixels[offset] = listing.decode(start + offset, crop_resize)
        except (CropTooLargeError, MemoryError):
            raise
        except Exception as error:
            # A wrong byte is a problem of the image. An error with an errno is a problem of the machine (such as an
            # unavailable file system), and must not be attributed to the image, unless the file does not exist.
            if isinstance(error, OSError) and error.errno not in IMAGE_ERRORS:
                raise
            unreadable.append(Skipped(start + offset, name, describe_failure(error, listing.root / name)))
    return pixels, unreadable


def _refusal(entry: Skipped, listing: ImageListing) -> InputError:
    return InputError(
        f"{printable(listing.root / entry.name)} cannot be read ({entry.reason}): "
        "repair or remove it, or set strict: false to leave out such images."
    )


def _example(skipped: list[Skipped], count: int = 3) -> str:
    named = ", ".join(f"{printable(entry.name)} ({entry.reason})" for entry in skipped[:count])
    return named + (f" and {len(skipped) - count} more" if len(skipped) > count else "")


def _disk_full(count: int, crop_resize: CropResize, folder: Path) -> InputError:
    needed, free = pixel_bytes(count, crop_resize), shutil.disk_usage(folder).free
    return InputError(
        f"The disk of {folder} is full: the packed images need {needed:,} bytes, {free:,} are free. "
        "Free disk space, or set cache_dir or $GAN_LIGHTNING_CACHE."
    )


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Sync the entries of a folder to disk, if the system supports it."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
