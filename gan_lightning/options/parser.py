"""The parser of the command line: configurations found by name, help for every option, errors in one line."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from inspect import isabstract
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import yaml
from jsonargparse import (  # type: ignore[attr-defined]
    ActionConfigFile,
    ArgumentParser,
    get_loader,
    set_loader,
)
from lightning import Callback, LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger

import gan_lightning
from gan_lightning.data.packed_data_module import PackedDataModule
from gan_lightning.errors import InputError, mistake_behind
from gan_lightning.modules.safe_loading import constructor_options
from gan_lightning.options.errors import explain
from gan_lightning.options.help import DESCRIPTIONS, WideHelp, command_help

PACKAGE = Path(__file__).parent.parent
CONFIGS = next(
    folder for folder in (PACKAGE / "configs", PACKAGE.parent / "configs") if folder.is_dir()
)  # wheel, clone
LABELS_HELP = (
    "Classes to draw in turn, for a DCGAN with classes: a name, a number, or several, as in 3,5. Default: all."
)
PUBLIC = [getattr(gan_lightning, name) for name in gan_lightning.__all__]  # imported, so that short names resolve
MODELS, DATA = (
    [public for public in PUBLIC if isinstance(public, type) and issubclass(public, base) and not isabstract(public)]
    for base in (LightningModule, LightningDataModule)
)


def subclasses(base: type) -> list[type]:
    """Return all direct and indirect subclasses whose names do not start with an underscore."""
    direct: list[type] = base.__subclasses__()
    return [cls for cls in [*direct, *(below for cls in direct for below in subclasses(cls))] if cls.__name__[0] != "_"]


CLASSES = {  # option -> classes that it accepts by name
    "model": MODELS,
    "data": DATA,
    "trainer.callbacks": subclasses(Callback),
    "trainer.logger": subclasses(Logger),
}


def shipped_configs() -> dict[str, Path]:
    """Return the paths of the shipped configurations by name, such as "celeba64" and "restore/deblur"."""
    paths = (path for path in sorted(CONFIGS.rglob("*.yaml")) if path.parent.name not in ("cluster", "data", "sweeps"))
    return {path.relative_to(CONFIGS).with_suffix("").as_posix(): path for path in paths}


def find_config(given: str) -> str:
    """Return the path of a configuration: a file on disk, or a shipped one by its name or the end of its name.

    Args:
        given: Value of `--config`; inline YAML and URLs are returned unchanged.

    Raises:
        InputError: If neither exists.
    """
    path = Path(given).expanduser()
    if not re.fullmatch(r"[\w./~-]+", given) or (path.exists() and not path.is_dir()):  # W&B creates a folder "wandb"
        return given
    shipped = shipped_configs()
    for name, path in shipped.items():
        if f"/{name}".endswith(f"/{given}"):
            return str(path)
    if Path(given).expanduser().is_dir():
        return given  # reading it raises an error with its name
    raise InputError(f"the configuration {given} does not exist: give a path, or one of {', '.join(shipped)}")


def commands_to_parse(words: Sequence[str]) -> dict[str, set[str]]:
    """Return the Trainer command that a command line starts with, or all if it starts with none.

    The options of a command take time to add. With the environment variable PL_CONFIG all commands are returned: that
    file may have options of several.
    """
    known = LightningCLI.subcommands()
    alone = "PL_CONFIG" not in os.environ
    return {name: known[name] for name in words[:1] if alone and name in known} or known


def with_last_config(words: Sequence[str], command: str, config: str) -> list[str]:
    """Insert a configuration after all others of a command line, so that it overrides them, but not later options.

    Args:
        words: Words of the command line.
        command: The command among them.
        config: Configuration, as JSON.
    """
    places = [i for i, word in enumerate(words) if re.match("(-c|--config)(=|$)", word)]
    last = max([words.index(command), *places])
    last += words[last] in ("-c", "--config")
    return [*words[: last + 1], "--config", config, *words[last + 1 :]]


def with_null_for_none(content: Any) -> Any:
    """Replace "None" by None in a configuration or an option, because sweep agents write null this way."""
    if isinstance(content, dict):
        return {key: with_null_for_none(value) for key, value in content.items()}
    if isinstance(content, list):
        return [with_null_for_none(value) for value in content]
    return None if content == "None" else content


_load_yaml = get_loader("yaml")
set_loader("yaml", lambda text: with_null_for_none(_load_yaml(text)), exceptions=(yaml.YAMLError,))


class ConfigFile(ActionConfigFile):
    """The option `--config`, which also accepts the names of shipped configurations."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Merge a configuration into the options."""
        super().__call__(parser, cfg, find_config(values), option_string)  # type: ignore[no-untyped-call]


