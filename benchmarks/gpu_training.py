"""Parts of gpu.py on training: profile and synchronizations of a step, its ceiling, whole trainings, variants."""

from __future__ import annotations

import copy
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import lightning as L
import torch
from cuda_trace import SynchronizationCounter, TraceSummary, traced
from gpu_setup import Setup, Table, failure, report_error
from torch import Tensor, nn
from torch.optim import Adam
from torch.utils.data import DataLoader, RandomSampler
from train_throughput import Stopwatch
from tutorial import TutorialLoop, jpeg_loader

from gan_lightning import DCGAN, Discriminator, Generator, LatentEncoder
from gan_lightning.callbacks.curves import Curves
from gan_lightning.callbacks.progress import ProgressBar
from gan_lightning.callbacks.samples import SampleWriter
from gan_lightning.callbacks.summary import RunSummary
from gan_lightning.loggers.metrics_file import MetricsFile
from gan_lightning.objectives import bce_discriminator, non_saturating_generator
from gan_lightning.resume.last_checkpoint import LastCheckpoint

NEVER = 10**9
MIXED, FULL = "bf16-mixed", "32-true"


def make_model(setup: Setup, **options: Any) -> DCGAN:
    """Make untrained networks, always the same."""
    L.seed_everything(0, verbose=False)
    sizes = setup.sizes
    defaults = {
        "image_size": sizes.image_size,
        "latent_dim": sizes.latent_dim,
        "base_channels": sizes.base_channels,
    }
    return DCGAN(**{**defaults, **options})


def variants(setup: Setup) -> dict[str, dict[str, Any]]:
    """Return the options of our model that are compared."""
    eager: dict[str, Any] = {"cuda_graph": False}
    return {"ours": {}, "ours, cuda_graph: false": eager} if setup.cuda else {"ours": {}}


class SameBatch:
    """A loader that gives one batch again and again.

    Args:
        image: (B,C,H,W) in [-1, 1].
        count: Number of batches in an epoch.
    """

    def __init__(self, image: Tensor, count: int = NEVER) -> None:
        self.image, self.count = image, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return ({"image": self.image} for _ in range(self.count))


# --- Profile


