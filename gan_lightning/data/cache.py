"""The folder of derived data (packed images, statistics), and locks that admit one writer at a time."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from gan_lightning.errors import InputError

logger = logging.getLogger(__name__)


def default_cache_dir() -> Path:
    """Return the folder for derived data, which can be deleted at any time.

    Returns:
        `$GAN_LIGHTNING_CACHE`, else `$XDG_CACHE_HOME/gan-lightning`, else `~/.cache/gan-lightning`. It may not exist.
    """
    if own := os.environ.get("GAN_LIGHTNING_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "gan-lightning"


def make_cache_dir(cache_dir: str | os.PathLike[str] | None) -> Path:
    """Create the cache folder, `default_cache_dir()` if None, and return its path.

    Raises:
        InputError: If the folder cannot be created.
    """
    folder = Path(cache_dir).expanduser() if cache_dir else default_cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"Cannot create the cache folder {folder} ({error.strerror}): set cache_dir or $GAN_LIGHTNING_CACHE."
        ) from error
    return folder


@contextmanager
def exclusive(path: Path) -> Iterator[bool]:
    """Hold a lock, waiting for other processes. The system releases it when the process ends in any way.

    Args:
        path: The lock file. It is created if it does not exist.

    Yields:
        Whether the lock is held. Some network file systems do not support locks; the body then runs without one. It
        must be safe without a lock, and use the lock only to save work and to clean up.
    """
    # By default filelock would fall back to a marker file, which a killed process leaves behind on a shared disk.
    lock = FileLock(path, fallback_to_soft=False)
    held = _acquire(lock)
    try:
        yield held
    finally:
        lock.release()


def exclusive_root(root: Path, cache_dir: str | None) -> AbstractContextManager[bool]:
    """Lock a folder of source images while it is written to, for all nodes that share the cache folder."""
    key = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    return exclusive(make_cache_dir(cache_dir) / f".root-{key}.lock")


def _acquire(lock: BaseFileLock) -> bool:
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            logger.info("Waiting for another process that holds %s", lock.lock_file)
            lock.acquire()
    except OSError:  # locks are unsupported, or the file cannot be written
        return False
    return True
