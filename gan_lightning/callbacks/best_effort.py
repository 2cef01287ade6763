"""What a run can do without: pictures and summaries never end it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_log = logging.getLogger(__name__)


@contextmanager
def best_effort(what: str, errors: type[Exception] = OSError) -> Iterator[None]:
    """Go on without a file that cannot be written, as on a full disk, and say so.

    Args:
        what: The file, as the message calls it.
        errors: What is passed over.
    """
    try:
        yield
    except errors as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        _log.warning("%s could not be written (%s): the run goes on without it", what, reason)
