"""Options that depend on each other or on the environment: checked, and completed, before anything is built."""

from __future__ import annotations

import inspect
import os
from pkgutil import resolve_name
from typing import Any, get_args, get_type_hints

from jsonargparse import Namespace
from lightning.pytorch.loggers import WandbLogger

from gan_lightning.errors import InputError
from gan_lightning.loggers import SteadyWandbLogger
from gan_lightning.metrics.extractors import check_inception_weights, inception_weights_path
from gan_lightning.modules.checks import check_sizes


def check_options(options: Namespace, command: str) -> None:
    """Check the options of a command against each other, and complete them.

    Args:
        options: Options of the command, of which `checkpoint` and the loggers may be changed.
        command: Name of the command.

    Raises:
        InputError: If they cannot be used.
    """
    choose_no_best_checkpoint(options)
    check_nulls(options)
    check_intervals(options.trainer)
    take_wandb_variables(options)
    check_sizes(options.model.init_args, options.get("data.init_args"))
    if hasattr(resolve_name(options.model.class_path), "sample") and command != "predict":
        check_extractor(options.evaluation)


def check_nulls(options: Namespace) -> None:
    """Check that options of the model and the data are null only if they accept it, which jsonargparse does not check.

    Args:
        options: Options of the command.

    Raises:
        InputError: If an option that needs a value is null.
    """
    for key in ("model", "data"):
        if (given := options.get(key)) is None:
            continue
        cls = resolve_name(given.class_path)
        for name, value in (given.get("init_args") or {}).items():
            if value is None and not takes_null(cls, name):
                raise InputError(f"{key}.{name} is null: give a value, or leave the option out")


NEVER = {  # intervals of the Trainer -> how to disable what they schedule
    "val_check_interval": "--trainer.limit_val_batches 0 trains without validation",
    "check_val_every_n_epoch": "--trainer.limit_val_batches 0 trains without validation",
    "log_every_n_steps": "0 logs no training metrics",
    "gradient_clip_val": "of a DCGAN, set model.gradient_clip instead",
}
ZERO_ALLOWED = ("log_every_n_steps", "gradient_clip_val")


def check_intervals(trainer: Namespace) -> None:
    """Check numbers by which Lightning would divide, or which it would silently ignore.

    Args:
        trainer: Options of the Trainer.

    Raises:
        InputError: If an interval is zero or negative.
    """
    for name, advice in NEVER.items():
        value, zero_allowed = trainer.get(name), name in ZERO_ALLOWED
        if isinstance(value, int | float) and (value < 0 or (value == 0 and not zero_allowed)):
            least = "0 or more" if zero_allowed else "a number above 0"
            raise InputError(f"trainer.{name} is {value}: give {least}; {advice}")


def check_extractor(evaluation: Namespace) -> None:
    """Check the weights of the network whose features are compared, before the run starts.

    Args:
        evaluation: Options of the metrics.

    Raises:
        InputError: If they are missing, or not the published ones.
    """
    if evaluation.extractor == "inception" and not evaluation.download:
        check_inception_weights(inception_weights_path(evaluation.inception_weights))


def takes_null(cls: type, name: str) -> bool:
    """Return whether an argument of a class, or of the base class to which it is passed on, may be None."""
    for base in cls.__mro__:
        parameter = inspect.signature(base.__init__).parameters.get(name)  # type: ignore[misc]
        if parameter is not None:
            hint = get_type_hints(base.__init__).get(name, Any)  # type: ignore[misc]
            return parameter.default is None or hint is Any or type(None) in get_args(hint)
    return True


def choose_no_best_checkpoint(options: Namespace) -> None:
    """Keep only the last checkpoint of a run if its data provide no real images to compare with samples.

    Args:
        options: Options of the command, whose `checkpoint` is changed.
    """
    data, model = (options.get(f"{key}.class_path") for key in ("data", "model"))
    if data is None or hasattr(resolve_name(data), "real_images") or hasattr(resolve_name(model), "monitor"):
        return
    if str(options.checkpoint.monitor).startswith("val/"):
        options.checkpoint.monitor, options.checkpoint.save_top_k = None, 0


def take_wandb_variables(options: Namespace) -> None:
    """Name W&B's run and project by WANDB_NAME and WANDB_PROJECT, unless options set them.

    Args:
        options: Options of the command, whose loggers are changed.
    """
    given = options.trainer.logger
    for logger in given if isinstance(given, list) else [given]:
        if not isinstance(logger, Namespace) or not issubclass(cls := resolve_name(logger.class_path), WandbLogger):
            continue
        arguments = logger.init_args
        arguments.name = arguments.name or os.environ.get("WANDB_NAME")
        if issubclass(cls, SteadyWandbLogger):
            arguments.project = arguments.project or os.environ.get("WANDB_PROJECT", "gan-lightning")
