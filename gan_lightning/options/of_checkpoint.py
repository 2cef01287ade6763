"""Options of the model from the checkpoint from which a command starts, combined with those of the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jsonargparse import Namespace

from gan_lightning.errors import InputError
from gan_lightning.modules.safe_loading import NETWORK_OPTIONS


def config_of_checkpoint(saved: Mapping[str, Any], class_path: str, words: Sequence[str]) -> str:
    """Return the options of a checkpoint that are not set on the command line, as a configuration in JSON.

    Args:
        saved: Hyperparameters in the checkpoint.
        class_path: Class of the model.
        words: Words of the command line.
    """
    given = {found[1] for word in words if (found := re.match(r"--model\.(?:init_args\.)?(\w+)", word))}
    init_args = {name: value for name, value in saved.items() if name not in given}
    return json.dumps({"model": {"class_path": class_path, "init_args": init_args}}, default=str)


def check_networks(path: str, saved: Mapping[str, Any], options: Namespace) -> None:
    """Check that the options of the networks are those of a checkpoint.

    Raises:
        InputError: If an option of the networks differs.
    """
    for name in NETWORK_OPTIONS:
        if name in saved and options.get(name, saved[name]) != saved[name]:
            raise InputError(
                f"model.{name} is {options[name]}, but {path} was trained with {saved[name]}: the networks of a "
                "checkpoint cannot be changed"
            )
