"""Grids of samples and panels of restorations, small enough for a single page."""

from __future__ import annotations

import base64
import io
import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from PIL import Image

from gan_lightning.hardware import count_cores
from gan_lightning.report.png import left_columns
from gan_lightning.report.run_folder import Run

BUDGET: Final = 8_500_000  # bytes of all pictures, which take 11.4 MB in base64; curves take 1 to 3 MB
WIDTHS: Final = (640, 512, 416, 336, 272, 216, 160)  # possible widths of a grid in pixels, limited by the budget
MOST_GRIDS: Final = 50  # maximum number of grids of a run; of more, evenly spaced ones are shown
MOST_PANELS: Final = 8  # maximum number of panels of a restoration
PANEL_WIDTH: Final = 1000
QUALITY: Final = 78
# Pixels around each image of a grid, between grids, and above them for titles: those of callbacks/samples.py, which
# would take five seconds to import.
PADDING, GAP, HEADER = 2, 16, 14


@dataclass(frozen=True)
class Picture:
    """A picture in the page.

    Attributes:
        data: `data:` URL of the picture.
        width: Width in pixels.
        height: Height in pixels.
        step: Step of a grid; the name of a photograph for a panel.
    """

    data: str
    width: int
    height: int
    step: int | str


@dataclass(frozen=True)
class Grids:
    """The grids of a run in the order of their steps, and the grid of real images, if there is one."""

    samples: list[Picture]
    real: Picture | None


def read_grids(runs: Sequence[Run], budget: int = BUDGET) -> list[Grids]:
    """Return the grids of each run, all with the same width, which keeps their size within a budget.

    A grid that cannot be read is left out, with a note in its run.

    Args:
        runs: The runs.
        budget: Maximum number of bytes of all grids.
    """
    chosen = [evenly(run.grids, MOST_GRIDS) for run in runs]
    for run, kept in zip(runs, chosen, strict=True):
        if len(kept) < len(run.grids):
            run.notes.append(f"{len(kept)} of its {len(run.grids)} grids of samples are shown, evenly spaced.")
    jobs = [(number, step, path) for number, kept in enumerate(chosen) for step, path in kept]
    # The last grids of the runs, because those of untrained networks are gray and small.
    last = [(number, *kept[-1]) for number, kept in enumerate(chosen) if kept]
    width = _width(runs, last[:6], budget / max(len(jobs), 1))

    def encode(job: tuple[int, int, Path]) -> Any:
        number, step, path = job
        return _try(path, lambda image: to_picture(first_part(path, image, runs[number].config), width, step))

    def real(job: tuple[int, int, Path]) -> Any:
        number, _, path = job
        return _try(path, lambda image: _real(image, runs[number].config, width))

    with ThreadPoolExecutor(count_cores()) as threads:
        pictures, reals = threads.map(encode, jobs), threads.map(real, last)
        of_runs = [Grids([], None) for _ in runs]
        for (number, _, _), picture in zip(jobs, pictures, strict=True):
            if isinstance(picture, Picture):
                of_runs[number].samples.append(picture)
            else:
                runs[number].notes.append(picture)
        for (number, _, _), picture in zip(last, reals, strict=True):
            if isinstance(picture, Picture):
                of_runs[number] = Grids(of_runs[number].samples, picture)
    return of_runs


def read_panels(run: Run) -> list[Picture]:
    """Return the first panels of a restoration; one that cannot be read is added to the notes of the run."""
    panels: list[Picture] = []
    for path in run.restorations[:MOST_PANELS]:
        picture = _try(path, partial(_panel, path.stem))
        if isinstance(picture, Picture):
            panels.append(picture)
        else:
            run.notes.append(picture)
    return panels