class Profile(L.Callback):
    """Times some steps of a fit, traces as many, and ends it."""

    def __init__(self, setup: Setup) -> None:
        self.setup_, self.summary = setup, TraceSummary()
        self.begin = setup.sizes.warm_up
        self.middle, self.end = self.begin + setup.sizes.steps, self.begin + 2 * setup.sizes.steps + 1

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Start and stop the clock and the profiler."""
        steps, count = trainer.global_step, self.setup_.sizes.steps
        if steps == self.begin:
            self.setup_.synchronize()
            self.started = time.perf_counter()
        elif steps == self.middle:
            self.host_ms = 1000 * (time.perf_counter() - self.started) / count
            self.setup_.synchronize()
            self.wall_ms = 1000 * (time.perf_counter() - self.started) / count
            if not self.setup_.cuda:
                trainer.should_stop = True
                return
            self.trace = traced()
            self.summarize = self.trace.__enter__()
        elif steps == self.end - 1 and self.setup_.cuda:
            self.trace.__exit__(None, None, None)
            self.summary = self.summarize()
            trainer.should_stop = True


def profile(setup: Setup) -> None:
    """Profile our step, on a batch that is on the device."""
    sizes, batch_size = setup.sizes, setup.sizes.batch_sizes[0]
    table = Table(
        "Profile of a step",
        "step", "images/s", "wall ms", "host ms", "GPU busy ms", "busy", "kernels", "launches", "syncs", "HtoD", "DtoH",
        "peak memory",
        notes=f"`Trainer.fit`, {MIXED}, {sizes.image_size} px, batch {batch_size}, on the device, not logged; means "
        f"of {sizes.steps} steps. Wall time without the profiler. Host: until the last step was launched.",
    )  # fmt: skip
    found: dict[str, TraceSummary] = {}

    def measure(name: str, options: dict[str, Any]) -> list[str]:
        callback = Profile(setup)
        setup.start_memory()
        trainer = setup.trainer(MIXED, callbacks=[callback], log_every_n_steps=NEVER)
        trainer.fit(make_model(setup, **options), SameBatch(setup.random_batch(batch_size)))
        summary, count = callback.summary, sizes.steps
        found[name] = summary
        cells = [f"{1000 * batch_size / callback.wall_ms:,.0f}", f"{callback.wall_ms:.2f}", f"{callback.host_ms:.2f}"]
        if not setup.cuda:
            return [*cells, "needs CUDA"]
        busy = summary.busy_ms / count
        cells += [f"{busy:.2f}", f"{100 * busy / callback.wall_ms:.0f}%"]
        numbers = (summary.kernels, summary.launches, summary.synchronizations, summary.copies["HtoD"])
        cells += [f"{number / count:.1f}" for number in (*numbers, summary.copies["DtoH"])]
        return [*cells, setup.peak_memory()]

    for name, options in variants(setup).items():
        table.try_row(name, partial(measure, name, options))
    table.end()
    if not setup.cuda:
        print("The slowest kernels: needs CUDA.\n")
        return
    for name, summary in found.items():
        slowest = Table(f"The slowest kernels: {name}", "kernel", "ms a step", "a step", "of the busy time")
        for kernel, milliseconds, number in summary.slowest(15):
            share = 100 * milliseconds / max(summary.busy_ms, 1e-9)
            cells = f"{milliseconds / sizes.steps:.4f}", f"{number / sizes.steps:.1f}", f"{share:.1f}%"
            slowest.row(f"`{kernel[:110]}`", *cells)
        slowest.end()


# --- Faces


def faces(setup: Setup) -> None:
    """Render the faces and pack them."""
    from gan_lightning.faces.synthesis import synthesize

    table = Table("Synthetic faces", "what", "seconds", "images/s")
    count, workers = setup.sizes.faces, setup.sizes.rendering_processes
    seconds, _ = setup.seconds(lambda: synthesize(setup.folder / "faces", count, num_workers=workers, progress=False))
    table.row("rendered", f"{seconds:.1f}", f"{count / seconds:,.0f}")
    seconds, _ = setup.seconds(lambda: setup.faces().prepare_data())
    table.row("packed", f"{seconds:.1f}", f"{count / seconds:,.0f}")
    table.end()


# --- Synchronizations


class CountSynchronizations(L.Callback):
    """Counts the operations in some steps of a fit that make the host wait."""

    def __init__(self, first: int, steps: int) -> None:
        self.first, self.last, self.counter = first, first + steps, SynchronizationCounter()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Start and stop between steps."""
        if trainer.global_step == self.first:
            self.counter.start()
        elif trainer.global_step == self.last:
            self.counter.stop()
            trainer.should_stop = True


def syncs(setup: Setup) -> None:
    """List the lines that make the host wait for the device in a training."""
    if not setup.cuda:
        print("## Synchronizations\n\nneeds CUDA\n")
        return
    steps, first = 20, setup.sizes.warm_up
    table = Table(
        "Synchronizations",
        "training", "line", f"times in {steps} steps",
        notes="By `torch.cuda.set_sync_debug_mode`; one of the steps is logged (`log_every_n_steps` 20).",
    )  # fmt: skip

    def measure(name: str, options: dict[str, Any], resident: bool, precision: str) -> None:
        callback = CountSynchronizations(first, steps)
        data = setup.long_epochs(setup.sizes.batch_sizes[0], resident)
        with tempfile.TemporaryDirectory(dir=setup.folder) as run:
            callbacks: list[Any] = [callback, *command_line_callbacks()]
            settings = {"logger": MetricsFile(run), "enable_checkpointing": True, "default_root_dir": run}
            trainer = setup.trainer(precision, callbacks=callbacks, log_every_n_steps=20, **settings)
            trainer.fit(make_model(setup, **options), datamodule=data)
        lines = callback.counter.lines
        for line, number in lines.most_common():
            table.row(name, line, str(number))
        if not lines:
            table.row(name, "none", "0")

    for precision, resident, (kind, options) in product((MIXED, "16-mixed"), (False, True), variants(setup).items()):
        name = f"{kind}, {'resident' if resident else 'packed'}, {precision}"
        try:
            measure(name, options, resident, precision)
        except Exception as error:
            table.row(name, failure(error))
            report_error(name)
    table.end()


