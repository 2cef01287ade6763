"""The seed of a training, which a resumed run keeps."""

from __future__ import annotations

from typing import Any

import torch
from lightning import LightningModule


class RunSeed(LightningModule):
    """A module with a random seed that is the same on every rank: from the checkpoint, or else `seed_everything`."""

    _seed = 0
    _loaded_seed: int | None = None

    def on_fit_start(self) -> None:
        """Choose the seed."""
        super().on_fit_start()
        self._seed = torch.initial_seed() % 2**63 if self._loaded_seed is None else self._loaded_seed
        self._loaded_seed = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the seed."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["latent_seed"] = self._seed

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the seed, which a resumed run keeps regardless of `seed_everything`."""
        super().on_load_checkpoint(checkpoint)
        self._loaded_seed = checkpoint.get("latent_seed")
