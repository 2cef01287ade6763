"""File names in any encoding, length or script: as printed in messages, and as used for output files."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

MAX_BYTES = 255  # maximum length of a name in every common file system
IMAGE_SUFFIXES = frozenset(  # of common formats that Pillow reads
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".jp2"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)


def printable(name: str | os.PathLike[str]) -> str:
    """Return a name or path for a message or a table, with escaped control characters and bytes that are not UTF-8."""
    text = os.fspath(name).encode(errors="surrogateescape").decode(errors="backslashreplace")
    return "".join(repr(letter)[1:-1] if unicodedata.category(letter) == "Cc" else letter for letter in text)


def writable(name: str, limit: int) -> str:
    """Return a name, without a folder, that is valid in any file system and any text encoding.

    Args:
        name: The name. Control characters and bytes that are not UTF-8 become underscores.
        limit: Maximum number of bytes. A longer name is shortened and ends with a hash of the whole, which
            distinguishes names with the same beginning.
    """
    text = "".join("_" if unicodedata.category(letter) in ("Cc", "Cs") else letter for letter in name)
    if len(text.encode()) <= limit:
        return text
    digest = f"-{_digest(name)}"
    return text.encode()[: limit - len(digest)].decode(errors="ignore") + digest


def target_names(names: Sequence[str]) -> dict[str, str]:
    """Return the name of the result of each photograph: its own name, with as much of its path as makes it unique.

    Names that differ only in their case, or in characters that cannot be written, get a hash of the whole name: some
    file systems take them for the same.
    """
    for shorten in (lambda path: path.stem, lambda path: str(path.with_suffix("")), str):
        found = {name: "/".join(writable(part, 240) for part in shorten(Path(name)).split("/")) for name in names}
        if len({target.casefold() for target in found.values()}) == len(names):
            break
    shared = Counter(target.casefold() for target in found.values())
    digests = {name: f"-{_digest(name)}" if shared[target.casefold()] > 1 else "" for name, target in found.items()}
    return {name: f"{target}{digests[name]}.png" for name, target in found.items()}


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]
