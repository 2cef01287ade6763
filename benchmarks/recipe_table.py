"""Tables and curves of the measurements of recipes.py."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from recipe_arms import AUGMENTED, CHOSEN, FIRST_ROUND, PLUS, POINTS, SECOND_ROUND
from report import print_header, print_table

from gan_lightning.atomic import atomic_path

Row = Mapping[str, str]
FINALISTS = ("tutorial", "today", CHOSEN)
LABELS = {"today": "former default", CHOSEN: "chosen", f"{CHOSEN}{PLUS}{AUGMENTED}": f"chosen{PLUS}{AUGMENTED}"}
DATA, SEEDS, BUDGET, FEW = ("faces", "digits"), (0, 1, 2), 60_000, 500
DISTANCES = ("fd_random", "fd_classifier")
NEIGHBORS = ("precision", "recall", "density", "coverage")
WIDTH, DPI = 8, 140  # inches; a page shows the picture about 700 pixels wide


class Run(NamedTuple):
    """What tells a run from others."""

    recipe: str
    data: str
    seed: int = 0
    budget: int = BUDGET
    limit: int | None = None


Runs = Mapping[Run, Sequence[Row]]


def whole_runs(rows: Iterable[Row]) -> Runs:
    """Return the rows of each run, in the order of the images seen.

    Raises:
        ValueError: If a run is incomplete, or two runs of the same name have different settings.
    """
    runs: dict[Run, list[Row]] = {}
    for row in rows:
        limit = int(row["limit"]) if row["limit"] else None
        run = Run(row["recipe"], row["data"], int(row["seed"]), int(row["budget"]), limit)
        runs.setdefault(run, []).append(row)
    for run, measured in runs.items():
        if len({row["settings"] for row in measured}) > 1:
            raise ValueError(f"{run} was measured with two different settings: remove the rows of one of them")
        if len(measured) != POINTS or int(measured[-1]["images"]) < run.budget:
            raise ValueError(f"{run} is incomplete: expected {POINTS} rows but got {len(measured)}; measure it again")
    return runs


def print_tables(rows: Iterable[Row]) -> None:
    """Print all tables in Markdown.

    Args:
        rows: Rows of the CSV file.
    """
    runs = whole_runs(rows)
    print_header(
        "Recipes",
        "measurements: [recipes.csv](recipes.csv), made on one NVIDIA H100 80GB with several runs at a time; the "
        "hardware above printed the tables",
        "networks of DCGAN, 64 px, base_channels 64; 10,000 rendered faces, or 5,000 real digits",
        "fd_random: Fréchet distance in the features of a fixed random network, which recipes were chosen by; "
        "fd_classifier: in those of a classifier of the same data, which nothing was chosen by",
        "precision, recall, density and coverage: of 1,000 samples, in the random features",
        f"tutorial: batch 128; former default: that of configs/quickstart.yaml before the study; chosen: {CHOSEN}",
    )
    print_final(runs)
    print_round(runs, "First round", FIRST_ROUND[2:])
    together = dict.fromkeys(run.recipe for run in runs if is_combination(run.recipe))
    print_round(runs, "Second round", [*SECOND_ROUND, *together])
    print_long(runs)
    print_few(runs)


def short(name: str) -> str:
    """Return the name of a recipe without the start of its round."""
    if name in LABELS:
        return LABELS[name]
    start, *changes = name.split(PLUS)
    return PLUS.join(changes) if changes else start


def is_combination(name: str) -> bool:
    """Return whether a recipe is the start of the second round with several of its changes."""
    return name.startswith(SECOND_ROUND[0] + PLUS) and name not in SECOND_ROUND and AUGMENTED not in name


def last(runs: Runs, run: Run, column: str) -> float:
    """Return what was measured at the end of a run."""
    return float(runs[run][-1][column])


def ends(runs: Runs, recipe: str, data: str, column: str, limit: int | None = None) -> list[float]:
    """Return what was measured at the ends of the runs of one recipe, in the order of the seeds that there are."""
    wanted = [Run(recipe, data, seed, BUDGET, limit) for seed in SEEDS]
    return [last(runs, run, column) for run in wanted if run in runs]


def number(value: float) -> str:
    """Format a distance or a ratio in three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def spread(values: Sequence[float]) -> str:
    """Format the mean, and the least and greatest of values."""
    return f"{number(statistics.mean(values))} ({number(min(values))} to {number(max(values))})"


def over_seeds(runs: Runs, recipe: str, start: str, data: str, limit: int | None = None) -> list[str]:
    """Return the cells of one recipe over all seeds: distances, their ratios to those of another, and the rest."""
    cells = []
    for column in DISTANCES:
        values = ends(runs, recipe, data, column, limit)
        cells += [
            spread(values),
            number(statistics.mean(values) / statistics.mean(ends(runs, start, data, column, limit))),
        ]
    cells += [f"{statistics.mean(ends(runs, recipe, data, column, limit)):.3f}" for column in NEIGHBORS]
    return [*cells, str(len(values))]


