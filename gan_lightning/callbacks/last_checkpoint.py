"""last.ckpt: the state to go on from, whatever the metrics say."""

from __future__ import annotations

from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException


class LastCheckpoint(Callback):
    """Writes checkpoints/last.ckpt after each validation, at the end, and when the run is told to stop.

    Lightning's `save_last` writes it only together with a new best, and so loses all that came after the best.
    """

    def __init__(self) -> None:
        self._saved_at = -1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the steps after the last validation."""
        self._save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save at SIGTERM and Ctrl-C, which reach all ranks; after an error of one, the others would wait for it."""
        if isinstance(exception, SIGTERMException | KeyboardInterrupt) and trainer.state.fn == "fit":
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if trainer.global_step == self._saved_at or not trainer.checkpoint_callbacks:  # fast_dev_run has none
            return
        folder = Path(getattr(trainer.checkpoint_callbacks[0], "dirpath", None) or trainer.default_root_dir)
        beside = folder / ".last.ckpt.part"  # complete or absent: renamed when it is whole
        trainer.save_checkpoint(beside)
        if trainer.is_global_zero:
            beside.replace(folder / "last.ckpt")
        self._saved_at = trainer.global_step
