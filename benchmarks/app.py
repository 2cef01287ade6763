"""Seconds from a click on the page of `gan-lightning app` to the restored photograph, in a headless browser.

    python benchmarks/app.py

The page is served with faces64, and the browser runs on the same cores. The photograph is a rendered face of 178x218
pixels. The first click comes right after the page has been opened.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import environment  # noqa: F401  first: it sets what torch reads when it is imported
from browser import BROWSERS, find_browser, launched, paint
from PIL import Image
from report import print_header, print_table

from gan_lightning.app.tasks import NAMES, default_searches
from gan_lightning.faces import render_face, sample_face

TASKS = ("inpaint", "denoise", "deblur", "colorize", "invert")
AIM = 3.0


@contextmanager
def served() -> Iterator[str]:
    """Serve the page in a process of its own, and yield its address."""
    words = [sys.executable, "-m", "gan_lightning", "app", "--generator", "faces64", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = next(match for line in process.stdout if (match := re.match(r"open (\S+)", line)))
            yield found[1]
        finally:
            process.terminate()


def click(page: Any) -> tuple[float, float]:
    """Click on "Restore"; return the seconds until the result is on the page, and those that the server took."""
    started = time.perf_counter()
    page.get_by_role("button", name="Restore").click()
    page.locator("#status").get_by_text("Restoring").wait_for()
    said = page.locator("#status").get_by_text("Restored in")
    said.wait_for(timeout=300_000)
    seconds = time.perf_counter() - started
    return seconds, float(re.findall(r"Restored in ([\d.]+) s", said.inner_text())[0])


def measure(page: Any, task: str, repeats: int) -> list[str]:
    """Return a row of the table."""
    page.get_by_label(NAMES[task], exact=True).check()
    page.wait_for_timeout(1000)
    if task == "inpaint":
        paint(page)
        page.wait_for_timeout(1000)
    seconds, of_server = zip(*(click(page) for _ in range(repeats)), strict=True)
    median = statistics.median(seconds)
    return [
        NAMES[task],
        str(default_searches(task)),
        f"{seconds[0]:.1f}",
        f"{median:.1f} ({min(seconds):.1f} to {max(seconds):.1f})",
        f"{statistics.median(of_server):.1f}",
        "yes" if median <= AIM else "no",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="clicks for each task")
    arguments = parser.parse_args()
    print_header(
        "The page: from a click to a restored photograph",
        f"faces64, a photograph of 178x218 pixels restored at 64x64, {arguments.repeats} clicks for each task",
        "the browser, with WebGL in software, runs on the same cores",
        "load of the machine before: {:.1f}, {:.1f}, {:.1f}".format(*os.getloadavg()),
    )
    if (path := find_browser()) is None:
        sys.exit(f"there is no browser: install one of {', '.join(BROWSERS)}")
    rows = []
    with served() as address, tempfile.TemporaryDirectory() as folder, launched(path) as browser:
        photo = Path(folder, "face.png")
        Image.fromarray(render_face(sample_face(11, 2))).save(photo)
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.goto(address)
        page.set_input_files("input[type=file]", photo)
        page.get_by_text("is ready").wait_for()
        page.wait_for_timeout(3000)
        for task in TASKS:
            rows.append(measure(page, task, arguments.repeats))
    print_table(["task", "searches", "first, s", "median (lowest to highest), s", "of the server, s", "3 s?"], rows)


if __name__ == "__main__":
    main()
