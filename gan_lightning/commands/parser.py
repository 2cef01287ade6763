"""Shared parts of the commands outside the LightningCLI: a parser with one-line errors, and checks of options."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from gan_lightning.errors import InputError

if TYPE_CHECKING:
    import torch


class CommandParser(argparse.ArgumentParser):
    """argparse's parser with a given help text and one-line errors.

    Args:
        command: Name of the command, as in `gan-lightning COMMAND`.
        text: Help of the command.
    """

    def __init__(self, command: str, text: str) -> None:
        super().__init__(prog=f"gan-lightning {command}", allow_abbrev=False)
        self._text = text

    def format_help(self) -> str:
        """Return the help."""
        return self._text

    def error(self, message: str) -> NoReturn:
        """Raise an error for the user.

        Raises:
            InputError: Always.
        """
        raise InputError(f"{message}; see {self.prog} --help")


def check_at_least(options: argparse.Namespace, least: Mapping[str, float]) -> None:
    """Check the lower bounds of options that are given.

    Raises:
        InputError: If an option is smaller, or not a number.
    """
    for name, lowest in least.items():
        given = getattr(options, name)
        if given is not None and not given >= lowest:
            raise InputError(f"--{name} is {given}: give {lowest} or more")


def check_output(path: Path, example: str, is_ours: Callable[[Path], bool]) -> None:
    """Check that a file may be written: it must be new, or written by this command.

    Args:
        path: The file.
        example: Name of a file, for the message about a folder.
        is_ours: Function that returns whether an existing file was written by this command.

    Raises:
        InputError: If it is a folder, or something else.
    """
    if path.is_dir():
        raise InputError(f"--output {path} is a folder: give the name of a file, such as {path / example}")
    if path.exists() and not is_ours(path):
        raise InputError(f"--output {path} exists and was not written by this command: give another name")


def choose_device(name: str | None) -> torch.device:
    """Return the device of `--device`, or by default a GPU if there is one.

    Raises:
        InputError: If the device cannot be used on this machine.
    """
    import torch

    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name} cannot be used here: give cpu, or leave it out") from error
    return device
