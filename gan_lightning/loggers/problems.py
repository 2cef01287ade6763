"""One-line messages for loggers that cannot be created."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from gan_lightning.errors import InputError, missing_package

# jsonargparse lists why a value fits none of the types of an option, including the error of the logger itself.
_IS_LOGGER = "lightning.pytorch.loggers.logger.Logger"
_REASON = re.compile(r"^  - (?!Expected |Not )(.*(?:\n    .*)*)", re.MULTILINE)
_CLASS = re.compile(r"Problem with given class_path '[\w.]*?(\w+)':\s*")


@contextmanager
def problems_of_loggers() -> Iterator[None]:
    """Convert an error in the creation of a logger within the context to one line.

    Raises:
        InputError: If a logger cannot be created: a package is missing, or its options exclude each other.
    """
    try:
        yield
    except ValueError as error:
        reason = None if isinstance(error, InputError) else _REASON.search(str(error))
        if reason is None or _IS_LOGGER not in str(error).partition("Errors:")[0]:
            raise
        first, *more = [line.strip() for line in _CLASS.sub("", reason[1]).strip().splitlines()]
        hints = " ".join(line for line in more if line.startswith("Hint"))
        name = found[1] if (found := _CLASS.search(reason[1])) else "trainer.logger"
        raise missing_package(error) or InputError(f"{name}: {first} {hints}".strip()) from error
