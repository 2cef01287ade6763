"""A run: its name, its folder with a lock, and the checkpoint from which it resumes."""

from __future__ import annotations

import errno
import inspect
import json
import logging
import os
import secrets
import socket
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from lightning import LightningModule

from gan_lightning.atomic import atomic_path
from gan_lightning.errors import InputError
from gan_lightning.loggers import wandb_artifacts
from gan_lightning.loggers.wandb_config import WANDB_ID
from gan_lightning.modules.safe_loading import constructor_options
from gan_lightning.modules.saved_weights import checkpoint_of_weights
from gan_lightning.networks.checkpoints import check_whole, load_tensors
from gan_lightning.pretrained import check_name, weights_folder
from gan_lightning.resume.checkpoint_io import LAST, PREVIOUS
from gan_lightning.resume.jobs import job_stamp, runs_again

_log = logging.getLogger(__name__)

RUN_NAME_VARIABLE = "GAN_LIGHTNING_RUN"  # passes the name to the processes that Lightning starts for other GPUs
LOCK = ".claim"
UNTRAINED = "untrained"
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)  # on some network file systems
TRACES_OF_A_RUN = ("metrics.csv", "summary.json", "checkpoints", "records")


class Run:
    """A command with its run folder.

    `validate`, `test` and `predict` with a run's own checkpoint get a folder inside that of the run. A trial
    (Lightning's `fast_dev_run`) gets a temporary folder.

    Every rank has a `Run` of the same folder; only the first rank claims it. The claim is a lock of the operating
    system
    on a file in the folder: the system releases it when the process ends in any way, and on network file systems it
    also excludes other nodes.

    Attributes:
        folder: Folder of the run.
        label: Name of the run in loggers.
        resumes: Whether the command resumes the run in the folder; set by `resolve_checkpoint`.
        config_name: File name of the configuration; a resumed run keeps those of earlier commands.
    """

    def __init__(
        self, command: str, name: str | None = None, root: str | None = None, *, trial: int | bool = False
    ) -> None:
        """Find the folder; nothing is written yet.

        Args:
            command: Subcommand, such as "fit".
            name: Name of the run; None for the command and the time or the number of the job.
            root: Parent of the folder, "runs" by default; the folder itself if there is no name.
            trial: Whether this is a trial, which keeps nothing.

        Raises:
            InputError: If the processes of this job cannot agree on a name.
        """
        self.command, self.resumes, self.config_name = command, False, "config.yaml"
        self._named, self._stated = name is not None or root is not None, RUN_NAME_VARIABLE in os.environ
        self.folder = run_folder(root, name, command)
        self.label = self.folder.name
        self._trial = tempfile.TemporaryDirectory(prefix="gan-lightning-trial-") if trial else None
        self._lock: FileLock | None = None
        self._made: list[Path] = []  # folders created by this command

    @property
    def checkpoints(self) -> Path:
        """Folder of the run's checkpoints."""
        return self.folder / "checkpoints"

    @property
    def is_trial(self) -> bool:
        """Whether nothing of this command is kept."""
        return self._trial is not None

    def resolve_checkpoint(self, given: str | None, needs_training: bool = True) -> str | None:
        """Return the path of the checkpoint to start from, and record whether this resumes the run.

        A job that was restarted by its scheduler resumes from its last checkpoint, regardless of its first one.

        Args:
            given: Path; "last" or "best" for that checkpoint of this run; "wandb:ENTITY/PROJECT/NAME:best" for a
                download; "untrained" for none; or None.
            needs_training: Whether the model needs a checkpoint to measure or sample networks.

        Returns:
            The path; None for a fit that starts at its first step, and for untrained networks.

        Raises:
            InputError: If "last" or "best" is given without a name, or a command that needs trained networks has no
                checkpoint.
        """
        again, fit, kept = runs_again(), self.command == "fit", given in ("last", "best")
        if kept and not self._named and not (again and fit):
            raise InputError(f"--ckpt_path {given} needs the run that it belongs to: add --name NAME")
        if given is None and not fit and needs_training:
            raise InputError(
                f"{self.command} needs trained networks: add --ckpt_path PATH, or --name NAME --ckpt_path best (or "
                f"last) for a run's own; --ckpt_path {UNTRAINED} takes them as they are initialized"
            )
        inside = given is not None and self.folder.resolve() in Path(given).resolve().parents
        self.resumes = again or (fit and (self.folder.is_dir() if kept else inside))
        path = self._find_checkpoint(given) if kept or (again and fit) else given
        if kept and not fit:
            self.folder /= default_name(f"{self.command}-{given}")
            self.label = f"{self.folder.parent.name}/{self.folder.name}"
        if self._trial is not None:
            self.folder, self.resumes = Path(self._trial.name), False
        if path is not None and path.startswith(wandb_artifacts.PREFIX):
            return wandb_artifacts.fetch_checkpoint(path)
        if path is not None and path != UNTRAINED and (weights := weights_folder(path)) is not None:
            return checkpoint_of_weights(weights, self.command)
        return None if path == UNTRAINED else path

    def _find_checkpoint(self, given: str | None) -> str | None:
        """Return the path of the last or best checkpoint, which may not exist; None if there are none yet."""
        if given == "best" and not runs_again():
            return str(best_checkpoint(self.checkpoints))
        paths = [self.checkpoints / name for name in (LAST, PREVIOUS)]
        if path := next((path for path in paths if path.exists()), None):
            return str(path)
        if given not in ("last", "best"):
            return given
        return None if self.resumes and self.command == "fit" else str(paths[0])

    def claim(self, may_resume: bool = False) -> None:
        """Create the folder and lock it, and remove unfinished files of a killed job.

        Args:
            may_resume: Whether the command continues any earlier run in its folder, like a restoration.

        Raises:
            InputError: If the folder is read-only, in use by another job, or contains a run that is not resumed.
        """
        if self.is_trial:
            return
        self._made = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._acquire_lock()
        except OSError as error:
            reason = error.strerror
            raise InputError(f"the run folder {self.folder} cannot be written ({reason}): choose --name") from error
        inside = [path for path in self.folder.iterdir() if path.is_dir() and not (path / LOCK).exists()]
        for folder in (self.folder, *inside):
            for part in folder.glob(".*.part"):
                part.unlink(missing_ok=True)
        if not any((self.folder / trace).exists() for trace in TRACES_OF_A_RUN):
            return
        # Lightning writes such checkpoints when a Slurm job is requeued.
        if not (self.resumes or may_resume or any(self.folder.glob("hpc_ckpt_*.ckpt"))):
            own = "resume it with --ckpt_path last" if self.command == "fit" else "take its --ckpt_path best or last"
            raise InputError(f"{self.folder} already holds a run: choose another --name, or {own}")
        self.config_name = f"config-{datetime.now().strftime('%Y%m%d-%H%M%S')}.yaml"

    def _acquire_lock(self) -> None:
        file = self.folder / LOCK
        lock = FileLock(file, timeout=0.5, fallback_to_soft=False)
        try:
            lock.acquire()
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
            self._lock = lock
            file.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")

    def release(self) -> None:
        """Unlock the folder, and remove it if nothing was written; the lock also ends with the process."""
        if not self._stated:
            os.environ.pop(RUN_NAME_VARIABLE, None)  # the next command of this process is another run
        if self._trial is not None:
            self._trial.cleanup()
        if self._lock is None:
            return
        Path(self._lock.lock_file).unlink(missing_ok=True)  # while it is locked, so that no other job's file is removed
        self._lock.release()
        self._lock = None
        if self.folder in self._made and [path.name for path in self.folder.iterdir()] == [WANDB_ID]:
            (self.folder / WANDB_ID).unlink()  # the run has not started
        for folder in self._made:
            try:
                folder.rmdir()
            except OSError:  # not empty
                break

    def wandb_id(self) -> str:
        """Return the id of the run in W&B, which a resumed run keeps."""
        kept = self.folder / WANDB_ID
        if self.resumes and kept.is_file():
            return kept.read_text().strip()
        identity = secrets.token_hex(4)
        with atomic_path(kept) as path:
            path.write_text(identity + "\n")
        return identity

    def report(self, monitor: str | None) -> str:
        """Describe the content of the folder, and the first, best and last value of the monitored metric of a fit."""
        if self.is_trial:
            return "\nThe trial run (fast_dev_run) has passed; nothing was kept"
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
    """Return the folder of a run, the same on every rank: `root` itself if only that is given, otherwise runs/NAME.

    Raises:
        InputError: If the processes of this job cannot agree on a name.
    """
    if root is not None and name is None:
        return Path(root)
    return Path(root or "runs") / (default_name(command) if name is None else name)


