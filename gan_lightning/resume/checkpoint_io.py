"""Checkpoint files that are either complete or absent, with a copy of the previous last.ckpt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from gan_lightning.atomic import atomic_path, own_suffix
from gan_lightning.errors import InputError, StorageError

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoint plugin that writes to a temporary file in the same folder, syncs it to disk, and renames it.

    Lightning writes to the system's temporary folder, which on most clusters is on another disk. Renaming from there is
    a copy, and a job killed during the copy leaves half a checkpoint in place of a complete one.

    When last.ckpt is replaced, its former content is kept as previous.ckpt.
    """

    def __init__(self) -> None:
        super().__init__()
        self.writing = False
        self._known: set[Path] = set()  # written or read by this process, and therefore complete

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, *args: Any, **kw: Any) -> None:
        """Write a checkpoint; those on remote stores are written by Lightning.

        Raises:
            StorageError: If the disk is full or the folder is not writable. An existing checkpoint is left unchanged.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, *args, **kw)
            return
        path, self.writing = Path(path).absolute(), True
        try:
            with atomic_path(path, durable=True) as beside:
                with beside.open("wb") as file:
                    torch.save(checkpoint, file)
                if path.name == LAST and path in self._known:
                    keep_previous(path)
        except (OSError, RuntimeError) as error:
            if (reason := disk_error_behind(error)) is None:
                raise
            previous = "the previous one is unchanged" if path.exists() else "there is no previous one"
            raise StorageError(
                f"the checkpoint {path} could not be written ({reason}), {previous}: free disk space and resume with "
                "--ckpt_path last"
            ) from error
        finally:
            self.writing = False
        self._known.add(path)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint, by default without executing code from it.

        Lightning's default is to execute code from checkpoints on servers.

        Raises:
            InputError: If the checkpoint cannot be fetched from its server.
        """
        whole: dict[str, Any] = {} if map_location is None else {"map_location": map_location}
        try:
            checkpoint = super().load_checkpoint(path, **whole, weights_only=weights_only is None or weights_only)
        except OSError as error:
            if "://" not in str(path):
                raise
            raise InputError(f"{path} cannot be fetched ({error}): check the address of the checkpoint") from error
        self._known.add(Path(path).absolute())
        return checkpoint


def keep_previous(last: Path) -> None:
    """Keep the current last.ckpt as previous.ckpt, so that a complete checkpoint exists at all times."""
    beside = last.with_name(f".{PREVIOUS}{own_suffix()}")
    try:
        beside.hardlink_to(last)
    except OSError:  # no hard links on this file system: for a moment, only previous.ckpt exists
        last.replace(last.with_name(PREVIOUS))
    else:
        beside.replace(last.with_name(PREVIOUS))
        beside.unlink(missing_ok=True)  # renaming does nothing if both are links to the same file


def disk_error_behind(error: BaseException | None) -> str | None:
    """Return the system's message behind an error, or None; torch wraps disk errors in its own errors."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return None if error is None else error.strerror or str(error)
