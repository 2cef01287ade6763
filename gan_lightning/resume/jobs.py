"""Jobs of a cluster: their id, their restarts, and the scheduler's warning before the time limit."""

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

from gan_lightning.resume.launcher import find_launch, is_interactive_job

STARTS_BEFORE = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")

_log = logging.getLogger(__name__)


def job_stamp(own: str) -> str | None:
    """Return a string that identifies the run and is the same in all processes of a job.

    Under Slurm it is the number of the job, which a requeued job keeps. Under torchrun it is the string of the first
    process that asks, or the rendezvous id if the launcher shares no store. With any other launcher, the processes
    cannot communicate before the process group exists.

    Args:
        own: String that a single process would use, for example the time.

    Returns:
        The common string, or None if the processes cannot agree on one.
    """
    if (job := os.environ.get("SLURM_JOB_ID")) and not is_interactive_job():  # many commands share such a job
        return job
    run = os.environ.get("TORCHELASTIC_RUN_ID")
    if run is None:
        return own if (launch := find_launch()) is None or launch.processes == 1 else None
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        # The launcher's store outlives restarted processes, which find the string of the first one.
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = distributed.TCPStore(address, port, is_master=False)  # type: ignore[attr-defined]
        return str(store.compare_set("gan_lightning/run", "", own).decode())
    return None if run == "none" else run  # "none" is torchrun's default


def runs_again() -> bool:
    """Return whether this job was restarted, by Slurm after a requeue or by torchrun after a failure."""
    return any(int(os.environ.get(name) or 0) > 0 for name in STARTS_BEFORE)


@contextmanager
def requeued_when_warned() -> Iterator[None]:
    """Treat SIGUSR1, Slurm's warning, like SIGTERM within the context, and requeue the job when the command ends.

    This replaces Lightning's handler of SIGUSR1, which saves in the middle of a step, at a different point on each
    rank.
    """
    process, warned = os.getpid(), False

    def warn(number: int, frame: FrameType | None) -> None:
        nonlocal warned
        if os.getpid() != process:  # Slurm also signals data workers, which must not end before the training
            return
        warned = True
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            raise SystemExit(128 + signal.SIGTERM)  # no training has started: nothing to save
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
    """Put this job back into Slurm's queue and print a message; do nothing outside Slurm.

    Returns:
        Whether the job was requeued.
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
        _log.warning("Slurm did not requeue job %s (%s): requeue it with `scontrol requeue %s`", job, reason, job)
        return False
    print(f"Slurm has requeued job {job}", flush=True)
    return True
