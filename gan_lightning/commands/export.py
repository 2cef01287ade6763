"""The command `export`: a generator as a program that runs without this package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gan_lightning.commands.export_options import HELP as HELP
from gan_lightning.commands.export_options import MARK, parse
from gan_lightning.commands.parser import check_output


def main(words: Sequence[str]) -> int:
    """Export a generator.

    Args:
        words: Words of the command line after `export`.

    Returns:
        Exit status.

    Raises:
        InputError: If the command line, the generator or the output cannot be used, or the program differs from the
            generator.
    """
    options = parse(words)
    output = Path(options.output).expanduser()
    check_output(output, "G.pt2", is_exported)
    from gan_lightning.commands.export_job import export_generator  # slow to import

    print("\n".join(export_generator(options, output)))
    return 0


def is_exported(path: Path) -> bool:
    """Return whether a file was written by this command."""
    try:
        return MARK in path.read_bytes()
    except OSError:
        return False
