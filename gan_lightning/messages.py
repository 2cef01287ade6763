"""Log messages and warnings of a command, and one-line messages of its errors."""

from __future__ import annotations

import logging
import os
import re
import traceback
import warnings
from pathlib import Path

_DEAD_WORKER = re.compile(
    r"DataLoader worker \(pid\(?s?\)? ([\d, ]+)\) (?:is )?(killed by signal: [\w ]+|exited unexpectedly)"
)
_DEAD_RANK = re.compile(r"[Cc]onnection (?:closed|reset) by peer|remote process exited")  # of gloo, of nccl

_LOGGERS = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.rank_zero",
    "lightning.pytorch.trainer.connectors.checkpoint_connector",
)
_NEEDLESS_MESSAGES = re.compile(
    "litlogger"  # an advertisement
    "|TPU available: False"
    "|Trainer already configured with model summary callbacks"  # ours
    "|`weights_only` was not set"  # when a checkpoint is saved, where it means something else
    "|Loading `train_dataloader` to estimate"  # for the schedule of an encoder
    "|Restoring states from the checkpoint path"  # "Restored all states" follows
)


def show_messages() -> None:
    """Print the package's log messages on stderr, unless the program has set up its own logging."""
    package = logging.getLogger("gan_lightning")
    package.setLevel(logging.INFO)
    if not package.hasHandlers():
        package.addHandler(logging.StreamHandler())


def hide_needless_warnings() -> None:
    """Hide messages and advertisements that the user of a command can do nothing about, and the origin of warnings.

    Call this after the import of Lightning, which formats warnings in its own way.
    """
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(lambda record: _NEEDLESS_MESSAGES.search(record.getMessage()) is None)
    for message in (
        ".*LeafSpec.*",  # Lightning's use of a torch function
        ".*module\\(s\\) in eval mode.*",  # the averaged generator, on purpose
        ".*AccumulateGrad node's stream.*",  # DDP looks at the networks on a stream of its own
        ".*does not have many workers.*",  # packed images need none
        ".*is not supported by the model summary.*",  # of a size in MB, which ours does not state
        ".*pre-optimization state.*",  # a checkpoint after the step is what we want
        ".*dataloader is not resumable.*",  # ours is: its order is a function of seed and epoch
        ".*callbacks used to create the checkpoint need to be.*ModelCheckpoint.*",  # we say so
        ".*Checkpoint directory .* exists and is not empty.*",  # a resumed run
        ".*The dirpath has changed from.*",  # a checkpoint that is measured is one of another run
        ".*callbacks used to create the checkpoint need to be provided.*",  # or it was monitored by another metric
    ):
        warnings.filterwarnings("ignore", message)
    warnings.formatwarning = _format_warning


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Format a warning, without the source line for warnings of this package and of Lightning, which are for users."""
    if {"gan_lightning", "lightning"} & set(Path(filename).parts):
        return f"{message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def one_line(error: BaseException) -> str:
    """Return the message of an error, without the traceback that torch adds to an error of a data worker.

    Args:
        error: Error meant for the user, possibly raised again by a DataLoader.
    """
    message = str(error).strip()
    if not message.startswith("Caught "):
        return message
    return message.splitlines()[-1].partition(": ")[2]


def dead_worker(error: BaseException) -> str | None:
    """Return what to do about an error caused by the death of a data worker; None for any other error.

    Args:
        error: Error that ended the command: torch's own, or that of a tensor that the dead worker did not deliver.
    """
    found = _DEAD_WORKER.search(str(error)) if isinstance(error, RuntimeError) else None
    if found is not None:
        how = f" (pid {found[1]}) {'was ' * found[2].startswith('killed')}{found[2]}"
    elif isinstance(error, ConnectionError | EOFError) and _raised_in_transfer(error):
        how = " was killed"
    else:
        return None
    return (
        f"a process that reads images{how}, perhaps out of memory: lower data.num_workers, and resume the run with "
        "--ckpt_path last"
    )


def dead_rank(error: BaseException) -> str | None:
    """Return what to do about an error caused by another rank that died without a message; None for any other."""
    if not isinstance(error, RuntimeError) or _DEAD_RANK.search(str(error)) is None:
        return None
    return (
        "another process of this job has ended without a message, perhaps killed for lack of memory: see its log, and "
        "resume the run with --ckpt_path last"
    )


def _raised_in_transfer(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return any(frame.filename.endswith(os.path.join("torch", "multiprocessing", "reductions.py")) for frame in frames)