class DataConfigFile(ActionConfigFile):
    """The option `--config` of a command that only uses the `data` of a training's configuration."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Merge the `data` of a configuration into the options.

        Raises:
            InputError: If the file cannot be read, or is not a configuration.
        """
        path = find_config(values)
        try:
            content = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}): give the YAML of a training") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is not valid YAML: give the configuration of a training") from error
        if not isinstance(content, dict):
            raise InputError(f"{path} is not the configuration of a training: it has no keys")
        data = {"data": content["data"]} if "data" in content else {}
        super().__call__(parser, cfg, json.dumps(data), option_string)  # type: ignore[no-untyped-call]


class OneLineErrors(ArgumentParser):
    """jsonargparse's parser with one-line errors."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise an error for the user.

        Raises:
            InputError: Always, except in the parser of a part, whose errors become part of another one.
        """
        if not self.exit_on_error:
            super().error(message, ex)
        raise mistake_behind(ex) or InputError(explain(message, self.option_names(), CLASSES)) from ex

    def parse_classes(self, words: Sequence[str]) -> Any:
        """Return the options of a command line, with the classes among them instantiated."""
        instantiate = getattr(self, "instantiate", None) or self.instantiate_classes  # the name before 4.49
        return instantiate(self.parse_args(list(words)))

    def option_names(self) -> list[str]:
        """Return the names of all options, including those of our models and data."""
        names = [*CLASSES, *self.get_defaults().keys()]
        named = [name for name in names if "." in name] + [name for name in names if "." not in name]
        of_classes = [
            f"{key}.{option}"
            for key, classes in (("model", MODELS), ("data", DATA))
            for cls in classes
            for option in constructor_options(cls)
        ]
        return [*of_classes, *named]


class CommandParser(OneLineErrors):
    """The parser of a command that is not a Trainer loop; its `usage` is the name of the command."""

    def format_help(self, *args: Any) -> str:
        """Return the help of the command, or of the options of a class."""
        if self.usage not in DESCRIPTIONS:
            return str(super().format_help(*args))
        self.formatter_class = WideHelp
        packed = [cls for cls in DATA if issubclass(cls, PackedDataModule)]
        return command_help(str(self.usage), super().format_help(*args), data=packed if self.usage == "pack" else ())


class OptionsParser(OneLineErrors, LightningArgumentParser):
    """Lightning's parser, with help for the options of our models and data."""

    of_commands: ClassVar[dict[str, OptionsParser]] = {}

    def option_names(self) -> list[str]:
        """Return the names of all options; for the main parser, those of all commands."""
        if self in self.of_commands.values():
            return super().option_names()
        return list(dict.fromkeys(name for parser in self.of_commands.values() for name in parser.option_names()))

    def add_method_arguments(self, theclass: type, themethod: str, *args: Any, **kwargs: Any) -> list[str]:
        """Add the options of a Trainer loop, and set the defaults that differ from Lightning's."""
        self.of_commands[themethod] = self
        added: list[str] = super().add_method_arguments(theclass, themethod, *args, **kwargs)
        self.set_defaults(weights_only=True)  # Lightning would unpickle a checkpoint from a server
        if themethod == "predict":
            self.add_argument("--num_samples", type=int, default=64, help="Number of images to draw, for a DCGAN.")
            self.add_argument("--labels", type=list[str | int] | str | int | None, default=None, help=LABELS_HELP)
            self.set_defaults(return_predictions=False)  # predictions are on disk
        return added

    def format_help(self, *args: Any) -> str:
        """Return the help of a command, with every option of every model and data module."""
        command = next((name for name, parser in self.of_commands.items() if parser is self), None)
        if command is None:  # of all commands, or of the options of a class
            return str(super().format_help(*args))
        self.formatter_class = WideHelp
        return command_help(command, super().format_help(*args), MODELS, DATA)
