"""Packing: decode every image of a listing once, and write a pack (see packed.py) that is complete or absent.

It is written beside its place, synchronised and renamed; what a killed process leaves, the next one removes.
"""

from __future__ import annotations

import errno
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
from PIL import UnidentifiedImageError
from tqdm import tqdm  # type: ignore[import-untyped]

from gan_lightning.data.cache import exclusive, make_cache_dir
from gan_lightning.data.decode import CropResize, CropTooLargeError
from gan_lightning.data.fingerprint import MAX_THREADS, count_cores, look_at
from gan_lightning.data.listing import OF_THE_IMAGE, ImageListing
from gan_lightning.data.packed import FORMAT_VERSION, PackedImages, Skipped, fingerprint_of, pack_folder
from gan_lightning.errors import InputError

logger = logging.getLogger(__name__)

CHUNK = 64  # images decoded in one go: enough to hide the cost of a hand-over, little enough to hold many
LEFT_OVER = 24 * 3600  # seconds after which no other host is taken to be writing a pack still
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # on the disk, in a quota, below a limit on files
NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS)


def pack_images(
    files: ImageListing,
    *,
    image_size: int,
    crop: int | None,
    channels: int,
    cache_dir: str | os.PathLike[str] | None = None,
    strict: bool = False,
    num_workers: int | None = None,
    progress: bool = True,
) -> PackedImages:
    """Pack a listing of images, or open the pack of it that is there already.

    Safe to call from several processes at once: one packs, the others wait and open the result.

    Args:
        files: The images.
        image_size: Height and width of the pixels.
        crop: Side of the centred square that is kept of each file; None for the largest.
        channels: 1 or 3.
        cache_dir: Folder of the packs; `default_cache_dir()` if None.
        strict: Refuse the first image that cannot be read, in place of leaving it out with a warning.
        num_workers: Decoding threads; None for one a core, up to `MAX_THREADS`.
        progress: Show a progress bar on a terminal.

    Raises:
        InputError: If an argument is out of range, an image is smaller than the crop, none of the images can be read,
            or, with `strict`, one of them cannot; if one changes meanwhile; if the cache cannot be written, or its disk
            is full.
        OSError: If a file cannot be opened for a reason of the machine's (no permission, a file system that is gone).
    """
    framing = CropResize(image_size, crop, channels)
    look = look_at(files)
    folder = pack_folder(files, framing, make_cache_dir(cache_dir))
    packed = _open_or_none(folder)
    if packed is not None:
        logger.info("Packed before: %s in %s", describe_size(len(files), framing), folder)
    else:
        try:
            num_workers = num_workers or min(MAX_THREADS, count_cores())
            packed = _pack(files, framing, folder, strict, num_workers, progress, look)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise _disk_full(len(files), framing, folder.parent) from error
            if error.errno in NO_ACCESS:  # of the cache: an image that must not be read is left out
                raise InputError(
                    f"Cannot write to the cache folder {folder.parent} ({error.strerror}): set cache_dir or "
                    "$GAN_LIGHTNING_CACHE."
                ) from error
            raise
    if packed.skipped:
        _report_skipped(packed, files, strict)
    return packed


def describe_size(count: int, framing: CropResize) -> str:
    """Say what a pack takes, on disk and in memory: "202,599 images at 64 x 64 x 3 take 2.49 GB".

    Args:
        count: Number of images.
        framing: Their size and channels.
    """
    height, width, channels = framing.shape
    needed = _pixel_bytes(count, framing)
    return f"{count:,} images at {height} x {width} x {channels} take " + (
        f"{needed / 1e9:.2f} GB" if needed >= 1e8 else f"{needed / 1e6:.2f} MB"
    )


def _pixel_bytes(count: int, framing: CropResize) -> int:
    height, width, channels = framing.shape
    return count * height * width * channels


