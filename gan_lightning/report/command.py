"""The command `report`: its options, its help, and its checks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gan_lightning.commands.parser import CommandParser, check_output
from gan_lightning.errors import InputError

HELP: Final = """\
usage: gan-lightning report RUN [RUN ...] --output FILE

Compare runs on one page, a single HTML file that needs no network: it opens from disk, can be mailed, and can be read
on a phone. RUN is the folder of a run.

    gan-lightning report runs/* --output report.html

The page shows
  options that differ between the runs
  the best and the last value of each metric, with its protocol; values of different protocols are never in one column
  curves against steps, images seen and minutes of training
  the grids of samples side by side, over time
  restored images of restorations

  --output FILE   file for the page; only pages of this command are replaced
  --title TEXT    heading of the page (default: the number of runs)
  -h, --help      this help

A folder that is not a run is reported and left out. The page shows as much as there is of a run that is unfinished or
was killed.
"""
MARK: Final = '<meta name="generator" content="gan-lightning report">'  # identifies our pages


def main(words: Sequence[str]) -> int:
    """Write a page that compares runs.

    Args:
        words: Words of the command line after `report`.

    Returns:
        Exit status.

    Raises:
        InputError: If the command line or the output cannot be used, or no folder is a run.
    """
    parser = CommandParser("report", HELP)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--output", required=True)
    parser.add_argument("--title")
    options = parser.parse_intermixed_args(list(words))
    output = Path(options.output).expanduser()
    check_output(output, "report.html", is_page)
    from gan_lightning.atomic import atomic_path  # slow to import, with all that follows
    from gan_lightning.report.page import make_page
    from gan_lightning.report.run_folder import read_runs

    runs, left_out = read_runs(options.runs)
    if not runs:
        raise InputError(f"there is no run to report on: {left_out[0].rstrip('.')}")
    page = make_page(runs, left_out, options.title)
    with atomic_path(output) as beside:
        beside.write_text(page, encoding="utf-8")
    for note in left_out:
        print(f"left out: {note}", file=sys.stderr)
    for run in runs:
        for note in run.notes:
            print(f"{run.name}: {note}", file=sys.stderr)
    size = output.stat().st_size / 1e6
    print(f"{len(runs)} run{'s' * (len(runs) > 1)} compared in {options.output} ({size:.1f} MB)")
    return 0


def is_page(path: Path) -> bool:
    """Return whether a file is a page of this command."""
    with path.open("rb") as file:
        return MARK.encode() in file.read(1000)
