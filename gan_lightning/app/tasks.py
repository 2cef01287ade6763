"""The tasks of `restore` as the page offers them: names, hints, and the options of each."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gan_lightning.commands.restore_options import parse
from gan_lightning.inversion import InversionSettings

NAMES: Final = {
    "inpaint": "Fill in what is missing",
    "denoise": "Remove noise",
    "deblur": "Sharpen",
    "super_resolve": "Enlarge",
    "colorize": "Add color",
    "invert": "Find the nearest image the generator can make",
}
HINTS: Final = {
    "inpaint": "Paint over what is missing or damaged. Transparent parts of the photograph count as missing, too.",
    "denoise": "Removes the grain of the photograph.",
    "deblur": "Removes a blur that is uniform over the photograph.",
    "super_resolve": "For photographs that are smaller than what the generator makes.",
    "colorize": "The brightness of the photograph is kept, and the colors are a guess.",
    "invert": "The photograph is imitated as closely as possible.",
}
MOST_SEARCHES: Final = 16  # more than eight hardly improve a result


@dataclass(frozen=True)
class Wish:
    """What the user of the page asked for.

    Attributes:
        task: Task of `restore`.
        noise: Standard deviation of the noise on the [0, 1] scale, of "denoise"; None if it is unknown.
        blur: Sigma of the blur in pixels of the result, of "deblur"; None if it is unknown.
        factor: Factor of "super_resolve".
        searches: Number of searches.
    """

    task: str
    noise: float | None = None
    blur: float | None = None
    factor: int | None = None
    searches: int | None = None

    def options(self, photo: Path, generator: str, mask: Path | None, output: Path) -> argparse.Namespace:
        """Return the options of the command `restore` for the same.

        Raises:
            InputError: If a number is out of range.
        """
        words = ["--generator", generator, "--task", self.task, "--output", str(output), "--keep_searches"]
        own = {"denoise": ("noise",), "deblur": ("blur",), "super_resolve": ("factor",)}.get(self.task, ())
        for name in (*own, "searches"):
            if (value := getattr(self, name)) is not None:
                words += [f"--{name}", str(value)]
        if mask is not None:
            words += ["--mask", str(mask)]
        return parse([*words, "--", str(photo)])[0]


def default_searches(task: str) -> int:
    """Return the number of searches that `restore` makes for a task."""
    return InversionSettings().counts(every_pixel_observed=task in ("denoise", "invert")).num_searches


def factors(image_size: int) -> list[int]:
    """Return the factors by which photographs can be enlarged to the size of the generator."""
    return [factor for factor in (2, 4, 8, 16) if image_size % factor == 0 and image_size // factor >= 8]


def in_words_of_the_page(message: str) -> str:
    """Return a message of `restore` with the names of the page in place of options of the command."""
    message = re.sub(r"--task (\w+) --factor (\d+)", lambda m: f"{NAMES[m[1]]}, {m[2]} times", message)
    return re.sub(r"--(\w+)", lambda m: {"noise": "the noise", "blur": "the blur"}.get(m[1], f"the {m[1]}"), message)
