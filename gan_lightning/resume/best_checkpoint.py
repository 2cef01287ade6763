"""best.ckpt: the checkpoint with the best value of a metric, among values with the same protocol."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from gan_lightning.resume.data_identity import as_plain

_log = logging.getLogger(__name__)

NOT_COMPARED = ("ema_decay", "ema_half_life", "torchmetrics")  # parts of a protocol that do not affect the metric


class BestCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, except that it only compares values with the same protocol.

    If a resumed run measures its metric in another way (with other images, or another number of them), or monitors
    another metric, the best checkpoint is chosen again, and the former one is kept under another name. The
    final networks are also considered if they are measured. A run keeps its best checkpoint when its folder is moved; a
    new run from another run's checkpoint starts without one.
    """

    _measured_as: Mapping[str, Any] | None = None  # protocol of the best value; None if unknown
    _of_this_run = False  # whether the loaded checkpoint is of this run

    @property
    def state_key(self) -> str:
        """Name of the state in a checkpoint: that of the base class, as in earlier versions."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save a checkpoint if it is the best one."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._compare(trainer, self._protocol(trainer))
        super().on_validation_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final networks if they were measured and are the best ones."""
        super().on_train_end(trainer, pl_module)
        measured = [getattr(callback, "measured_at", None) for callback in self._sources(trainer)]
        if trainer.global_step in measured:
            self._compare(trainer, self._protocol(trainer))
            super().on_validation_end(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with the protocol of the best value."""
        return {**super().state_dict(), "measured_as": self._measured_as}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Record whether the checkpoint belongs to this run, and whether it monitored the same metric."""
        path, folder = trainer.ckpt_path, self.dirpath
        own = None if folder is None else Path(folder).resolve()
        self._of_this_run = path is not None and Path(path).resolve().parent == own
        former = [key for key in checkpoint.get("callbacks", {}) if key.startswith(ModelCheckpoint.__qualname__)]
        if self._of_this_run and trainer.state.fn == "fit" and former and self.state_key not in former:
            self._start_anew(trainer, "the run monitors another metric now", Path(str(folder)) / "best.ckpt")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of a resumed run, whose folder may have been moved."""
        if not self._of_this_run:
            return
        state, folder = dict(state_dict), str(self.dirpath)
        self._measured_as = state.pop("measured_as", None)
        for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
            state[key] = _moved(state.get(key, ""), folder)
        state["best_k_models"] = {_moved(path, folder): value for path, value in state["best_k_models"].items()}
        super().load_state_dict({**state, "dirpath": self.dirpath})

    def _sources(self, trainer: Trainer) -> list[Any]:
        """Return the callbacks that state how they measure the metric."""
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        return [callback for callback in callbacks if self.monitor in (getattr(callback, "protocol", None) or {})]

    def _protocol(self, trainer: Trainer) -> Mapping[str, Any] | None:
        for callback in self._sources(trainer):
            protocol = callback.protocol[self.monitor]
            ignored = {*NOT_COMPARED, *(["dataset"] if "content" in protocol else [])}  # a name
            return as_plain({key: value for key, value in protocol.items() if key not in ignored})
        return None

    def _compare(self, trainer: Trainer, protocol: Mapping[str, Any] | None) -> None:
        former, self._measured_as = self._measured_as, protocol
        if former is None or protocol is None or former == protocol:
            return
        changed = sorted(key for key in {*former, *protocol} if former.get(key) != protocol.get(key))
        self._start_anew(
            trainer,
            f"{self.monitor} is measured in another way than before ({', '.join(changed)})",
            Path(self.best_model_path),
        )

    def _start_anew(self, trainer: Trainer, reason: str, former: Path) -> None:
        self.best_k_models, self.best_model_path, self.kth_best_model_path = {}, "", ""
        self.best_model_score = self.current_score = None
        if not trainer.is_global_zero:
            return
        kept = ""
        if former.is_file():
            aside = next(p for n in count(1) if not (p := former.with_name(f"best-before-resume-{n}.ckpt")).exists())
            former.rename(aside)
            kept = f"; the former one is kept as {aside.name}"
        _log.warning("%s: the best checkpoint is chosen again%s", reason, kept)


def _moved(path: str, folder: str) -> str:
    return str(Path(folder) / Path(path).name) if path else path
