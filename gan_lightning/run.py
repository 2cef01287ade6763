"""A run: its name and folder, the lock on it, and what it resumes from."""

from __future__ import annotations

import errno
import inspect
import json
import logging
import os
import secrets
import socket
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from lightning import LightningModule

from gan_lightning.atomic import atomic_path
from gan_lightning.errors import InputError
from gan_lightning.modules.safe_loading import constructor_options
from gan_lightning.networks.checkpoints import check_whole, load_tensors
from gan_lightning.resume.checkpoint_io import LAST, PREVIOUS
from gan_lightning.resume.jobs import job_stamp, runs_again

_log = logging.getLogger(__name__)

RUN_NAME_VARIABLE = "GAN_LIGHTNING_RUN"  # hands the name to the processes that Lightning starts for other GPUs
LOCK = ".claim"
WANDB_ID = ".wandb-id"
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)  # on some network file systems
TRACES_OF_A_RUN = ("metrics.csv", "summary.json", "checkpoints", "records")


class Run:
    """A command and the folder it runs in.

    Every rank has a `Run` of the same folder; only the first claims it. The claim is a lock of the operating system on
    a file in the folder: it ends with the process, however that ends, and on network file systems it holds between
    nodes.

    Attributes:
        folder: Folder of the run.
        resumes: Whether the command resumes the run in the folder; known once `resolve_checkpoint` was called.
        config_name: File name for the configuration; a resumed run keeps those of earlier commands.
    """

    def __init__(self, command: str, name: str | None = None, root: str | None = None) -> None:
        """Find the folder; nothing is written yet.

        Args:
            command: Subcommand, such as "fit".
            name: Name of the run; None for the command and the time or the number of the job.
            root: Parent of the folder, "runs" by default; the folder itself if there is no name.

        Raises:
            InputError: If the processes of this job cannot agree on a name.
        """
        self.command, self.resumes, self.config_name = command, False, "config.yaml"
        self._named = name is not None or root is not None
        self.folder = run_folder(root, name, command)
        self._lock = FileLock(self.folder / LOCK, timeout=0.5, fallback_to_soft=False)

    @property
    def checkpoints(self) -> Path:
        """Folder of the run's checkpoints."""
        return self.folder / "checkpoints"

    def resolve_checkpoint(self, given: str | None) -> str | None:
        """Return the path of the checkpoint to start from, and note whether this resumes the run.

        A job that its scheduler has started again resumes from its last checkpoint, whatever it began with.

        Args:
            given: Path, "last" for the last checkpoint of this run, or None.

        Returns:
            The path; None for a fit that starts at its first step.

        Raises:
            InputError: If "last" is given without a name.
        """
        again, fit, last = runs_again(), self.command == "fit", given == "last"
        if last and not self._named and not (again and fit):
            raise InputError("--ckpt_path last needs the run that it belongs to: add --name NAME")
        inside = given is not None and self.folder.resolve() in Path(given).resolve().parents
        self.resumes = again or (fit and (self.folder.is_dir() if last else inside))
        if not last and not (again and fit):
            return given
        paths = [self.checkpoints / name for name in (LAST, PREVIOUS)]
        if path := next((path for path in paths if path.exists()), None):
            return str(path)
        if not last:
            return given
        return None if self.resumes and fit else str(paths[0])

    def claim(self, may_resume: bool = False) -> None:
        """Make the folder and lock it, and remove what a killed job left half written.

        Args:
            may_resume: Whether the command continues any earlier run in its folder, as a restoration does.

        Raises:
            InputError: If the folder is read-only, in use by another job, or holds a run that is not to be resumed.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._acquire_lock()
        except OSError as error:
            reason = error.strerror
            raise InputError(f"the run folder {self.folder} cannot be written ({reason}): choose --name") from error
        for part in (*self.folder.glob(".*.part"), *self.folder.glob("*/.*.part")):
            part.unlink(missing_ok=True)
        if not any((self.folder / trace).exists() for trace in TRACES_OF_A_RUN):
            return
        # Slurm's own checkpoints are of a job that was requeued.
        if not (self.resumes or may_resume or any(self.folder.glob("hpc_ckpt_*.ckpt"))):
            way = "resume it with --ckpt_path last" if self.command == "fit" else "give its checkpoint by its path"
            raise InputError(f"{self.folder} already holds a run: choose another --name, or {way}")
        self.config_name = f"config-{datetime.now().strftime('%Y%m%d-%H%M%S')}.yaml"

    def _acquire_lock(self) -> None:
        file = Path(self._lock.lock_file)
        try:
            self._lock.acquire()
        except Timeout as error:
            holder = file.read_text().strip() if file.exists() else ""
            raise InputError(
                f"{self.folder} is in use by another job ({holder or 'just starting'}): choose another --name, or wait "
                "until it has ended"
            ) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            _log.warning("%s does not support locks: make sure that no second job uses this run folder", self.folder)
        else:
            file.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")

    def release(self) -> None:
        """Unlock the folder; the lock also ends with the process."""
        if self._lock.is_locked:
            Path(self._lock.lock_file).unlink(missing_ok=True)  # while it is locked: nobody else's file is removed
            self._lock.release()

    def wandb_id(self) -> str:
        """Return the W&B id of the run, which a resumed run keeps."""
        kept = self.folder / WANDB_ID
        if self.resumes and kept.is_file():
            return kept.read_text().strip()
        identity = secrets.token_hex(4)
        with atomic_path(kept) as path:
            path.write_text(identity + "\n")
        return identity

    def report(self, monitor: str | None) -> str:
        """Describe what the folder holds now, and how far the monitored metric of a fit came."""
        contents = sorted(path.name + "/" * path.is_dir() for path in self.folder.iterdir() if path.name[0] != ".")
        lines = [f"\nThe results are in {self.folder}: {', '.join(contents)}"]
        summary = self.folder / "summary.json"
        metrics = json.loads(summary.read_text())["metrics"] if summary.is_file() else {}
        if self.command == "fit" and (reached := metrics.get(monitor)):
            lines.append(
                f"{monitor}: " + ", ".join(f"{reached[which]:.4g} {which}" for which in ("first", "best", "last"))
            )
        return "\n".join(lines)


def run_folder(root: str | None, name: str | None, command: str) -> Path:
    """Return the folder of a run, the same on every rank: `root` itself if only that is given, else runs/NAME.

    Raises:
        InputError: If the processes of this job cannot agree on a name.
    """
    if root is not None and name is None:
        return Path(root)
    if name is None:
        name = os.environ.get(RUN_NAME_VARIABLE)
    if name is None:
        stamp = job_stamp(datetime.now().strftime("%Y%m%d-%H%M%S"))
        if stamp is None:
            raise InputError("the processes of this torchrun cannot agree on a name for the run: add --name NAME")
        name = os.environ[RUN_NAME_VARIABLE] = f"{command}-{stamp}"
    return Path(root or "runs") / name


def check_checkpoint(path: str, model_class: type[LightningModule]) -> dict[str, Any]:
    """Check that a file is an undamaged checkpoint of this class of model.

    Returns:
        Its hyperparameters, by the names of the arguments of the class.

    Raises:
        InputError: If it is not; if last.ckpt is damaged, the message names the checkpoint to use instead.
    """
    try:
        check_whole(path)
        content = load_tensors(path)
    except InputError as error:
        former = Path(path).with_name(PREVIOUS)
        if Path(path).name != LAST or not former.is_file():
            raise
        check_checkpoint(str(former), model_class)
        raise InputError(f"{error}; the one before it is whole: --ckpt_path {former}") from error
    if not isinstance(content, dict) or not {"state_dict", "hyper_parameters"} <= content.keys():
        raise InputError(f"{path} is not a checkpoint of {model_class.__name__}: give one from runs/NAME/checkpoints")
    found = {key: value for key, value in content["hyper_parameters"].items() if key[0] != "_"}  # Lightning's own
    known = {option.partition(".")[0] for option in constructor_options(model_class)}
    # A module trained in Python saves the arguments of its parents' constructors too; its own sets them.
    of_parents = {name for base in model_class.__mro__ for name in inspect.signature(base).parameters}
    if unknown := ", ".join(sorted(found.keys() - known - of_parents)):
        raise InputError(
            f"{path} is of another model or version: {model_class.__name__} has no setting {unknown}; give another "
            "checkpoint, or use the version that wrote it"
        )
    return {name: value for name, value in found.items() if name in known}