def command_line_callbacks() -> list[L.Callback]:
    """Make the callbacks that the command line adds, but the progress bar, which would be in the log."""
    return [Curves(), SampleWriter(), RunSummary(), LastCheckpoint()]


# --- Ceiling


class PlainStep:
    """The same networks' step in plain torch, as it can be captured: static images, nothing read by the host.

    Args:
        setup: The sizes and the device.
        batch_size: Number of images in a batch.
        precision: "bf16-mixed" or "32-true".
    """

    def __init__(self, setup: Setup, batch_size: int, precision: str) -> None:
        L.seed_everything(0, verbose=False)
        sizes, self.device = setup.sizes, setup.torch_device
        move = {"device": self.device, "memory_format": torch.channels_last}
        self.generator = Generator(sizes.image_size, 3, sizes.latent_dim, sizes.base_channels).to(**move)
        self.discriminator = Discriminator(sizes.image_size, 3, sizes.base_channels).to(**move)
        average = copy.deepcopy(self.generator).requires_grad_(False)
        self.real, self.latent_dim = setup.random_batch(batch_size), sizes.latent_dim
        adam = partial(Adam, lr=2e-4, betas=(0.5, 0.999), fused=True, capturable=setup.cuda)
        self.optimizer_g, self.optimizer_d = adam(self.generator.parameters()), adam(self.discriminator.parameters())
        self.autocast = partial(torch.autocast, self.device.type, torch.bfloat16, enabled=precision == MIXED)
        self.averaged, self.averaged_from = (
            [value for value in network.state_dict().values() if value.is_floating_point()]
            for network in (average, self.generator)
        )

    def __call__(self) -> None:
        """Take a step: D, G, and the average of G."""
        self.optimizer_d.zero_grad()
        self.optimizer_g.zero_grad()
        with self.autocast():
            fake = self.generator(torch.randn(len(self.real), self.latent_dim, device=self.device))
            loss_d = bce_discriminator(self.discriminator(self.real), self.discriminator(fake.detach()))
        loss_d.backward()
        self.optimizer_d.step()
        self.discriminator.requires_grad_(False)
        with self.autocast():
            loss_g = non_saturating_generator(self.discriminator(fake))
        loss_g.backward()
        self.discriminator.requires_grad_(True)
        self.optimizer_g.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.averaged, self.averaged_from, 1e-3)

    def captured(self) -> Callable[[], None]:
        """Capture the step as a CUDA graph; the function replays it."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(11):
                self()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self()
        return graph.replay


class LogitsLoop(TutorialLoop):
    """The tutorial's loop as it can be autocast, which refuses BCELoss: BCEWithLogitsLoss on logits."""

    def __init__(self, *arguments: Any, precision: str) -> None:
        super().__init__(*arguments)
        self.precision = precision
        if precision == MIXED:
            self.discriminator, self.criterion = self.discriminator[0], nn.BCEWithLogitsLoss()  # type: ignore[assignment]

    def step(self, images: Tensor) -> None:
        """Take the tutorial's step in a precision."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == MIXED):
            super().step(images)


def tutorial_loop(setup: Setup, precision: str) -> LogitsLoop:
    """Make the tutorial's loop in a precision."""
    L.seed_everything(0, verbose=False)
    sizes = setup.sizes
    return LogitsLoop(
        sizes.image_size, sizes.latent_dim, sizes.base_channels, setup.torch_device, precision=precision
    )  # fmt: skip


