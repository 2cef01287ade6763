"""Parts of gpu.py on the command line: fit, SIGTERM and resume, validate and test started cold; evaluation."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from gpu_setup import Setup, Table
from gpu_training import MIXED, make_model
from torch import Tensor

from gan_lightning import DCGAN, load_generator
from gan_lightning.callbacks.evaluation import GenerationMetrics

QUICKSTART = Path(__file__).resolve().parents[1] / "configs" / "quickstart.yaml"


@dataclass
class Job:
    """A command that runs."""

    pid: int
    wait: Callable[[], int | None]
    log: Path


def start(setup: Setup, command: str, name: str, environment: dict[str, str] | None = None, **options: Any) -> Job:
    """Start a command of the package; a GPU's is started anew, as users do, others are forked to save time."""
    sizes, log = setup.sizes, setup.folder / f"{name}-{command}.log"
    given = {
        "config": QUICKSTART,
        "name": name,
        "model.image_size": sizes.image_size,
        "model.base_channels": sizes.base_channels,
        "model.latent_dim": sizes.latent_dim,
        "data.root": setup.folder / "faces",
        "data.count": sizes.faces,
        "data.image_size": sizes.image_size,
        "data.batch_size": sizes.batch_sizes[0],
        "evaluation.num_images": sizes.evaluation_images // 10,
        "evaluation.split": "all",
        "trainer.accelerator": "gpu" if setup.cuda else "cpu",
        "trainer.devices": 1,
        "trainer.precision": MIXED,
        "trainer.log_every_n_steps": 10,
        "trainer.enable_progress_bar": "false",
    } | {key.replace("__", "."): value for key, value in options.items()}
    words = [command] + [word for key, value in given.items() for word in (f"--{key}", str(value))]
    if setup.cuda:
        with log.open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "gan_lightning", *words],
                cwd=setup.folder,
                env=os.environ | (environment or {}),
                stdout=file,
                stderr=file,
            )
        return Job(process.pid, process.wait, log)
    forked = get_context("fork").Process(target=run_here, args=(words, log))
    forked.start()
    assert forked.pid is not None

    def wait() -> int | None:
        forked.join()
        return forked.exitcode

    return Job(forked.pid, wait, log)


def run_here(words: list[str], log: Path) -> None:
    """Run a command in this process."""
    from gan_lightning.__main__ import main

    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(file, stream.fileno())
    sys.exit(main(words))


def finish(job: Job, expected: tuple[int, ...] = (0,)) -> None:
    """Wait for a command.

    Raises:
        RuntimeError: If it failed; the message has the end of its output.
    """
    status = job.wait()
    if status not in expected:
        text = job.log.read_text(errors="replace")
        print(text[-6000:], file=sys.stderr)
        lines = [line for line in text.splitlines() if line.strip()]
        raise RuntimeError(f"status {status}: {lines[-1] if lines else 'nothing was printed'}")


def rows(setup: Setup, name: str) -> list[dict[str, str]]:
    """Read metrics.csv of a run."""
    path = setup.folder / "runs" / name / "metrics.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def values(setup: Setup, name: str, metric: str) -> list[float]:
    """Return a metric's values of a run, in order."""
    return [float(row[metric]) for row in rows(setup, name) if row.get(metric)]


def weights(setup: Setup, name: str) -> dict[str, Tensor]:
    """Read the weights of a run's last checkpoint, on the CPU."""
    path = setup.folder / "runs" / name / "checkpoints" / "last.ckpt"
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    return state


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> str:
    """Say how far two sets of weights are apart."""
    if all(torch.equal(one[name], other[name]) for name in one):
        return "equal to the bit"
    return f"{max(float((one[name].double() - other[name].double()).abs().max()) for name in one):.1e}"


# --- Parts


