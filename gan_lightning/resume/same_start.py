"""The check that all ranks have started from the same checkpoint."""

from __future__ import annotations

from pathlib import Path

from lightning import Trainer

from gan_lightning import distributed
from gan_lightning.errors import InputError


def check_same_start(trainer: Trainer, step: int) -> None:
    """Check that all ranks have loaded the checkpoint that rank 0 has.

    Each rank looks for the file itself. A shared folder may show a node an older last.ckpt, or none, for a minute after
    another node has written it; ranks at different steps would then train on as if nothing were wrong. Paths may
    differ, as those of copies on the disks of the nodes do.

    Args:
        trainer: Trainer that has loaded the checkpoint.
        step: Step of the checkpoint; of no account without one.

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
