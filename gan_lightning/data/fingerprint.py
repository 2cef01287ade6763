"""What a listing of images is made of, byte by byte: the part of a pack's fingerprint that no clock can spoil.

Every file is read once; what came of it is kept in the cache beside the files' sizes and times, so that the next look
costs as much as a listing. A copy of the images, or one whose times have changed, is read again, but not packed again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gan_lightning.atomic import atomic_path
from gan_lightning.data.listing import OF_THE_IMAGE, ImageListing

logger = logging.getLogger(__name__)

CHUNK = 256  # files read in one go by a thread
MAX_THREADS = 16  # beyond, they wait for the interpreter's lock
_HASH = re.compile(r"[0-9a-f]{64}\Z")


def content_of(files: ImageListing, cache: Path) -> str:
    """Give the SHA-256 of names and bytes of a listing of images, in hex.

    Args:
        files: The images.
        cache: Where it is kept that a file of this size and these times had this content.

    Raises:
        OSError: If a file cannot be read for a reason of the machine's.
    """
    kept = cache / "sources" / look_at(files)
    try:
        if _HASH.match(content := kept.read_text(encoding="ascii")):
            return content
    except (OSError, UnicodeDecodeError):
        pass
    content = read_content(files)
    try:
        with atomic_path(kept) as beside:
            beside.write_text(content, encoding="ascii")
    except OSError as error:  # a cache that is only read serves all the same
        logger.debug("The content of %s was not written down: %s", files.root, error)
    return content


def look_at(files: ImageListing) -> str:
    """Give what changes whenever a file is written to, in hex: a hash of the names, sizes and times of all files.

    Args:
        files: The images; they are not opened.
    """
    look = hashlib.sha256()
    for stamp in files.stamps():
        look.update(stamp.encode(errors="surrogateescape"))
    return look.hexdigest()


def read_content(files: ImageListing) -> str:
    """Read all files, on all cores.

    Args:
        files: The images.
    """
    names = files.source_names()
    content = hashlib.sha256()
    with ThreadPoolExecutor(min(MAX_THREADS, count_cores()), thread_name_prefix="read") as executor:
        chunks = (names[start : start + CHUNK] for start in range(0, len(names), CHUNK))
        for lines in executor.map(lambda chunk: list(_hash_files(files.root, chunk)), chunks):
            content.update(b"".join(lines))
    return content.hexdigest()


def count_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _hash_files(root: Path, names: list[str]) -> Iterator[bytes]:
    for name in names:
        try:
            with open(os.path.join(root, name), "rb", buffering=0) as file:
                content = hashlib.sha256(file.read()).digest()
        except OSError as error:
            if error.errno not in OF_THE_IMAGE:
                raise
            content = b"cannot be opened"
        yield name.encode(errors="surrogateescape") + b"\0" + content
