"""Atomic writes: a file is written under a temporary name and then renamed."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gan_lightning.file_names import MAX_BYTES, writable


def own_suffix() -> str:
    """Return a suffix for temporary files that is unique to this process among all hosts that share the disk."""
    # Process numbers coincide between containers, and host names between those that share a network.
    return f".{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.part"


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path that replaces a file when the block ends.

    If the block is interrupted, the file does not change; after an error the temporary file is removed. Several
    processes may write the same file: the last one to finish wins.

    Args:
        path: File to write. Its folder is created if it does not exist.
        durable: Sync the content to disk before the rename, so that it survives a power failure.

    Yields:
        A hidden path in the same folder, with the suffix ".part".
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    suffix = own_suffix()
    beside = target.with_name(writable(f".{target.name}", MAX_BYTES - len(suffix)) + suffix)
    try:
        yield beside
        if durable:
            with beside.open("rb") as file:
                os.fsync(file.fileno())
        beside.replace(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
