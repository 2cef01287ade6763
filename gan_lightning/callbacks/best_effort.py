"""Optional output of a run: a picture or summary that cannot be written never stops the run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_log = logging.getLogger(__name__)


@contextmanager
def best_effort(what: str, errors: type[Exception] | tuple[type[Exception], ...] = OSError) -> Iterator[None]:
    """Log a warning instead of an error if a file cannot be written, as on a full disk.

    Args:
        what: Name of the file in the warning.
        errors: Type or types of the errors to ignore.
    """
    try:
        yield
    except errors as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        _log.warning("%s could not be written (%s): the run continues without it", what, reason)
