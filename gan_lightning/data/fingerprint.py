"""Hash of the content of all files of a listing: the part of a pack's fingerprint that depends on the images.

Every file is read once. The result is cached together with the sizes and times of the files, so that the next check
only lists the files. Images that were copied, or whose times have changed, are read again, but not packed again.
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
from gan_lightning.data.listing import IMAGE_ERRORS, ImageListing
from gan_lightning.hardware import count_cores

logger = logging.getLogger(__name__)

CHUNK = 256  # number of files that a thread reads at a time
MAX_THREADS = 16  # more threads would wait for the interpreter lock
_HASH = re.compile(r"[0-9a-f]{64}\Z")


def content_of(listing: ImageListing, cache: Path) -> str:
    """Return the SHA-256, in hex, of the names and bytes of a listing of images.

    Args:
        listing: The images.
        cache: Folder that stores the hashes of files with known sizes and times.

    Raises:
        OSError: If a file cannot be read because of a problem of the machine.
    """
    stored = cache / "sources" / look_at(listing)
    try:
        if _HASH.match(content := stored.read_text(encoding="ascii")):
            return content
    except (OSError, UnicodeDecodeError):
        pass
    content = read_content(listing)
    try:
        with atomic_path(stored) as beside:
            beside.write_text(content, encoding="ascii")
    except OSError as error:  # a read-only cache still serves
        logger.debug("The content of %s was not stored: %s", listing.root, error)
    return content


def look_at(listing: ImageListing) -> str:
    """Hash the names, sizes and times of all files without opening them; writing to a file changes the result."""
    look = hashlib.sha256()
    for stamp in listing.stamps():
        look.update(stamp.encode(errors="surrogateescape"))
    return look.hexdigest()


def read_content(listing: ImageListing) -> str:
    """Read all files, on all cores, and return the SHA-256 of their names and bytes, in hex.

    Raises:
        OSError: If a file cannot be read because of a problem of the machine.
    """
    names = listing.source_names()
    content = hashlib.sha256()
    with ThreadPoolExecutor(min(MAX_THREADS, count_cores()), thread_name_prefix="read") as executor:
        chunks = (names[start : start + CHUNK] for start in range(0, len(names), CHUNK))
        for lines in executor.map(lambda chunk: list(_hash_files(listing.root, chunk)), chunks):
            content.update(b"".join(lines))
    return content.hexdigest()


def _hash_files(root: Path, names: list[str]) -> Iterator[bytes]:
    for name in names:
        try:
            with open(os.path.join(root, name), "rb", buffering=0) as file:
                content = hashlib.sha256(file.read()).digest()
        except OSError as error:
            if error.errno not in IMAGE_ERRORS:
                raise
            content = b"cannot be opened"
        yield name.encode(errors="surrogateescape") + b"\0" + content