def _pack(
    files: ImageListing, framing: CropResize, folder: Path, strict: bool, num_workers: int, progress: bool, look: str
) -> PackedImages:
    with exclusive(folder.with_name(f".{folder.name}.lock")) as alone:
        if (packed := _open_or_none(folder)) is not None:  # another process made it while this one waited
            return packed
        if alone:  # then whoever began these parts is dead
            for part in folder.parent.glob(f".{folder.name}.*.part"):
                if _is_left_over(part, f".{folder.name}.{socket.gethostname()}-"):
                    shutil.rmtree(part, ignore_errors=True)
        part = folder.with_name(f".{folder.name}.{socket.gethostname()}-{os.getpid()}.part")
        try:
            part.mkdir()
            _check_free_space(len(files), framing, folder.parent)
            header = _write_pixels(files, framing, part, strict, num_workers, progress)
            _write_header({**header, "fingerprint": fingerprint_of(folder)}, part)
            if look_at(files) != look:
                raise InputError(
                    f"Images in {files.root} changed while they were packed: start again when all are written."
                )
            _publish(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return PackedImages(folder)


def _is_left_over(part: Path, of_this_host: str) -> bool:
    """Whether nobody writes a part any more: of another host, which the lock may not reach, once it is a day old."""
    if part.name.startswith(of_this_host):
        return True
    times = [file.stat().st_mtime for file in (part, *part.iterdir()) if file.exists()]
    return time.time() - max(times, default=0.0) > LEFT_OVER


def _open_or_none(folder: Path) -> PackedImages | None:
    try:
        return PackedImages(folder)
    except (FileNotFoundError, InputError):
        return None


def _publish(part: Path, folder: Path) -> None:
    """Give a written pack its name, unless another process that could not be locked out has just done so."""
    try:
        part.rename(folder)
    except OSError:
        if _open_or_none(folder) is not None:
            return
        shutil.rmtree(folder)  # damaged: somebody else's hand, for we rename what is whole
        part.rename(folder)
    _sync(folder.parent)


def _write_pixels(
    files: ImageListing, framing: CropResize, part: Path, strict: bool, num_workers: int, progress: bool
) -> dict[str, Any]:
    """Write pixels.npy, and give what pack.json is to say of it."""
    logger.info("Packing %s: %s on disk", files.root, describe_size(len(files), framing))
    skipped: list[Skipped] = []
    digest = hashlib.sha256()
    shape = (len(files), *framing.shape)
    bar = tqdm(total=len(files), desc="Packing", unit=" images", disable=None if progress else True)
    with (part / "pixels.npy").open("wb") as file, bar:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for pixels, unreadable in _decode_all(files, framing, num_workers):
            if unreadable and strict:
                raise _refusal(unreadable[0], files)
            skipped += unreadable
            digest.update(pixels.data)
            file.write(pixels.data)
            bar.update(len(pixels))
        _flush(file)
    if len(skipped) == len(files):
        raise InputError(f"None of the {len(files)} images in {files.root} can be read: {_example(skipped)}.")
    return {
        "format_version": FORMAT_VERSION,
        "framing": asdict(framing),
        "images": len(files),
        "digest": digest.hexdigest(),
        "skipped": skipped,
    }


def _write_header(header: dict[str, Any], part: Path) -> None:
    with (part / "pack.json").open("wb") as file:
        file.write(json.dumps(header, indent=1).encode())
        _flush(file)
    _sync(part)


def _decode_all(
    files: ImageListing, framing: CropResize, num_workers: int
) -> Iterator[tuple[NDArray[np.uint8], list[Skipped]]]:
    """Decode in chunks, in order, with a bounded number of them in memory."""
    # Threads, for Pillow decodes and resizes without the interpreter lock. Processes would gain on many cores with
    # small images alone, and would run a script that lacks `if __name__ == "__main__":` again in each of them.
    executor = ThreadPoolExecutor(num_workers, thread_name_prefix="pack")
    pending: deque[Future[tuple[NDArray[np.uint8], list[Skipped]]]] = deque()
    try:
        for start in range(0, len(files), CHUNK):
            pending.append(executor.submit(_decode_chunk, files, framing, start))
            if len(pending) > 2 * num_workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)


def _decode_chunk(files: ImageListing, framing: CropResize, start: int) -> tuple[NDArray[np.uint8], list[Skipped]]:
    names = files.names[start : start + CHUNK]
    pixels = np.zeros((len(names), *framing.shape), dtype=np.uint8)
    unreadable = []
    for offset, name in enumerate(names):
        try:
            pixels[offset] = files.decode(start + offset, framing)
        except (CropTooLargeError, MemoryError):
            raise
        except Exception as error:
            # A wrong byte is the image's fault. What carries an errno is the machine's (no permission, a file system
            # that is gone for a moment), and must not be written down as the image's; but for a file that is not there.
            if isinstance(error, OSError) and error.errno not in OF_THE_IMAGE:
                raise
            unreadable.append(Skipped(start + offset, name, _reason(error)))
    return pixels, unreadable


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "the file is missing"
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    return str(error) or repr(error)


def _report_skipped(packed: PackedImages, files: ImageListing, strict: bool) -> None:
    if strict:
        raise _refusal(packed.skipped[0], files)
    warnings.warn(
        f"{len(packed.skipped)} of {len(files)} images in {files.root} cannot be read and are left out: "
        f"{_example(packed.skipped)}.",
        stacklevel=3,
    )


def _refusal(entry: Skipped, files: ImageListing) -> InputError:
    return InputError(
        f"{files.root / entry.name} cannot be read ({entry.reason}): "
        "repair or remove it, or leave out such images with strict: false."
    )


def _example(skipped: list[Skipped], count: int = 3) -> str:
    named = ", ".join(f"{entry.name} ({entry.reason})" for entry in skipped[:count])
    return named + (f" and {len(skipped) - count} more" if len(skipped) > count else "")


def _check_free_space(count: int, framing: CropResize, folder: Path) -> None:
    if shutil.disk_usage(folder).free < _pixel_bytes(count, framing):
        raise _disk_full(count, framing, folder)


def _disk_full(count: int, framing: CropResize, folder: Path) -> InputError:
    needed, free = _pixel_bytes(count, framing), shutil.disk_usage(folder).free
    return InputError(
        f"The disk of {folder} is full: the packed images need {needed:,} bytes, {free:,} are free. "
        "Free some, or set cache_dir or $GAN_LIGHTNING_CACHE."
    )


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make the entries of a folder durable, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