def ceiling(setup: Setup) -> None:
    """Compare our step with the same networks' in plain torch, captured as a CUDA graph and not."""
    table = Table(
        "The step alone, and its ceiling",
        "step", "precision", "batch", "images/s", "ms", "of the ceiling", "times the tutorial's",
        notes="One batch on the device, again and again. The ceiling: the same networks' step in plain torch (fused "
        "Adam, channels_last, the average of G), captured as one CUDA graph and replayed. 32-true convolves in TF32, "
        "as torch does by default.",
    )  # fmt: skip
    for precision, batch_size in product(setup.sizes.precisions, setup.sizes.batch_sizes):
        compare_steps(setup, table, precision, batch_size)
    table.end()


def compare_steps(setup: Setup, table: Table, precision: str, batch_size: int) -> None:
    """Measure the steps of one precision and batch size, each beside the ceiling and the tutorial's."""
    rates: dict[str, float] = {}

    def record(name: str, measure: Callable[[], float]) -> None:
        def cells() -> list[str]:
            rate = rates[name] = measure()
            share = f"{100 * rate / rates['ceiling']:.0f}%" if "ceiling" in rates else ""
            times = f"{rate / rates['tutorial']:.2f}" if "tutorial" in rates else ""
            return [precision, str(batch_size), f"{rate:,.0f}", f"{1000 * batch_size / rate:.2f}", share, times]

        table.try_row(name, cells)

    record("tutorial", lambda: one_batch_rate(setup, precision, batch_size))
    if setup.cuda:
        record("ceiling", partial(captured_rate, setup, precision, batch_size))
    record("plain torch, not captured", lambda: setup.rate(PlainStep(setup, batch_size, precision), batch_size))
    for name, options in variants(setup).items():
        record(name, partial(fit_rate, setup, precision, batch_size, options))


def one_batch_rate(setup: Setup, precision: str, batch_size: int) -> float:
    """Return the images a second of the tutorial's loop on a batch that is on the device."""
    loop, images = tutorial_loop(setup, precision), setup.random_batch(batch_size).contiguous()
    return setup.rate(lambda: loop.step(images), batch_size)


def captured_rate(setup: Setup, precision: str, batch_size: int) -> float:
    """Return the images a second of the plain step, captured and replayed."""
    step = PlainStep(setup, batch_size, precision)
    return setup.rate(step.captured(), batch_size)


def fit_rate(setup: Setup, precision: str, batch_size: int, options: dict[str, Any]) -> float:
    """Return the images a second of a fit on one batch."""
    watch = Stopwatch(setup.sizes.warm_up, setup.sizes.seconds)
    trainer = setup.trainer(precision, callbacks=[watch], log_every_n_steps=NEVER)
    trainer.fit(make_model(setup, **options), SameBatch(setup.random_batch(batch_size)))
    return watch.rate


# --- End to end


def end_to_end(setup: Setup) -> None:
    """Measure whole trainings: data, logging, checkpoints; ours and the tutorial's."""
    sizes = setup.sizes
    table = Table(
        "End to end",
        "training", "precision", "batch", "images/s", "ms a step", "times the tutorial's", "peak memory",
        notes="Ours: `Trainer.fit` with data module, metrics.csv, last.ckpt and the command line's callbacks, logging "
        f"every 50 steps; an epoch goes {sizes.repeats} times through the faces. The tutorial's: its loop (in bf16 on "
        f"logits, as autocast refuses BCELoss) on its DataLoader over the JPEG files, {sizes.workers} workers.",
    )  # fmt: skip
    for precision, batch_size in product(sizes.precisions, sizes.batch_sizes):
        compare_trainings(setup, table, precision, batch_size)
    table.end()


