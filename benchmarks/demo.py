"""Print the result and the cost of `make demo` as a Markdown table, from its summary.json.

    make demo && .venv/bin/python benchmarks/demo.py --minutes 5.8

--minutes is the duration of the whole command with the environment installed, including rendering and packing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import environment  # noqa: F401  first: it sets what torch reads when it is imported
from report import print_header, print_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="runs/demo", help="run folder")
    parser.add_argument(
        "--minutes", type=float, required=True, help="minutes of the whole command, as measured by `time`"
    )
    options = parser.parse_args()
    summary = json.loads((Path(options.run) / "summary.json").read_text())
    distance = summary["metrics"]["val/fd_random"]
    print_header("The demo", f"{summary['g_steps']:,} G iterations, {summary['images_seen']:,} images seen")
    rows = [
        ["whole command after installation, including rendering and packing", f"{options.minutes:.1f} min"],
        ["training and evaluation only", f"{summary['seconds'] / 60:.1f} min"],
        ["peak memory", f"{summary['peak_memory_bytes']['host'] / 1e9:.2f} GB"],
        ["fd_random of the untrained generator", f"{distance['first']:.1f}"],
        ["fd_random at the end", f"{distance['last']:.2f}"],
        ["last relative to first", f"1/{distance['first'] / distance['last']:.0f}"],
    ]
    print_table(["quantity", "value"], rows)


if __name__ == "__main__":
    main()
