"""Modules that come back from their checkpoints without any code in these being run."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

from lightning import LightningModule
from typing_extensions import Self


class SafelyLoaded(LightningModule):
    """Reads checkpoints with weights_only, those on a server too, of which Lightning would run the pickles."""

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | Path | IO[bytes],
        map_location: Any = None,
        *,
        weights_only: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Bring a module back; the arguments are those of LightningModule.load_from_checkpoint."""
        loaded: Self = super().load_from_checkpoint(checkpoint_path, map_location, weights_only=weights_only, **kwargs)
        return loaded
