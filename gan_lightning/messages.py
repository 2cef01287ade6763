"""What the package says on the way, and how an error from the depths becomes one line."""

from __future__ import annotations

import logging
import os
import re
import traceback

_DEAD_WORKER = re.compile(
    r"DataLoader worker \(pid\(?s?\)? ([\d, ]+)\) (?:is )?(killed by signal: [\w ]+|exited unexpectedly)"
)


def show_messages() -> None:
    """Have what the package reports on the way printed, on stderr, unless the program has set up its own logging."""
    package = logging.getLogger("gan_lightning")
    package.setLevel(logging.INFO)
    if not package.hasHandlers():
        package.addHandler(logging.StreamHandler())


def one_line(error: BaseException) -> str:
    """Give the message of an error that is meant for people.

    Args:
        error: One that may come out of a DataLoader's worker: torch puts a whole traceback in place of the message, at
            the end of which it stands.
    """
    message = str(error).strip()
    if not message.startswith("Caught "):
        return message
    return message.splitlines()[-1].partition(": ")[2]


def dead_worker(error: BaseException) -> str | None:
    """Say what to do about an error that comes of a data worker's sudden end; None for any other.

    Args:
        error: What ended the command: torch's own error, or that of a tensor which the worker had yet to hand over.
    """
    found = _DEAD_WORKER.search(str(error)) if isinstance(error, RuntimeError) else None
    if found is not None:
        how = f" (pid {found[1]}) {'was ' * found[2].startswith('killed')}{found[2]}"
    elif isinstance(error, ConnectionError | EOFError) and _in_handing_over(error):
        how = " was killed"
    else:
        return None
    return (
        f"a process that reads images{how}, perhaps for want of memory: lower data.num_workers, and go on by "
        "--ckpt_path last"
    )


def _in_handing_over(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return any(frame.filename.endswith(os.path.join("torch", "multiprocessing", "reductions.py")) for frame in frames)