def default_name(prefix: str) -> str:
    """Return a name that starts with a prefix, the same on every rank, and unique to each job.

    Raises:
        InputError: If the processes of this job cannot agree on a name.
    """
    if (name := os.environ.get(RUN_NAME_VARIABLE)) is not None:
        return name
    # Jobs that start in the same second, such as those of a sweep, get different names.
    stamp = job_stamp(f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}")
    if stamp is None:
        raise InputError("the processes of this job cannot agree on a name for the run: add --name NAME")
    os.environ[RUN_NAME_VARIABLE] = name = f"{prefix}-{stamp}"
    return name


def best_checkpoint(folder: Path) -> Path:
    """Return the path of the best checkpoint in a folder, which may not exist.

    If several are kept (`checkpoint.save_top_k`), the last checkpoint states which of them is the best.
    """
    if (single := folder / "best.ckpt").exists() or not (folder / LAST).is_file():
        return single
    for key, state in load_tensors(folder / LAST).get("callbacks", {}).items():
        if key.startswith("ModelCheckpoint") and (path := state.get("best_model_path")):
            return folder / Path(path).name
    return single


def check_checkpoint(path: str, model_class: type[LightningModule]) -> dict[str, Any]:
    """Check that a file is an undamaged checkpoint of this class of model.

    Returns:
        Hyperparameters by the names of the constructor's arguments.

    Raises:
        InputError: If it is not. If last.ckpt is damaged, the message names the checkpoint to use instead.
    """
    if Path(path).is_dir():
        raise InputError(f"{path} is a folder: give a checkpoint in it, such as {Path(path) / 'checkpoints' / LAST}")
    try:
        check_name(path)
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
    # A module trained in Python also saves the arguments of its base classes, which its own constructor sets.
    of_parents = {name for base in model_class.__mro__ for name in inspect.signature(base).parameters}
    if unknown := ", ".join(sorted(found.keys() - known - of_parents)):
        raise InputError(
            f"{path} is of another model or version: {model_class.__name__} has no setting {unknown}; give another "
            "checkpoint, or use the version that wrote it"
        )
    return {name: value for name, value in found.items() if name in known}
