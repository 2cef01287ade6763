"""How checkpoints get to the disk: complete or absent, and the former last.ckpt is kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from gan_lightning.atomic import atomic_path
from gan_lightning.errors import StorageError

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


class WholeCheckpoints(TorchCheckpointIO):
    """Writes every checkpoint beside its place, has the disk confirm it, and renames it.

    Lightning's own way goes through the system's folder for temporary files, which on most clusters is on another disk:
    there its rename is a copy, and a kill in the middle of it leaves half a checkpoint in the place of a whole one.

    A new last.ckpt leaves the former one beside it, as previous.ckpt.
    """

    def __init__(self) -> None:
        super().__init__()
        self.writing = False
        self._known: set[Path] = set()  # written or read by this process, and so known to be whole

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, *args: Any, **kw: Any) -> None:
        """Write a checkpoint; one on a remote store is left to Lightning.

        Raises:
            StorageError: The disk is full, or the folder cannot be written to; the former checkpoint is as it was.
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
                    keep_former(path)
        except (OSError, RuntimeError) as error:
            if (reason := disk_error_behind(error)) is None:
                raise
            former = "the one before it is as it was" if path.exists() else "there was none before it"
            raise StorageError(
                f"the checkpoint {path} could not be written ({reason}), {former}: make room, then go on by "
                "--ckpt_path last"
            ) from error
        finally:
            self.writing = False
        self._known.add(path)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint, which from now on is known to be whole; unless told to, never run code in it.

        Lightning would run that of a checkpoint on a server.
        """
        whole: dict[str, Any] = {} if map_location is None else {"map_location": map_location}
        checkpoint = super().load_checkpoint(path, **whole, weights_only=weights_only is None or weights_only)
        self._known.add(Path(path).absolute())
        return checkpoint


def keep_former(last: Path) -> None:
    """Let previous.ckpt be what last.ckpt is now; at no moment is either of them missing or half there."""
    beside = last.with_name(f".{PREVIOUS}.{os.getpid()}.part")
    beside.unlink(missing_ok=True)
    try:
        beside.hardlink_to(last)
    except OSError:  # a file system without hard links: for a moment previous.ckpt is the only one
        last.replace(last.with_name(PREVIOUS))
    else:
        beside.replace(last.with_name(PREVIOUS))
        beside.unlink(missing_ok=True)  # which a rename leaves there if both are one file already


def disk_error_behind(error: BaseException | None) -> str | None:
    """Say what the disk complained of: torch hides the system's error behind one of its own."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return None if error is None else error.strerror or str(error)