def print_final(runs: Runs) -> None:
    """Print the tutorial, the former default and the chosen recipe, over all seeds."""
    table = []
    for data in DATA:
        for recipe in FINALISTS:
            table.append([short(recipe), data, *over_seeds(runs, recipe, FINALISTS[0], data)])
    print(f"## {BUDGET:,} images seen\n\nMeans over the seeds (least to greatest); ratios are to the tutorial's.\n")
    headings = [heading for column in DISTANCES for heading in (column, "ratio")]
    print_table(["recipe", "data", *headings, *NEIGHBORS, "seeds"], table)


def print_round(runs: Runs, title: str, names: Sequence[str]) -> None:
    """Print the first of some recipes and changes of it at seed 0, with the ratios of their distances to its own."""
    start = names[0]
    measured = [name for name in names if all(Run(name, data) in runs for data in DATA)]
    missing = [short(name) for name in names if name not in measured]

    def ratio(name: str, data: str, column: str) -> float:
        return last(runs, Run(name, data), column) / last(runs, Run(start, data), column)

    def order(name: str) -> float:
        return statistics.geometric_mean(ratio(name, data, DISTANCES[0]) for data in DATA)

    table = []
    for name in sorted(measured, key=order):
        cells = [f"**{start}**" if name == start else name.removeprefix(start + PLUS), number(order(name))]
        for column in DISTANCES:
            for data in DATA:
                cells += [number(last(runs, Run(name, data), column)), number(ratio(name, data, column))]
        table.append(cells)
    print(f"## {title}: changes of \"{start}\"\n\n{BUDGET:,} images seen, seed 0. Ratios are to the start's; the best "
          f"by the geometric mean of both ratios of {DISTANCES[0]} comes first.\n")  # fmt: skip
    headings = [heading for column in DISTANCES for data in DATA for heading in (f"{column}, {data}", "ratio")]
    print_table(["change", "mean ratio", *headings], table)
    if missing:
        print(f"Not run from this start, because the time on the GPU ended: {'; '.join(missing)}.\n")


def print_long(runs: Runs) -> None:
    """Print the best and the last distances of runs of three times the budget."""
    table = []
    for data in DATA:
        for recipe in FINALISTS:
            run = Run(recipe, data, 0, 3 * BUDGET)
            if run not in runs:
                continue
            cells = [short(recipe), data]
            for column in DISTANCES:
                best = min(runs[run], key=lambda row: float(row[column]))
                cells += [f"{number(float(best[column]))} at {int(best['images']):,}", number(last(runs, run, column))]
                cells.append(number(last(runs, run, column) / float(best[column])))
            table.append(cells)
    print(f"## {3 * BUDGET:,} images seen\n\nSeed 0.\n")
    headings = [heading for column in DISTANCES for heading in (f"{column}, best", "last", "last/best")]
    print_table(["recipe", "data", *headings], table)


def print_few(runs: Runs) -> None:
    """Print what the augmentation does where there are few training images."""
    table = []
    for data in DATA:
        for recipe in (CHOSEN, f"{CHOSEN}{PLUS}{AUGMENTED}"):
            if Run(recipe, data, limit=FEW) in runs:
                table.append([short(recipe), data, *over_seeds(runs, recipe, CHOSEN, data, FEW)])
    print(f"## {FEW} training images\n\n{BUDGET:,} images seen, measured against images that were not trained on. "
          "Means over the seeds (least to greatest); ratios are to the runs without augmentation.\n")  # fmt: skip
    headings = [heading for column in DISTANCES for heading in (column, "ratio")]
    print_table(["recipe", "data", *headings, *NEIGHBORS, "seeds"], table)


def draw(rows: Iterable[Row], path: Path) -> None:
    """Draw distances against images seen: a thin line for each seed, a strong one for their mean.

    Args:
        rows: Rows of the CSV file.
        path: PNG file.
    """
    runs = whole_runs(rows)
    figure = Figure(figsize=(WIDTH, 6.2), layout="constrained")
    axes = figure.subplots(len(DISTANCES), len(DATA), sharex=True)
    for row, column in zip(axes, DISTANCES, strict=True):
        for axis, data in zip(row, DATA, strict=True):
            for index, recipe in enumerate(FINALISTS):
                curves = [runs[run] for run in (Run(recipe, data, seed) for seed in SEEDS) if run in runs]
                if not curves:
                    continue
                images = [int(point["images"]) for point in curves[0]]
                values = [[float(point[column]) for point in curve] for curve in curves]
                for one in values:
                    axis.plot(images, one, color=f"C{index}", linewidth=0.7, alpha=0.5)
                mean = [statistics.mean(points) for points in zip(*values, strict=True)]
                axis.plot(images, mean, color=f"C{index}", linewidth=2, marker="o", markersize=3, label=short(recipe))
            axis.set(yscale="log", title=f"{data}: {column}")
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
            axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            axis.grid(alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("images seen")
    for axis in axes[:, 0]:
        axis.set_ylabel("Fréchet distance")
    axes[0, 0].legend(fontsize="small")
    with atomic_path(path) as beside:
        figure.savefig(beside, dpi=DPI, format="png")
