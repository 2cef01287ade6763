"""Where derived data is kept (packed images, statistics), and one writer at a time."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gan_lightning.errors import InputError

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger(__name__)


def default_cache_dir() -> Path:
    """The folder for derived data, which is always safe to delete.

    Returns:
        `$GAN_LIGHTNING_CACHE`, else `$XDG_CACHE_HOME/gan-lightning`, else `~/.cache/gan-lightning`; not made yet.
    """
    if own := os.environ.get("GAN_LIGHTNING_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "gan-lightning"


def make_cache_dir(cache_dir: str | os.PathLike[str] | None) -> Path:
    """Make the cache folder if it is missing.

    Args:
        cache_dir: The folder, or None for `default_cache_dir()`.

    Returns:
        Its path.

    Raises:
        InputError: If it cannot be made.
    """
    folder = Path(cache_dir).expanduser() if cache_dir else default_cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"Cannot make the cache folder {folder} ({error.strerror}): set cache_dir or $GAN_LIGHTNING_CACHE."
        ) from error
    return folder


@contextmanager
def exclusive(path: Path) -> Iterator[bool]:
    """Hold a lock that the system drops when its process ends, however it ends; waits while another holds it.

    Args:
        path: The lock file; made if missing, and left in place, since to remove it would race with those who wait.

    Yields:
        Whether the lock is held. Some network file systems have none: then the body runs all the same, so it must be
        safe without, and only uses the lock to save work and to clean up.
    """
    with path.open("a") as file:
        yield _lock(file.fileno(), path)


def _lock(descriptor: int, path: Path) -> bool:
    if sys.platform == "win32":
        return False
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("Waiting for another process that holds %s", path)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        return False
    return True
