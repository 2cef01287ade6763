"""Files that are complete or absent: written beside their place, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, durable: bool = False) -> Iterator[Path]:
    """Give a path beside a file, which takes the file's place once the block has written it.

    Whatever interrupts the block, the file is as it was; an error leaves nothing beside it. Two processes that write
    one file don't harm each other: the last to finish wins.

    Args:
        path: File to write; its folder is made if it is missing.
        durable: Have the disk confirm the content before the rename, so that it outlives a loss of power.

    Yields:
        The path to write, in the same folder, hidden, ending in ".part".
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield beside
        if durable:
            with beside.open("rb") as file:
                os.fsync(file.fileno())
        beside.replace(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
