"""Saving of the configuration of a run, to its folder and to every logger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback


class RunConfig(SaveConfigCallback):
    """Callback that writes the configuration to the run folder and to every logger.

    The configuration has the values given by the user instead of the paths derived from them. If it is used again with
    another name, it must not write into the folder of the first run.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace, *, given: Namespace, **kwargs: Any) -> None:
        super().__init__(parser, given, **kwargs)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the configuration, unless a checkpoint is still to be loaded, which may be refused."""
        if stage != "fit":
            self.write(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the configuration of a training after its checkpoint was loaded."""
        self.write(trainer, pl_module, "fit")

    def write(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the configuration once, on the first rank."""
        if trainer.is_global_zero and not self.already_saved:
            path = Path(trainer.default_root_dir) / self.config_filename  # regardless of the first logger
            self.parser.save(self.config, str(path), skip_none=False, overwrite=True, multifile=False)
            self.save_config(trainer, pl_module, stage)
        self.already_saved = True

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Log the configuration, by which runs can be distinguished."""
        config = yaml.safe_load(self.parser.dump(self.config, skip_none=False, format="yaml"))
        for logger in trainer.loggers:
            getattr(logger, "log_configuration", logger.log_hyperparams)(config)