def evenly(items: Sequence[Any], most: int) -> list[Any]:
    """Return at most `most` evenly spaced items, including the first and the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]


def parts(image: Image.Image, config: dict[str, Any]) -> list[Image.Image]:
    """Return the grids in a picture of SampleGrid, without their titles.

    Args:
        image: The picture, with samples of the averaged generator, of the generator itself, and real images.
        config: Options of the run, which determine the size of a grid.

    Returns:
        The grids, or the whole picture if it does not have the size that follows from the options.
    """
    return [image.crop(box) for box in _boxes(image.size, config)]


def first_part(path: Path, image: Image.Image, config: dict[str, Any]) -> Image.Image:
    """Return the first grid in a picture of SampleGrid, without decoding the others.

    Args:
        path: File of the picture.
        image: The picture, opened from this file.
        config: Options of the run.
    """
    box = _boxes(image.size, config)[0]
    left = left_columns(path, box[2]) if image.format == "PNG" else None
    return (left or image).crop(box)


def _boxes(size: tuple[int, int], config: dict[str, Any]) -> list[tuple[int, int, int, int]]:
    """Return the boxes of the grids in a picture of a given size."""
    count, side = (
        config.get("sample_grid.num_images", 64),
        config.get("data.image_size", config.get("model.image_size")),
    )
    if not isinstance(count, int) or not isinstance(side, int):
        return [(0, 0, *size)]
    across = math.ceil(math.sqrt(count))
    width, height = (n * (side + PADDING) + PADDING for n in (across, math.ceil(count / across)))
    found, rest = divmod(size[0] + GAP, width + GAP)
    if rest or size[1] != HEADER + height:
        return [(0, 0, *size)]
    return [(left, HEADER, left + width, HEADER + height) for left in range(0, found * (width + GAP), width + GAP)]


def to_picture(image: Image.Image, width: int, step: int | str) -> Picture:
    """Return an image as WebP, reduced to a maximum width in pixels."""
    image = image if image.mode == "RGB" else image.convert("RGB")
    if image.width > width:
        size = width, max(1, round(image.height * width / image.width))
        image = image.resize(size, Image.Resampling.BOX if image.width >= 2 * width else Image.Resampling.BILINEAR)
    file = io.BytesIO()
    image.save(file, format="WEBP", quality=QUALITY, method=0)  # 1 takes a quarter longer for 4% fewer bytes
    return Picture(f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}", *image.size, step)


def _width(runs: Sequence[Run], tried: Sequence[tuple[int, int, Path]], mean_bytes: float) -> int:
    """Return the largest width at which some grids fit into a mean number of bytes, or otherwise the smallest width."""

    def load(number: int, path: Path, image: Image.Image) -> Image.Image:
        return first_part(path, image, runs[number].config)

    found = [_try(path, partial(load, number, path)) for number, _, path in tried]
    grids = [grid for grid in found if isinstance(grid, Image.Image)]

    def is_too_large(width: int) -> bool:
        return sum(len(to_picture(grid, width, 0).data) * 3 / 4 for grid in grids) > mean_bytes * len(grids)

    first = bisect_left(WIDTHS, True, key=lambda width: not is_too_large(width))
    return WIDTHS[min(first, len(WIDTHS) - 1)]


def _real(image: Image.Image, config: dict[str, Any], width: int) -> Picture | None:
    found = parts(image, config)
    shown = 1 + bool(config.get("model.ema_decay", 1))  # number of grids of samples; without an average, only one
    return to_picture(found[shown], width, "real") if len(found) > shown else None


def _panel(name: str, image: Image.Image) -> Picture:
    """Return a panel; a picture that is much taller than wide, such as panels.png, is cropped to its upper part."""
    return to_picture(image.crop((0, 0, image.width, min(image.height, 2 * image.width))), PANEL_WIDTH, name)


def _try(path: Path, use: Callable[[Image.Image], Any]) -> Any:
    """Apply a function to the image in a file; return its result, or a message if the file cannot be read."""
    try:
        with Image.open(path) as image:
            return use(image)
    except Exception as error:  # Pillow's plugins raise nearly any class
        return f"{path.parent.name}/{path.name} cannot be read ({type(error).__name__}), and is left out."
