"""Two averages of the generator over a training, from which an average of any length can be computed afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from safetensors import SafetensorError
from torch import Tensor, nn

from gan_lightning.callbacks.best_effort import best_effort
from gan_lightning.errors import InputError
from gan_lightning.networks.average_snapshots import TRACKS, Snapshot, remove_later, write_snapshot
from gan_lightning.networks.checkpoints import CLASS_NAMES, GENERATOR_CLASS, class_name, known_generators
from gan_lightning.networks.ema import frozen_copy, update_average
from gan_lightning.networks.posthoc_ema import decay_of, exponent_of

EXPONENTS = {length: exponent_of(length) for length in TRACKS}


class AverageTracks(Callback):
    """Callback that keeps two averages of the generator, from which `average_after` computes one of any length.

    Their weights are a power of the images seen, with lengths of 0.05 and 0.10 of the training (Karras et al. 2023,
    arXiv 2312.02696). Snapshots in half precision are written to averages/ in the run folder. The averages themselves
    are in checkpoints. `generator_ema`, which validation and sampling use, is not affected.
    """

    def __init__(self, every_n_images: int = 20_000) -> None:
        """Choose how often snapshots are written.

        Args:
            every_n_images: Number of images, over all ranks, between snapshots of both averages. A training should have
                twenty or more of them. The last one is written at its end.

        Raises:
            InputError: If the interval is less than 1.
        """
        if every_n_images < 1:
            raise InputError(f"every_n_images must be at least 1, but is {every_n_images}")
        self.every_n_images = every_n_images
        self._restart()

    def _restart(self) -> None:
        self._averages: dict[float, nn.Module] = {}  # on rank 0, from the first step on
        self._loaded: dict[str, Any] = {}  # state of a checkpoint until then
        self._images, self._step, self._written_at = 0, 0, -1  # at the last update, and the last snapshot

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the module trains a generator that can be built again.

        Raises:
            InputError: If it does not.
        """
        if stage != "fit":
            return
        self._restart()
        generator = getattr(pl_module, "generator", None)
        if not isinstance(generator, nn.Module) or not hasattr(pl_module, "images_seen"):
            raise InputError(f"AverageTracks averages a GAN's generator, and {type(pl_module).__name__} trains none")
        if class_name(generator) not in known_generators():
            raise InputError(
                f"AverageTracks averages generators of this package, and not a {type(generator).__name__}: leave it out"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the averages for the checkpoint."""
        if not self._averages:
            return self._loaded
        states = {name_of(length): plain_state(average) for length, average in self._averages.items()}
        return {"images": self._images, "averages": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the averages of a checkpoint until the training begins."""
        self._loaded = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start with the averages of the checkpoint, or at the first image; remove snapshots of steps to be repeated.

        Raises:
            InputError: If the networks have been trained without this callback.
        """
        if not self._loaded and (trainer.global_step or pl_module.images_seen):
            raise InputError(
                "AverageTracks averages a training from its first step on, but the checkpoint that this run resumes "
                "from has no averages: leave it out, or start a new run"
            )
        loaded, self._loaded = self._loaded, {}
        self._step, self._images = trainer.global_step, loaded.get("images", 0)
        if not trainer.is_global_zero:
            return
        generator: Any = pl_module.generator
        self._averages = {length: frozen_copy(generator) for length in TRACKS}
        if loaded:
            for length, average in self._averages.items():
                average.load_state_dict(loaded["averages"][name_of(length)])
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            remove_later(trainer.default_root_dir, self._images)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the averages after a step of the generator; write snapshots when they are due."""
        if trainer.global_step == self._step:  # a step of only the discriminator
            return
        images, before = int(pl_module.images_seen), self._images  # type: ignore[arg-type]
        for length, average in self._averages.items():
            decay = decay_of(EXPONENTS[length], images, images - before)
            update_average(average, pl_module.generator, decay)  # type: ignore[arg-type]
        self._step, self._images = trainer.global_step, images
        if images // self.every_n_images > before // self.every_n_images:
            self._write(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the last snapshots."""
        if self._images not in (0, self._written_at):
            self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, module: Any) -> None:
        self._written_at = self._images
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        description: dict[str, Any] = {GENERATOR_CLASS: class_name(module.generator)}
        if getattr(module, "num_classes", 0):
            description[CLASS_NAMES] = list(module.class_names)
        for length, average in self._averages.items():
            snapshot = Snapshot(self._images, length)
            path = snapshot.path(Path(trainer.default_root_dir))
            with best_effort(str(path), (OSError, SafetensorError, InputError)):
                write_snapshot(trainer.default_root_dir, snapshot, average, description)


def name_of(length: float) -> str:
    """Return the name of an average in checkpoints."""
    return f"{length:.2f}"


def plain_state(network: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a network by name."""
    return dict(network.state_dict().items())
