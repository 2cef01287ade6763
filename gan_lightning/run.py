"""The folder of a run: its name, and the claim that keeps a second job out of it."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import socket
from datetime import datetime
from pathlib import Path

from gan_lightning.atomic import atomic_path
from gan_lightning.errors import InputError
from gan_lightning.resume.jobs import job_stamp

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_log = logging.getLogger(__name__)

RUN_NAME_VARIABLE = "GAN_LIGHTNING_RUN"  # hands the name to the processes that Lightning starts for other GPUs
CLAIM = ".claim"
WANDB_ID = ".wandb-id"
HELD_ELSEWHERE = (errno.EACCES, errno.EAGAIN)
TRACES_OF_A_RUN = ("metrics.csv", "summary.json", "checkpoints", "records")


def run_folder(root: str | None, name: str | None, command: str) -> Path:
    """Give the folder of a run: `root` itself if the user set it, else runs/NAME, on every rank the same."""
    if root is not None and name is None:
        return Path(root)
    if name is None:
        name = os.environ.get(RUN_NAME_VARIABLE)
    if name is None:
        stamp = job_stamp(datetime.now().strftime("%Y%m%d-%H%M%S"))
        if stamp is None:
            raise InputError("under this torchrun, each process would find a name of its own: add --name NAME")
        name = os.environ[RUN_NAME_VARIABLE] = f"{command}-{stamp}"
    return Path(root or "runs") / name


class RunFolder:
    """The run folder as long as a job is at work in it; no second job gets it.

    The claim is a lock of the system's on a file in the folder: it ends with the process, however that ends, and on
    network file systems it holds between nodes. Only the first rank of a job claims.
    """

    def __init__(self, folder: Path) -> None:
        """Make the folder, and claim it.

        Args:
            folder: The run folder.

        Raises:
            InputError: It cannot be written to, or another job is at work in it.
        """
        self.folder, self._claim = folder, folder / CLAIM
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._lock()
        except OSError as error:
            raise InputError(
                f"the run folder {folder} cannot be written to ({error.strerror}): choose --name"
            ) from error
        self.remove_leftovers()

    def _lock(self) -> int:
        while True:
            file = os.open(self._claim, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                if fcntl is not None:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = os.read(file, 200).decode(errors="replace").strip()
                os.close(file)
                if error.errno in HELD_ELSEWHERE:
                    raise InputError(
                        f"another job is at work in {self.folder} ({holder or 'just starting'}): choose another "
                        "--name, or wait until it has ended"
                    ) from error
                _log.warning("%s has no locks: see that no second job uses this run folder", self.folder)
                return -1
            if self._is_ours(file):
                os.truncate(file, 0)
                os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
                return file
            os.close(file)  # its owner has removed it between our opening and locking: it keeps out nobody

    def _is_ours(self, file: int) -> bool:
        try:
            return os.path.samestat(os.stat(self._claim), os.fstat(file))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give the folder free; the end of the process does so too."""
        if self._file >= 0:
            self._claim.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1

    def remove_leftovers(self) -> None:
        """Remove what a job that was killed had begun to write."""
        for part in (*self.folder.glob(".*.part"), *self.folder.glob("*/.*.part")):
            part.unlink(missing_ok=True)

    def wandb_id(self, goes_on: bool) -> str:
        """Give the identity of the run in W&B, the same each time that it goes on.

        Args:
            goes_on: Whether the command goes on with the run that the folder holds.
        """
        kept = self.folder / WANDB_ID
        if goes_on and kept.is_file():
            return kept.read_text().strip()
        identity = secrets.token_hex(4)
        with atomic_path(kept) as path:
            path.write_text(identity + "\n")
        return identity

    def configuration_name(self, goes_on: bool) -> str:
        """Give the name under which to write the configuration.

        Args:
            goes_on: Whether the command may go on with the run that the folder holds.

        Raises:
            InputError: The folder holds a run that this one does not resume.
        """
        if not any((self.folder / trace).exists() for trace in TRACES_OF_A_RUN):
            return "config.yaml"
        if not goes_on and not any(self.folder.glob("hpc_ckpt_*.ckpt")):  # those are of a job that Slurm requeued
            raise InputError(
                f"{self.folder} holds a run already: choose another --name, or go on with it by --ckpt_path last"
            )
        return f"config-{datetime.now().strftime('%Y%m%d-%H%M%S')}.yaml"