def compare_trainings(setup: Setup, table: Table, precision: str, batch_size: int) -> None:
    """Measure the trainings of one precision and batch size, each beside the tutorial's."""
    reference: list[float] = []

    def record(name: str, measure: Callable[[], float]) -> None:
        def cells() -> list[str]:
            setup.start_memory()
            rate = measure()
            times = f"{rate / reference[0]:.2f}" if reference else ""
            numbers = [f"{rate:,.0f}", f"{1000 * batch_size / rate:.2f}", times]
            return [precision, str(batch_size), *numbers, setup.peak_memory()]

        table.try_row(name, cells)

    def measure_reference() -> float:
        reference.append(tutorial_rate(setup, precision, batch_size))
        return reference[0]

    record("the tutorial's", measure_reference)
    for resident, (kind, options) in product((False, True), variants(setup).items()):
        name = f"{kind}, {'resident' if resident else 'packed'}"
        record(name, partial(training_rate, setup, precision, batch_size, options, resident))


def training_rate(setup: Setup, precision: str, batch_size: int, options: dict[str, Any], resident: bool) -> float:
    """Return the images a second of a training as the command line runs it."""
    watch = Stopwatch(setup.sizes.warm_up, setup.sizes.seconds)
    with tempfile.TemporaryDirectory(dir=setup.folder) as run:
        callbacks: list[Any] = [watch, *command_line_callbacks(), ProgressBar(refresh_rate=0)]
        settings = {"logger": MetricsFile(run), "enable_checkpointing": True, "default_root_dir": run}
        trainer = setup.trainer(precision, callbacks=callbacks, enable_progress_bar=True, **settings)
        trainer.fit(make_model(setup, **options), datamodule=setup.long_epochs(batch_size, resident))
    return watch.rate


def tutorial_rate(setup: Setup, precision: str, batch_size: int) -> float:
    """Return the images a second of the tutorial's loop on its loader; epochs have no end here."""
    sizes, loop = setup.sizes, tutorial_loop(setup, precision)
    files = jpeg_loader(setup.folder / "faces" / "celeba", sizes.image_size, batch_size, 0).dataset
    sampler = RandomSampler(files, replacement=True, num_samples=NEVER)  # type: ignore[arg-type]
    loader = DataLoader(files, batch_size, sampler=sampler, num_workers=sizes.workers)
    batches = iter(loader)
    in_advance = 2 * sizes.workers  # what the workers had read before the clock starts
    return setup.rate(lambda: loop.step(next(batches)[0]), batch_size, warm_up=in_advance + 2)


# --- Variants


def ddp(setup: Setup) -> None:
    """Train with one rank of DDP."""
    backend = "nccl" if setup.cuda else "gloo"
    table = Table(f"DDP with one rank of {backend}", "training", "result", "seconds")
    for precision in (MIXED, "16-mixed") if setup.cuda else (FULL,):
        table.try_row(f"ddp, {precision}", lambda precision=precision: steps_of(setup, {}, precision, strategy="ddp"))
    if setup.cuda:
        settings = {"strategy": "ddp", "sync_batchnorm": True}
        table.try_row("ddp, SyncBatchNorm", lambda: steps_of(setup, {}, MIXED, **settings))
    table.end()


def steps_of(setup: Setup, options: dict[str, Any], precision: str, steps: int = 5, **settings: Any) -> tuple[str, str]:
    """Take some steps, and check that all weights are finite.

    Raises:
        RuntimeError: If a weight is not finite or did not change.
    """
    model = make_model(setup, **options)
    if precision == "16-mixed":
        steps *= 3  # the first may overflow, until the scale has come down
    before = [value.clone() for value in model.generator.parameters()]
    images = setup.random_batch(setup.sizes.batch_sizes[0], model.channels).cpu()
    trainer = setup.trainer(precision, max_steps=steps, log_every_n_steps=2, **settings)
    started = time.perf_counter()
    trainer.fit(model, SameBatch(images, steps * model.d_steps))
    seconds = time.perf_counter() - started
    weights = [value.cpu() for value in model.generator.parameters()]
    if not all(value.isfinite().all() for value in model.state_dict().values()):
        raise RuntimeError("a weight is not finite")
    if trainer.global_step != steps:
        raise RuntimeError(f"{trainer.global_step} steps were taken, not {steps}")
    if all(map(torch.equal, before, weights)):
        raise RuntimeError("the generator has not moved")
    return "ok", f"{seconds:.1f}"


