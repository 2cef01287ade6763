"""Loading of modules from checkpoints without executing code from them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any

from jsonargparse import ArgumentParser
from lightning import LightningModule
from torch import nn
from typing_extensions import Self

from gan_lightning.errors import InputError

NETWORK_OPTIONS = (  # options of the networks, which cannot change when weights are loaded
    "image_size",
    "channels",
    "latent_dim",
    "base_channels",
    "generator_normalization",
    "discriminator_normalization",
    "num_classes",
    "architecture",
)


def constructor_options(cls: type) -> list[str]:
    """Return the names of the arguments of a constructor, including those passed on by `**kwargs`.

    Fields of a dataclass have the name of its argument as a prefix: "inversion.num_steps".
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, fail_untyped=False, sub_configs=False)
    return list(parser.get_defaults().keys())


class SafelyLoaded(LightningModule):
    """A module that reads checkpoints with `weights_only`, even those from a URL, which Lightning would unpickle."""

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | Path | IO[bytes],
        map_location: Any = None,
        *,
        weights_only: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Load a module; the arguments are those of `LightningModule.load_from_checkpoint`."""
        loaded: Self = super().load_from_checkpoint(checkpoint_path, map_location, weights_only=weights_only, **kwargs)
        return loaded

    def save_hyperparameters(
        self,
        *args: Any,
        ignore: str | Sequence[str] | None = None,
        frame: FrameType | None = None,
        logger: bool = True,
    ) -> None:
        """Save the arguments of the constructor, except modules, which cannot be loaded safely.

        On the command line, the class and the options of a module are saved instead.
        """
        caller = inspect.currentframe()
        frame = frame or (caller.f_back if caller else None)
        with warnings.catch_warnings(action="ignore"):  # about arguments that are modules
            super().save_hyperparameters(*args, ignore=ignore, frame=frame, logger=logger)
        if modules := [name for name, value in self.hparams.items() if isinstance(value, nn.Module)]:
            ignored = [ignore] if isinstance(ignore, str) else list(ignore or ())
            super().save_hyperparameters(*args, ignore=[*ignored, *modules], frame=frame, logger=logger)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load weights.

        Raises:
            InputError: If they belong to networks of another shape.
        """
        try:
            return super().load_state_dict(state_dict, *args, **kwargs)
        except RuntimeError as error:
            raise InputError(
                "the checkpoint's networks are not those of the configuration: keep the model's "
                f"{', '.join(NETWORK_OPTIONS)} "
                "as they were when it was written"
            ) from error
