"""What the scheduler of a cluster tells a process: which job it is a part of, if it runs again, when it will end."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from torch import distributed

STARTS_BEFORE = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")

_log = logging.getLogger(__name__)


def job_stamp(own: str) -> str | None:
    """Give a word that tells this run from others, and that every process of the job finds.

    Under Slurm it is the number of the job, which a requeued job keeps. Under torchrun it is the word of the process
    that asks first, or the rendezvous' identity where the launcher shares no store.

    Args:
        own: The word that this process would choose for itself, such as the time.

    Returns:
        The word; None under a torchrun whose processes cannot find a common one.
    """
    if job := os.environ.get("SLURM_JOB_ID"):
        return job
    run = os.environ.get("TORCHELASTIC_RUN_ID")
    if run is None:
        return own
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        # The launcher's store outlives processes that are started anew: these find the first one's word.
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = distributed.TCPStore(address, port, is_master=False)  # type: ignore[attr-defined]
        return str(store.compare_set("gan_lightning/run", "", own).decode())
    return None if run == "none" else run  # torchrun's default


def runs_again() -> bool:
    """Whether the scheduler has started this job before: Slurm after a requeue, torchrun after a failure."""
    return any(int(os.environ.get(name) or 0) > 0 for name in STARTS_BEFORE)


@contextmanager
def requeued_when_warned() -> Iterator[None]:
    """Within it SIGUSR1, Slurm's warning, ends a command as SIGTERM does; Slurm then gets the job into its queue again.

    Lightning's own answer to SIGUSR1, which this takes the place of, saves in the middle of a step, and meets the
    other ranks in the middle of whatever they are at.
    """
    process, warned = os.getpid(), False

    def warn(number: int, frame: FrameType | None) -> None:
        nonlocal warned
        if os.getpid() != process:  # Slurm signals workers too, and theirs is not to end before the training
            return
        warned = True
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            raise SystemExit(128 + signal.SIGTERM)  # nothing has begun that would have to be saved
        os.kill(process, signal.SIGTERM)

    listening = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGUSR1, warn) if listening else None
    try:
        yield
    except SystemExit:
        if warned and os.environ.get("SLURM_PROCID", "0") == "0":
            requeue()
        raise
    finally:
        if listening:
            signal.signal(signal.SIGUSR1, before)


def requeue() -> bool:
    """Put this job into Slurm's queue again, and say so; outside Slurm nothing happens.

    Returns:
        Whether Slurm did it.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return False
    if (array := os.environ.get("SLURM_ARRAY_JOB_ID")) is not None:
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip()
        _log.warning("Slurm did not requeue job %s (%s): `scontrol requeue %s` does it by hand", job, reason, job)
        return False
    print(f"Slurm has job {job} in its queue again", flush=True)
    return True
