"""The command `evaluate`: metrics between two sets of images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from gan_lightning.atomic import atomic_path
from gan_lightning.commands.evaluate_options import HELP as HELP
from gan_lightning.commands.evaluate_options import parse
from gan_lightning.commands.parser import check_output

FORMAT: Final = "gan-lightning evaluate, version 1"  # first key of our files, which identifies them


def main(words: Sequence[str]) -> int:
    """Compare two sets of images.

    Args:
        words: Words of the command line after `evaluate`.

    Returns:
        Exit status.

    Raises:
        InputError: If the command line, a set, the extractor or the output cannot be used.
    """
    options = parse(words)
    output = Path(options.output).expanduser()
    check_output(output, "metrics.json", is_metrics)
    from gan_lightning.commands.evaluate_job import Evaluation  # slow to import

    report = {"format": FORMAT, "metrics": Evaluation(options).run()}
    with atomic_path(output) as beside:
        beside.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    print("\n".join(table(report)))
    print(f"\nThe values and their protocols are in {options.output}")
    return 0


def is_metrics(path: Path) -> bool:
    """Return whether a file contains metrics written by this command."""
    try:
        return bool(json.loads(path.read_text(encoding="utf-8"))["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def table(report: dict[str, Any]) -> list[str]:
    """Return the lines of a table of the metrics."""
    metrics = report["metrics"]
    widest = max(len(name) for name in metrics)
    protocol = next(iter(metrics.values()))["protocol"]
    lines = [f"{'metric':<{widest}}  {'value':>12}  better"]
    lines += [f"{name:<{widest}}  {entry['value']:>12.6g}  {entry['better']}" for name, entry in metrics.items()]
    sides = [f"{protocol[side]['images']:,} {side} images ({protocol[side]['path']})" for side in ("real", "fake")]
    shape = f"{protocol['width']} x {protocol['height']} x {protocol['channels']}"
    return [*lines, "", f"{sides[0]} and {sides[1]}, {shape}, features of {protocol['extractor']}"]
