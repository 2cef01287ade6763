"""Options that follow from the run and the model: the folders of checkpoints and loggers, and the monitored metric."""

from __future__ import annotations

import os
from pkgutil import resolve_name
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.loggers import WandbLogger

from gan_lightning.callbacks.evaluation import GenerationMetrics
from gan_lightning.errors import InputError
from gan_lightning.loggers import SteadyWandbLogger
from gan_lightning.run import Run


def as_list(given: Any) -> list[Any]:
    """Return the items of an option that is null, a single item or a list."""
    return [item for item in (given if isinstance(given, list) else [given]) if item is not None]


def class_of_model(options: Namespace) -> Any:
    """Return the class of the model of a command.

    Raises:
        InputError: If there is no model.
    """
    if options.model is None:
        raise InputError("there is no model: add --config quickstart, or --model DCGAN and --data CelebA")
    return resolve_name(options.model.class_path)


def complete_checkpoint(checkpoint: Namespace, run: Run, model_class: Any, evaluation: Namespace) -> None:
    """Set the folder of checkpoints and the metric that chooses the best one, unless set by the user."""
    if checkpoint.dirpath is None:
        checkpoint.dirpath = str(run.checkpoints)
    if checkpoint.monitor is None:
        measured = GenerationMetrics.monitored(evaluation.metrics, evaluation.extractor)
        checkpoint.monitor, checkpoint.mode = getattr(model_class, "monitor", measured)
        if checkpoint.save_on_train_epoch_end is None:
            checkpoint.save_on_train_epoch_end = False  # it is measured at validations, and at the end
    if checkpoint.save_top_k not in (0, 1) and checkpoint.filename == "best":
        checkpoint.filename = "best-{step}"  # several checkpoints need different names


def complete_loggers(trainer: Namespace, run: Run, is_first: bool) -> None:
    """Make loggers write to the run folder, and set the options of W&B; only the first rank has the id of its run."""
    for logger in as_list(trainer.logger):
        if not isinstance(logger, Namespace) or "init_args" not in logger:
            continue
        if resolve_name(logger.class_path) is WandbLogger:
            logger.class_path = f"{SteadyWandbLogger.__module__}.{SteadyWandbLogger.__qualname__}"
        for argument, value in (("save_dir", str(run.folder.resolve())), ("name", run.label)):
            if argument in logger.init_args and logger.init_args[argument] in (".", "lightning_logs", None):
                logger.init_args[argument] = value
        if resolve_name(logger.class_path) is SteadyWandbLogger:
            complete_wandb(logger, run, is_first)


def complete_wandb(logger: Namespace, run: Run, is_first: bool) -> None:
    """Set id, job type and group of the run of W&B, unless options set them.

    The id identifies a resumed run; the group is a sweep or a Slurm array. W&B itself reads the environment variables
    that start with WANDB, among them those set by sweep agents.
    """
    options, others = logger.init_args, logger.get("dict_kwargs") or {}
    group = os.environ.get("WANDB_SWEEP_ID") or slurm_array()
    for argument, value, variable in (
        ("job_type", run.command, "WANDB_JOB_TYPE"),
        ("group", group, "WANDB_RUN_GROUP"),
    ):
        if options.get(argument) is None and argument not in others and variable not in os.environ:
            options[argument] = value
    if is_first and options.id is None and "WANDB_RUN_ID" not in os.environ:
        options.id = run.wandb_id()


def slurm_array() -> str | None:
    """Return the name of this job and the number of its Slurm array, or None if it does not belong to an array."""
    number = os.environ.get("SLURM_ARRAY_JOB_ID")
    return number and f"{os.environ.get('SLURM_JOB_NAME', 'array')}-{number}"
