"""The command `restore`, which restores photographs by running `predict`."""

from __future__ import annotations

import argparse
import contextlib
import logging
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from gan_lightning.commands.restore_job import Job
from gan_lightning.commands.restore_options import HELP as HELP
from gan_lightning.commands.restore_options import parse
from gan_lightning.errors import InputError, StorageError, mistake_behind


def main(words: Sequence[str]) -> int:
    """Restore photographs.

    Args:
        words: Words of the command line after `restore`.

    Returns:
        Exit status.

    Raises:
        InputError: If the command line, a photograph, the generator, a mask or the output cannot be used.
    """
    options, others = parse(words)
    if options.align is not None:
        from gan_lightning.commands.restore_aligned import restore_aligned  # slow to import

        return restore_aligned(options, others, restore)
    return restore(options, others)


def restore(options: argparse.Namespace, others: Sequence[str]) -> int:
    """Restore photographs without alignment, and return the exit status.

    Args:
        options: Options of the command.
        others: Options for `predict`.

    Raises:
        InputError: If a photograph, the generator, a mask or the output cannot be used.
    """
    job = Job(options)
    if options.print_config:
        predict([*job.command(others), "--print_config"])
        return 0
    with in_own_words():
        job.check()
        return run_job(job, others)


def run_job(job: Job, others: Sequence[str]) -> int:
    """Restore the photographs of a job, and return the exit status.

    Args:
        job: The job, which was checked.
        others: Options for `predict`.

    Raises:
        InputError: If a photograph, the generator, a mask or the output cannot be used.
        StorageError: If a result cannot be written.
    """
    import gan_lightning.cli  # noqa: F401  slow: before the time is taken
    from gan_lightning.resume.launcher import is_first_process

    is_first = is_first_process()  # on several GPUs, each process runs this command
    if is_first:
        print("\n".join(job.plan()), flush=True)
    earlier, made, started = job.finished(), job.missing_folders(), time.perf_counter()
    try:
        with contextlib.redirect_stdout(sys.stderr):  # the progress bar, and the report of `predict`
            predict(job.command(others))
    except Exception as error:
        if isinstance(cause := mistake_behind(error), InputError):
            remove_unless_finished(made, job)
            if job.finished().keys() - earlier.keys():  # a later photograph could not be read
                deliver_finished(job)
            raise InputError(str(cause)) from error
        deliver_finished(job)  # photographs that were finished before, for example, the disk was full
        raise
    except BaseException:
        deliver_finished(job)
        raise
    if is_first:
        print("\n".join(job.report(earlier, time.perf_counter() - started)))
    return 0


@contextlib.contextmanager
def in_own_words() -> Iterator[None]:
    """Name the options of this command, instead of those of `predict`, in errors for the user."""
    try:
        yield
    except InputError as error:
        message = str(error)
        for theirs, ours in (("--name", "--output"), ("masks_white: missing", "--mask_white missing")):
            message = message.replace(theirs, ours)
        raise InputError(message) from error


def deliver_finished(job: Job) -> None:
    """Deliver what was finished before an error, which is more important than another one here."""
    try:
        job.deliver()
    except (InputError, StorageError) as error:
        logging.getLogger(__name__).warning("%s", error)


def predict(words: Sequence[str]) -> None:
    """Run the command line of `predict` without messages of Lightning that are meaningless here."""
    from gan_lightning.cli import run  # slow to import

    for message in (".*LightningCLI's args parameter.*", ".*predict returned None.*"):  # of finished photographs
        warnings.filterwarnings("ignore", message)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    run(words)


def remove_unless_finished(made: Sequence[Path], job: Job) -> None:
    """Remove the folders that a command created if it was refused before anything was restored."""
    from gan_lightning.run import LOCK

    in_use = (job.folder / LOCK).exists()  # by another job that started at the same time
    if job.folder in made and not in_use and not job.finished():
        shutil.rmtree(job.folder, ignore_errors=True)
        for folder in made[1:]:
            with contextlib.suppress(OSError):  # others may write to it
                folder.rmdir()