VARIANTS: dict[str, tuple[dict[str, Any], str]] = {
    "32-true": ({}, FULL),
    "bf16-mixed": ({}, MIXED),
    "16-mixed": ({}, "16-mixed"),
    "16-mixed, gradient_clip": ({"gradient_clip": 1.0}, "16-mixed"),
    "r1": ({"r1": 1.0}, FULL),
    "r1, bf16-mixed": ({"r1": 1.0}, MIXED),
    "r1, 16-mixed": ({"r1": 1.0}, "16-mixed"),
    "r1, penalty_interval 2": ({"r1": 1.0, "penalty_interval": 2}, MIXED),
    "gradient_penalty, wasserstein, bf16-mixed": ({"gradient_penalty": 10.0, "objective": "wasserstein"}, MIXED),
    "spectral, hinge, bf16-mixed": ({"discriminator_normalization": "spectral", "objective": "hinge"}, MIXED),
    "no normalization": ({"generator_normalization": "none", "discriminator_normalization": "none"}, MIXED),
    "relativistic": ({"objective": "relativistic"}, MIXED),
    "one channel": ({"channels": 1}, MIXED),
    "accumulate 2": ({"accumulate": 2}, MIXED),
    "d_steps 2": ({"d_steps": 2}, MIXED),
    "fresh_latents": ({"fresh_latents": True}, MIXED),
    "label_smoothing, ema_decay 0": ({"label_smoothing": 0.1, "ema_decay": 0.0}, MIXED),
}


def everything(setup: Setup) -> None:
    """Take five steps of every kind of training."""
    table = Table("Five steps of everything", "training", "result", "seconds")
    for name, (options, precision) in VARIANTS.items():
        if precision == "16-mixed" and not setup.cuda:
            table.row(name, "needs CUDA")
            continue
        table.try_row(name, partial(steps_of, setup, options, precision))
    table.try_row('TF32 (`set_float32_matmul_precision("high")`)', partial(steps_with_tf32, setup))
    table.try_row("LatentEncoder", partial(encoder_steps, setup))
    table.end()


def steps_with_tf32(setup: Setup) -> tuple[str, str]:
    """Take steps in TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        return steps_of(setup, {"r1": 1.0}, FULL)
    finally:
        torch.set_float32_matmul_precision(before)


def encoder_steps(setup: Setup) -> tuple[str, str]:
    """Train an encoder for some steps, on untrained networks."""
    path = setup.folder / f"untrained-{os.getpid()}.pt"
    torch.save(make_model(setup).generator.state_dict(), path)
    encoder = LatentEncoder(str(path), base_channels=8, hidden_dim=32, batch_size=12, batches_per_epoch=5)
    trainer = setup.trainer(MIXED, max_steps=5, limit_val_batches=1.0)
    seconds, _ = setup.seconds(lambda: trainer.fit(encoder))
    if not all(value.isfinite().all() for value in encoder.parameters()):
        raise RuntimeError("a weight is not finite")
    return "ok", f"{seconds:.1f}"


def compiled(setup: Setup) -> None:
    """Train with torch.compile."""
    table = Table("torch.compile", "training", "result", "seconds to the end")
    batch_size = setup.sizes.batch_sizes[0]

    def rate() -> list[str]:
        images = fit_rate(setup, MIXED, batch_size, {"compile": True})
        return [f"{images:,.0f} images/s, {1000 * batch_size / images:.2f} ms a step"]

    if not setup.cuda:
        table.row("compile", "needs CUDA")
    else:
        table.try_row("compile, bf16-mixed, 5 steps", partial(steps_of, setup, {"compile": True}, MIXED))
        table.try_row(f"compile, bf16-mixed, batch {batch_size}", rate)
        table.try_row("compile, bf16-mixed, r1", partial(steps_of, setup, {"compile": True, "r1": 1.0}, MIXED))
    table.end()
