"""The check that all ranks have started from the same checkpoint."""

from __future__ import annotations

from pathlib import Path

from lightning import Trainer

from gan_lightning import distributed
from gan_lightning.errors import InputError


def check_same_start(trainer: Trainer, step: int) -> None:
    """Check that all ranks have loaded the same checkpoint as rank 0.

    Each rank looks for the file itself. For a minute after a node has written last.ckpt, a shared folder may show an
    older one, or none, to another node; ranks at different steps would then continue without an error. Paths may
    differ, such as those of copies on the disks of the nodes.

    Args:
        trainer: Trainer that has loaded the checkpoint.
        step: Step of the checkpoint; ignored without one.

    Raises:
        InputError: If a rank has loaded another one, or none.
    """
    path = trainer.ckpt_path
    own = "no checkpoint" if path is None else f"{Path(path).name} of step {step}"
    first, *others = distributed.gather(own)
    for rank, other in enumerate(others, 1):
        if other != first:
            raise InputError(
                f"rank {rank} starts from {other}, but rank 0 from {first} ({path}): all nodes have to see the same "
                "files; if the folder is shared, try again in a minute"
            )
