"""Options of the model in the checkpoint that a command starts from, and those given beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jsonargparse import Namespace

from gan_lightning.errors import InputError
from gan_lightning.modules.safe_loading import NETWORK_OPTIONS


def config_of_checkpoint(saved: Mapping[str, Any], class_path: str, words: Sequence[str]) -> str:
    """Return the options of a checkpoint that the command line does not give, as a configuration in JSON.

    Args:
        saved: Hyperparameters in the checkpoint.
        class_path: Class of the model.
        words: Words of the command line.
    """
    given = {found[1] for word in words if (found := re.match(r"--model\.(?:init_args\.)?(\w+)", word))}
    init_args = {name: value for name, value in saved.items() if name not in given}
    return json.dumps({"model": {"class_path": class_path, "init_args": init_args}}, default=str)


def check_networks(path: str, saved: Mapping[str, Any], options: Namespace) -> None:
    """Check that the networks are those of a checkpoint.

    Raises:
        InputError: If an option that they are built with differs.
    """
    for name in NETWORK_OPTIONS:
        if name in saved and options.get(name, saved[name]) != saved[name]:
            raise InputError(
                f"model.{name} is {options[name]}, but {path} was trained with {saved[name]}: the networks of a "
                "checkpoint cannot be changed"
            )
