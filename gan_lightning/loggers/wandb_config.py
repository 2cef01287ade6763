"""Options of a run as logged to W&B: each one once, by its name on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

WANDB_ID = ".wandb-id"  # file in a run folder


def options_by_name(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without nulls, with the options of a class at the level of its path.

    `model: {class_path: DCGAN, init_args: {lr_g: 1e-4}}` becomes `model: {class_path: DCGAN, lr_g: 1e-4}`, which W&B
    shows as `model.lr_g`, the name on the command line and in sweeps.

    Args:
        config: Configuration of a command, as in config.yaml.
    """
    options: dict[str, Any] = {}
    for name, value in config.items():
        if name in ("init_args", "dict_kwargs") and isinstance(value, Mapping):
            options |= options_by_name(value)
        elif (kept := _without_nulls(value)) is not None:
            options[name] = kept
    return options


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return options_by_name(value) or None
    if isinstance(value, list | tuple):
        return [_without_nulls(item) for item in value]
    return value


def not_yet_given(params: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters of a module and its data that are not among the options of the command.

    Args:
        params: Hyperparameters that Lightning logs, from `save_hyperparameters`, including nulls.
        options: Options of the command by name; empty if there is no command.
    """
    if not options:
        return dict(params)
    known = [options.get(part, {}) for part in ("model", "data")]
    new = {name: value for name, value in params.items() if not any(name in part for part in known)}
    return {name: value for name, value in options_by_name(new).items() if not name.startswith("_")}


def describe_generator(path: str | Path) -> dict[str, Any]:
    """Return the run that trained a generator, for the configuration of a restoration.

    Args:
        path: Checkpoint of the generator: runs/NAME/checkpoints/best.ckpt, or another file.

    Returns:
        The name of the file as "checkpoint". If it is in a run folder, also the name of the run as "run", and its id in
        W&B, if it has one, as "wandb_id".
    """
    checkpoint = Path(path).expanduser().resolve()
    facts = {"checkpoint": str(path)}
    folder = checkpoint.parent.parent
    if checkpoint.parent.name != "checkpoints":
        return facts
    facts["run"] = folder.name
    if (kept := folder / WANDB_ID).is_file():
        facts["wandb_id"] = kept.read_text().strip()
    return facts
