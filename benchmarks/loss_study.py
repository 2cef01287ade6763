"""Train the same DCGAN with three losses of the generator, and plot the runs side by side: docs/losses.md.

    make study-losses
    python benchmarks/loss_study.py --picture docs/images/losses-study.png > benchmarks/results/loss_study.md

Further options are those of `gan-lightning fit`, and go to all three runs: `--data.root DIR`, or `--seed_everything 1`
with a --folder of its own. A run that was interrupted is resumed, and a finished one is not repeated.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import environment  # noqa: F401  first: it sets what torch reads when it is imported
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator
from report import print_header, print_table

from gan_lightning import DCGAN
from gan_lightning.__main__ import main as gan_lightning
from gan_lightning.atomic import atomic_path
from gan_lightning.callbacks.curves import Series, smooth
from gan_lightning.images import make_grid
from gan_lightning.loggers.metrics_file import MetricsFile

LOSSES = {  # the generator minimizes
    "saturating": r"$\mathrm{E}\,\log(1-D(G(z)))$",
    "bce_mse": r"$\mathrm{E}\,(1-D(G(z)))^2$",
    "non_saturating": r"$-\mathrm{E}\,\log D(G(z))$",
}
LATENTS, SEED = 64, 0  # of the grid: those of samples/ in the folder of a run
OUTPUTS = {"D(x)": "train/d_x", "D(G(z))": "train/d_g_z_before"}
WIDTH, DPI = 8, 140  # inches; a page shows the picture about 700 pixels wide
DISTANCE = "val/fd_random"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/losses"), help="folder of the three runs")
    parser.add_argument("--config", default="experiments/losses/faces32", help="configuration that they share")
    parser.add_argument("--picture", type=Path, help="PNG file to draw; by default study.png in the folder")
    options, more = parser.parse_known_args()
    seconds = train(options.folder, options.config, more)
    runs = {name: options.folder / name for name in LOSSES}
    picture = options.picture or options.folder / "study.png"
    draw(runs, picture)
    print(f"{picture} shows the three runs", file=sys.stderr)
    print_report(runs, seconds)


def train(folder: Path, config: str, more: Sequence[str]) -> Mapping[str, float]:
    """Train with each loss unless that is done; return the processor time of each, in seconds."""
    study = folder / "study.json"
    settings = {"config": config, "options": list(more)}
    state: dict[str, Any] = {**settings, "processor_seconds": {}}
    if study.is_file():
        state = json.loads(study.read_text())
        if {key: state[key] for key in settings} != settings:
            sys.exit(f"{study} is of a study with other options: choose another --folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name in LOSSES:
        if status(folder / name) == "finished":
            continue
        words = ["fit", "--config", config, "--config", f"experiments/losses/{name}", *more]
        words += ["--trainer.default_root_dir", str(folder), "--name", name]
        words += ["--ckpt_path", "last"] if (folder / name).is_dir() else []
        print(f"gan-lightning {' '.join(words)}", file=sys.stderr, flush=True)
        started = time.process_time()
        with contextlib.redirect_stdout(sys.stderr):  # the table alone goes to standard output
            failed = gan_lightning(words)
        spent = time.process_time() - started
        state["processor_seconds"][name] = state["processor_seconds"].get(name, 0) + spent
        with atomic_path(study) as beside:
            beside.write_text(json.dumps(state))
        if failed:
            sys.exit(failed)
    seconds: dict[str, float] = state["processor_seconds"]
    return seconds


def status(run: Path) -> str:
    """Return how a run has ended, by its summary; empty if it has none."""
    path = run / "summary.json"
    return str(json.loads(path.read_text())["status"]) if path.is_file() else ""


def draw(runs: Mapping[str, Path], path: Path) -> None:
    """Draw losses, outputs of D, gradients of G, samples and distances, with a column for each run."""
    figure = Figure(figsize=(WIDTH, 11.4), layout="constrained")
    heights = (1, 1, 0.8, 1, 1.75, 1.15)
    grid = figure.add_gridspec(len(heights), len(runs), height_ratios=heights)
    rows = [[figure.add_subplot(grid[row, column]) for column in range(len(runs))] for row in range(5)]
    for row, shared in zip(rows[:4], ("losses", "|losses|", "D's outputs", "norm of G's gradient"), strict=True):
        row[0].set_ylabel(shared)
        for axis in row[1:]:
            axis.sharey(row[0])
            axis.tick_params(labelleft=False)
    histories = {name: MetricsFile(folder).history() for name, folder in runs.items()}
    for column, (name, history) in enumerate(histories.items()):
        linear, logarithmic, outputs, gradient, samples = (row[column] for row in rows)
        linear.set_title(f"{name}\n{LOSSES.get(name, '')}", fontsize="medium")
        draw_curves(linear, history, {"D's loss": "train/loss_d", "G's loss": "train/loss_g"})
        draw_curves(logarithmic, history, {"D's loss": "train/loss_d", "|G's loss|": "train/loss_g"}, absolute=True)
        draw_curves(outputs, history, OUTPUTS)
        draw_curves(gradient, history, {"": "train/grad_norm_g"}, absolute=True, color=2)
        outputs.set_ylim(-0.04, 1.04)
        draw_samples(samples, runs[name])
    for axis in (rows[0][0], rows[2][0]):
        axis.legend(fontsize="small", loc="center right")
    for axis in rows[3]:
        axis.set_xlabel("generator iterations")
    draw_distances(figure.add_subplot(grid[5, :]), histories)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as beside:
        figure.savefig(beside, dpi=DPI, format="png")


def draw_distances(axis: Axes, histories: Mapping[str, Series]) -> None:
    """Draw the Frechet distance of all runs on one axis, and its last value beside each curve."""
    last, lowest = 0, math.inf
    for number, (name, history) in sorted(enumerate(histories.items()), key=lambda item: -item[1][1][DISTANCE][-1][1]):
        steps, values = zip(*history[DISTANCE], strict=True)
        axis.plot(steps, values, color=f"C{3 + number}", marker="o", markersize=3)
        lowest, last = min(values[-1], 0.55 * lowest), max(last, *steps)  # labels of equal values stand apart
        axis.annotate(f"  {name}: {values[-1]:.3g}", (last, lowest), va="center", color=f"C{3 + number}")
    axis.set(yscale="log", ylabel="Fréchet distance", xlabel="generator iterations", xlim=(0, 1.36 * last))
    axis.set_ylim(bottom=0.6 * lowest)
    axis.yaxis.set_major_formatter(LogFormatter())
    axis.set_xticks([tick for tick in MaxNLocator(6, integer=True).tick_values(0, last) if tick <= last])
    axis.grid(alpha=0.3)


def draw_curves(axis: Axes, history: Series, names: Mapping[str, str], absolute: bool = False, color: int = 0) -> None:
    """Draw metrics by their labels: smoothed, with the values behind; absolute ones on a logarithmic axis."""
    for number, (label, name) in enumerate(names.items()):
        steps, values = np.array(history[name]).T
        if absolute:
            values = np.log10(np.abs(values) + 1e-12)  # the average of logarithms, as the axis shows them
        back = np.power(10, values) if absolute else values
        axis.plot(steps, back, color=f"C{color + number}", linewidth=0.5, alpha=0.3)
        middle = smooth(values)
        axis.plot(steps, np.power(10, middle) if absolute else middle, color=f"C{color + number}", label=label)
    if absolute:
        axis.set_yscale("log")
    axis.grid(alpha=0.3)
    axis.xaxis.get_major_locator().set_params(integer=True, nbins=3)


def draw_samples(axis: Axes, run: Path) -> None:
    """Draw what the averaged generator makes of the fixed latents at the end of a run."""
    module = DCGAN.load_from_checkpoint(run / "checkpoints" / "last.ckpt", map_location="cpu")
    images = make_grid(module.sample(LATENTS, torch.Generator().manual_seed(SEED)))
    axis.imshow(images.expand(3, -1, -1).permute(1, 2, 0).numpy(), interpolation="lanczos")
    axis.set_axis_off()


def print_report(runs: Mapping[str, Path], seconds: Mapping[str, float]) -> None:
    """Print what each run came to: means over the last tenth of its steps, distances, alarms and cost."""
    summaries = {name: json.loads((folder / "summary.json").read_text()) for name, folder in runs.items()}
    first = next(iter(summaries.values()))
    print_header("Three losses", f"{first['g_steps']:,} G iterations each, {first['images_seen']:,} images seen")
    rows = []
    for name, summary in summaries.items():
        history = MetricsFile(runs[name]).history()
        loss, gradient, *outputs = (
            np.array(history[f"train/{metric}"])[:, 1] for metric in ("loss_d", "grad_norm_g", "d_x", "d_g_z_before")
        )
        end = -max(len(loss) // 10, 1)
        distance = summary["metrics"][DISTANCE]
        alarms = [f"{alarm['name']} at {alarm['step']}" for alarm in summary["alarms"]]
        row = [name, *(f"{np.median(values[end:]):.2g}" for values in (loss, *outputs))]
        row += [f"{np.median(gradient[end:]):.2g} ({gradient.max():.2g})"]
        row += [f"{distance[key]:.4g}" for key in ("first", "best", "last")]
        row += ["; ".join(alarms) or "none", f"{seconds.get(name, math.nan):.0f} s"]
        rows.append(row)
    columns = ["loss of G", "D's loss", "D(x)", "D(G(z))", "norm of G's gradient (largest)"]
    columns += [f"fd_random, {when}" for when in ("untrained", "best", "last")]
    print_table([*columns, "alarms", "processor time"], rows)
    print("\nLosses, outputs and gradients are medians over the last tenth of the steps.\n")


if __name__ == "__main__":
    main()