def fit(setup: Setup) -> None:
    """Train by the command line; the generator serves the parts on restoration."""
    sizes = setup.sizes
    table = Table(
        f"`gan-lightning fit`, {sizes.fit_steps} steps",
        "training", "seconds in all", "images/s at the end", "val/fd_random first", "last",
        notes=f"{sizes.image_size} px, batch {sizes.batch_sizes[0]}, {MIXED}, resident, {sizes.faces} synthetic faces; "
        f"fd_random on {sizes.evaluation_images // 10} images; started cold.",
    )  # fmt: skip

    def measure() -> list[str]:
        steps = {"trainer__max_steps": sizes.fit_steps, "trainer__val_check_interval": sizes.fit_steps // 3}
        seconds, _ = setup.seconds(lambda: finish(start(setup, "fit", "fit", data__resident="true", **steps)))
        rates, distances = values(setup, "fit", "train/images_per_second"), values(setup, "fit", "val/fd_random")
        return [f"{seconds:.1f}", f"{rates[-1]:,.0f}", f"{distances[0]:.4g}", f"{distances[-1]:.4g}"]

    table.try_row("ours", measure)
    table.try_row("its checkpoint on the CPU", partial(load_on_cpu, setup))
    table.end()


def load_on_cpu(setup: Setup) -> list[str]:
    """Load a checkpoint on the CPU, and compare its images with the device's."""
    DCGAN.load_from_checkpoint(setup.checkpoint, map_location="cpu", weights_only=True)
    generator = load_generator(setup.checkpoint)
    latents = torch.randn(8, setup.sizes.latent_dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = generator(latents)
        theirs = generator.to(setup.device)(latents.to(setup.device)).cpu()
    return [f"loads; images differ from {setup.device}'s by {(ours - theirs).abs().max():.1e}"]


def resume(setup: Setup) -> None:
    """Stop a training by SIGTERM, resume it, and compare it with one that was left alone."""
    sizes = setup.sizes
    table = Table(
        f"SIGTERM and resume, {sizes.resume_steps} steps",
        "runs", "largest difference of the weights", "stopped at step",
        notes="`last.ckpt` of runs of the command line on the same data and seed, resumed by `--ckpt_path last`.",
    )  # fmt: skip
    steps = {"trainer__max_steps": sizes.resume_steps, "trainer__val_check_interval": sizes.resume_steps // 2}
    kinds: dict[str, tuple[dict[str, str], dict[str, str]]] = {"": ({}, {})}
    if setup.cuda:
        workspace = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
        kinds["-deterministic"] = ({"trainer__deterministic": "true"}, workspace)
    jobs = {
        f"{name}{kind}": start(setup, "fit", f"{name}{kind}", environment, **steps, **options)
        for kind, (options, environment) in kinds.items()
        for name in (("whole", "again", "stopped") if setup.cuda else ("whole", "stopped"))
    }
    stopped_at: dict[str, str] = {}
    waiting = {f"stopped{kind}" for kind in kinds}
    until = time.monotonic() + 45
    while waiting and time.monotonic() < until:
        for name in list(waiting):
            steps_taken = [row["step"] for row in rows(setup, name) if (row.get("step") or "").isdigit()]
            if steps_taken and int(steps_taken[-1]) >= sizes.resume_steps // 3:
                os.kill(jobs[name].pid, signal.SIGTERM)
                waiting.remove(name)
        time.sleep(0.02)
    for name, job in jobs.items():
        job.wait() if name.startswith("stopped") else finish(job)
    resumed = {}
    for kind, (options, environment) in kinds.items():
        name = f"stopped{kind}"
        path = setup.folder / "runs" / name / "checkpoints" / "last.ckpt"
        stopped_at[kind] = str(torch.load(path, map_location="cpu", weights_only=True)["global_step"])
        resumed[kind] = start(setup, "fit", name, environment, ckpt_path="last", **steps, **options)
    for job in resumed.values():
        finish(job)
    for kind in kinds:
        whole = weights(setup, f"whole{kind}")
        title = kind.replace("-", " ").strip() or "as it is"
        if setup.cuda:
            table.row(f"{title}: two runs left alone", difference(whole, weights(setup, f"again{kind}")))
        table.row(
            f"{title}: stopped and resumed", difference(whole, weights(setup, f"stopped{kind}")), stopped_at[kind]
        )
    table.end()


def cold(setup: Setup) -> None:
    """Time `validate`, `test` and `predict` from a cold start."""
    table = Table("Commands, started cold", "command", "result", "seconds")

    def measure(command: str, **options: Any) -> list[str]:
        job = partial(start, setup, command, command, ckpt_path=setup.checkpoint, **options)
        seconds, _ = setup.seconds(lambda: finish(job()))
        return ["ok", f"{seconds:.1f}"]

    table.try_row("validate", partial(measure, "validate"))
    table.try_row("test", partial(measure, "test"))
    table.end()


def evaluate(setup: Setup) -> None:
    """Time the evaluation of samples by themselves, on the device and on the CPU."""
    count = setup.sizes.evaluation_images
    table = Table(
        f"Evaluation: fd_random on {count} images", "where", "first, with the real images' statistics, s", "again, s",
        "val/fd_random",
    )  # fmt: skip
    for device in dict.fromkeys((setup.device, "cpu")):

        def measure(device: str = device) -> list[str]:
            model, cache = make_model(setup), setup.folder / f"statistics-{device}"
            if setup.checkpoint.is_file():
                state = torch.load(setup.checkpoint, map_location="cpu", weights_only=True)["state_dict"]
                model.load_state_dict(state)
            callback = GenerationMetrics(count, extractor="random", split="all", cache_dir=str(cache))
            place = Setup(device, setup.sizes, setup.folder)
            trainer = place.trainer(MIXED if device == "cuda" else "32-true", limit_val_batches=1, callbacks=[callback])
            data = setup.faces()
            first, _ = setup.seconds(lambda: trainer.validate(model, data, verbose=False))
            again, found = setup.seconds(lambda: trainer.validate(model, data, verbose=False))
            return [f"{first:.1f}", f"{again:.1f}", f"{found[0]['val/fd_random']:.5g}"]

        table.try_row(device, measure)
    table.end()
