"""Parts of gpu.py on restoration: alone and in batches, against plain Adam; what bounds it; blind deblurring."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import lightning as L
import torch
from cuda_trace import traced
from gpu_setup import Setup, Table
from torch import Tensor, nn

from gan_lightning import Generator, Inversion, invert, load_generator
from gan_lightning.degradations import Degradation, Downsample, GaussianBlur, Identity
from gan_lightning.degradations.noise import GaussianNoise
from gan_lightning.inversion import estimate_blur
from gan_lightning.inversion.frozen_generator import FrozenGenerator, freeze_generator
from gan_lightning.inversion.settings import SEVERAL
from gan_lightning.inversion.solvers import lbfgs

LATENT_WEIGHT = 1e-4  # as in the published tables, with one search
NOISE, FACTOR, SIGMA = 0.1, 4, 1.5
SHORT = 20  # steps of a search that is traced
GRADIENTS = 10


def open_generator(setup: Setup) -> tuple[Generator, str]:
    """Return the generator that the part `fit` has trained, or an untrained one, and what it is."""
    if setup.checkpoint.is_file():
        steps = f"trained for {setup.sizes.fit_steps} steps on synthetic faces by the part fit"
        return load_generator(setup.checkpoint).requires_grad_(False).to(setup.device), steps
    L.seed_everything(0, verbose=False)
    sizes = setup.sizes
    generator = Generator(sizes.image_size, 3, sizes.latent_dim, sizes.base_channels).eval().requires_grad_(False)
    return generator.to(setup.device), "UNTRAINED (the part fit left none)"


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow TF32 in convolutions and matrix products, or forbid it."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def psnr(images: Tensor, targets: Tensor) -> float:
    """Return the mean peak signal-to-noise ratio of images, in dB."""
    errors = ((images.clamp(-1, 1) - targets) / 2).square().flatten(1).mean(1)
    return float((-10 * errors.clamp(min=1e-12).log10()).mean())


def task(name: str, faces: Tensor) -> tuple[Degradation, Tensor]:
    """Return a degradation, and degraded faces."""
    if name == "denoising":
        return Identity(), GaussianNoise(NOISE)(faces)
    degradation = Downsample(FACTOR)
    return degradation, degradation(faces)


def restore(
    setup: Setup, generator: nn.Module, degradation: Degradation, observed: Tensor, batch: int, **settings: Any
) -> list[Inversion]:
    """Restore images in batches."""
    common = {"latent_weight": LATENT_WEIGHT, "num_steps": setup.sizes.invert_steps, "num_searches": 1}
    if setup.sizes.invert_steps is not None:
        common["refine_steps"] = setup.sizes.invert_steps
    return [
        invert(generator, degradation, observed[rows], indices=rows.tolist(), **{**common, **settings})
        for rows in torch.split(torch.arange(len(observed)), batch)
    ]


def images_of(results: list[Inversion]) -> Tensor:
    return torch.cat([result.image for result in results])


def batches(setup: Setup) -> None:
    """Restore the same images alone, in batches and at once."""
    sizes, (generator, made) = setup.sizes, open_generator(setup)
    faces = setup.held_out(sizes.restored)
    table = Table(
        f"Restoration alone, by {sizes.restored_batch} and at once",
        "denoising", "images", "images/s", "ms a step", "PSNR", "largest difference from at once", "peak memory",
        notes=f"`invert`, latent_weight {LATENT_WEIGHT:g}, noise {NOISE}, {sizes.image_size} px; generator: {made}. "
        f"What a user would write instead: {sizes.adam_steps} steps of Adam on the latents, all images at once.",
    )  # fmt: skip
    degradation, observed = task("denoising", faces)
    restore(setup, generator, degradation, observed[:2], 2, num_steps=3, refine_steps=3)  # libraries load here
    seconds, images = setup.seconds(lambda: adam_on_latents(setup, generator, degradation, observed))
    step = 1000 * seconds / sizes.adam_steps
    table.row("Adam", str(len(faces)), f"{len(faces) / seconds:,.1f}", f"{step:.2f}", f"{psnr(images, faces):.2f}")
    whole: list[Tensor] = []

    def measure(count: int, batch: int) -> list[str]:
        setup.start_memory()
        work = partial(restore, setup, generator, degradation, observed[:count], batch)
        seconds, results = setup.seconds(work)
        steps = sum(int(result.num_steps.max()) for result in results)
        images = images_of(results)
        difference = f"{(images - whole[0][:count]).abs().max():.1e}" if whole else ""
        whole.append(images)
        figures = [f"{count / seconds:,.1f}", f"{1000 * seconds / steps:.2f}", f"{psnr(images, faces[:count]):.2f}"]
        return [str(count), *figures, difference, setup.peak_memory()]

    table.try_row("at once", partial(measure, sizes.restored, sizes.restored))
    table.try_row("at once, again", partial(measure, sizes.restored, sizes.restored))
    table.try_row(f"by {sizes.restored_batch}", partial(measure, sizes.restored, sizes.restored_batch))
    table.try_row("alone", partial(measure, sizes.restored_alone, 1))
    few = min(4, sizes.restored)

    def on_cpu() -> list[str]:
        at_once, apart = (
            images_of(restore(setup, network, degradation, observed[:few].to(device), few))
            for network, device in ((generator, setup.device), (copy_to_cpu(generator), "cpu"))
        )
        difference = f"{(at_once.cpu() - apart).abs().max():.1e}"
        return [str(few), "", "", f"{psnr(apart, faces[:few].cpu()):.2f}", f"{difference} from the device"]

    table.try_row("on the CPU", on_cpu)
    table.end()


def copy_to_cpu(generator: Generator) -> Generator:
    """Copy a generator to the CPU."""
    return copy.deepcopy(generator).cpu()


def adam_on_latents(setup: Setup, generator: nn.Module, degradation: nn.Module, observed: Tensor) -> Tensor:
    """Search for latents by Adam, as one would write it in a few lines."""
    rng = torch.Generator().manual_seed(0)
    latents = torch.randn(len(observed), setup.sizes.latent_dim, generator=rng).to(observed).requires_grad_()
    optimizer = torch.optim.Adam([latents], lr=0.01)
    for _ in range(setup.sizes.adam_steps):
        optimizer.zero_grad()
        (degradation(generator(latents)) - observed).square().flatten(1).mean(1).sum().backward()
        optimizer.step()
    with torch.no_grad():
        images: Tensor = generator(latents)
    return images


def throughput(setup: Setup) -> None:
    """Restore a large batch with the default settings, and count what a step asks of the host."""
    sizes, (generator, _) = setup.sizes, open_generator(setup)
    faces = setup.held_out(sizes.large_batch)
    table = Table(
        f"Restoration, batch {sizes.large_batch}",
        "task", "searches", "recorded", "images/s", "steps", "ms a step", "PSNR", "difference", "peak memory",
        notes=f"Default settings, latent_weight {LATENT_WEIGHT:g}; the second of two runs. Steps of one search. "
        "Recorded: as CUDA graphs, and the largest difference that it makes. Adam: on the latents, in a plain loop.",
    )  # fmt: skip
    plain: dict[tuple[str, int], Tensor] = {}
    for name, count in (("denoising", 1), ("super-resolution", 1), ("super-resolution", SEVERAL)):
        for recorded in (False, True):

            def measure(name: str = name, count: int = count, recorded: bool = recorded) -> list[str]:
                degradation, observed = task(name, faces)
                setup.start_memory()
                work = partial(restore, setup, generator, degradation, observed, len(faces), num_searches=count)
                with steps_recorded(recorded):
                    work()
                    seconds, results = setup.seconds(work)
                memory, steps = setup.peak_memory(), int(results[0].num_steps.max()) // count
                images = images_of(results)
                apart = f"{(images - plain.setdefault((name, count), images)).abs().max():.1e}" if recorded else ""
                plain[name, count] = images
                figures = [f"{len(faces) / seconds:,.1f}", str(steps), f"{1000 * seconds / steps:.2f}"]
                return [str(count), "yes" if recorded else "no", *figures, f"{psnr(images, faces):.2f}", apart, memory]

            table.try_row(f"{name} {FACTOR}x" if "resolution" in name else name, measure)

    def adam() -> list[str]:
        seconds, images = setup.seconds(lambda: adam_on_latents(setup, generator, *task("denoising", faces)))
        step = f"{1000 * seconds / sizes.adam_steps:.2f}"
        return ["1", "", f"{len(faces) / seconds:,.1f}", str(sizes.adam_steps), step, f"{psnr(images, faces):.2f}"]

    table.try_row("denoising, by Adam", adam)
    table.end()
    time_gradients(setup, generator)
    count_steps(setup, generator, faces)


@contextmanager
def steps_recorded(recorded: bool) -> Iterator[None]:
    """Record the steps of L-BFGS as CUDA graphs, or do not."""
    before, lbfgs.RECORDS = lbfgs.RECORDS, recorded
    try:
        yield
    finally:
        lbfgs.RECORDS = before


def time_gradients(setup: Setup, generator: nn.Module) -> None:
    """Time what bounds a search: gradients of G, in float32 and with TF32, in both layouts of the channels."""
    frozen, sizes = freeze_generator(generator), setup.sizes
    multiplications = count_multiplications(frozen)
    table = Table(
        "Gradients of the generator alone", "images", "layout", "TF32", "ms", "TFLOP/s",
        notes="G(z) and its gradient in z. A search uses channels last and no TF32.",
    )  # fmt: skip
    for images in (sizes.large_batch, SEVERAL * sizes.large_batch):
        latents = torch.randn(images, sizes.latent_dim, device=setup.device)
        for layout in (torch.channels_last, torch.contiguous_format):
            network = copy.deepcopy(frozen).to(memory_format=layout)
            for allowed in (False, True):

                def measure(
                    network: nn.Module = network,
                    latents: Tensor = latents,
                    layout: torch.memory_format = layout,
                    allowed: bool = allowed,
                ) -> list[str]:
                    def work() -> None:
                        for _ in range(GRADIENTS):
                            leaf = latents.clone().requires_grad_()
                            torch.autograd.grad(network(leaf).square().sum(), leaf)

                    with tf32(allowed):
                        work()
                        seconds = setup.seconds(work)[0] / GRADIENTS
                    rate = 4 * len(latents) * multiplications / seconds / 1e12
                    name = str(layout).removeprefix("torch.").replace("_", " ")
                    return [name, "yes" if allowed else "no", f"{1000 * seconds:.2f}", f"{rate:.1f}"]

                table.try_row(str(images), measure)
    table.end()


def count_multiplications(frozen: FrozenGenerator) -> int:
    """Count the multiplications of a network for one image."""
    total = 0 if frozen.first is None else frozen.first.weight.numel()
    with torch.no_grad():
        images = frozen.features(torch.zeros(1, frozen.latent_dim, device=next(frozen.parameters()).device))
        for layer in frozen.rest.children():
            if isinstance(layer, nn.ConvTranspose2d):
                total += images[0, 0].numel() * layer.weight.numel()
            images = layer(images)
    return total


def count_steps(setup: Setup, generator: nn.Module, faces: Tensor) -> None:
    """Count kernels, copies and waits in a step of the search."""
    table = Table(
        "A step of the search", "what", "kernels", "HtoD", "DtoH", "syncs", "GPU busy ms", "wall ms (profiled)",
        notes=f"Means over the gradients of a call of {SHORT} + {SHORT} steps, all that comes before and after them "
        f"included; {min(16, len(faces))} images.",
    )  # fmt: skip
    few, short = faces[:16], {"num_steps": SHORT, "refine_steps": SHORT}
    calls: dict[str, Callable[[], Any]] = {
        "invert, denoising": lambda: restore(setup, generator, *task("denoising", few), len(few), **short),
        "invert, super-resolution": lambda: restore(
            setup, generator, *task("super-resolution", few), len(few), **short
        ),
        "estimate_blur": lambda: estimate_blur(generator, GaussianBlur(SIGMA)(few), sigmas=(1.0, 2.0)),
    }
    for name, call in calls.items():

        def measure(call: Callable[[], Any] = call) -> list[str]:
            if not setup.cuda:
                return ["needs CUDA"]
            call()
            with traced() as summarize:
                seconds, gradients = counted(setup, call)
            found = summarize()
            numbers = (found.kernels, found.copies["HtoD"], found.copies["DtoH"], found.synchronizations)
            times = (found.busy_ms, 1000 * seconds)
            return [f"{number / gradients:.1f}" for number in numbers] + [f"{time / gradients:.2f}" for time in times]

        table.try_row(name, measure)
    table.end()


def counted(setup: Setup, work: Callable[[], Any]) -> tuple[float, int]:
    """Return the seconds of a piece of work, and the number of gradients that it took."""
    original, count = torch.autograd.grad, 0

    def grad(*arguments: Any, **settings: Any) -> Any:
        nonlocal count
        count += 1
        return original(*arguments, **settings)

    torch.autograd.grad = grad
    try:
        seconds, _ = setup.seconds(work)
    finally:
        torch.autograd.grad = original
    return seconds, max(count, 1)


def blind(setup: Setup) -> None:
    """Estimate an unknown blur."""
    sizes, (generator, _) = setup.sizes, open_generator(setup)
    faces = setup.held_out(sizes.restored)
    observed = GaussianBlur(SIGMA).to(setup.device)(faces)
    table = Table(
        f"Blind deblurring, {len(faces)} images, sigma {SIGMA}",
        "what", "images/s", "gradients", "ms a gradient", "sigma", "PSNR", "peak memory",
    )  # fmt: skip
    estimated: list[Any] = []
    sigmas = {} if sizes.sigmas is None else {"sigmas": sizes.sigmas}

    def estimate(method: Any) -> list[str]:
        setup.start_memory()
        seconds, gradients = counted(
            setup, lambda: estimated.append(estimate_blur(generator, observed, method=method, **sigmas))
        )
        sigma = estimated[-1].sigma
        figures = f"{len(faces) / seconds:,.1f}", str(gradients), f"{1000 * seconds / gradients:.2f}"
        return [*figures, f"{sigma.mean():.2f} +- {sigma.std():.2f}", "", setup.peak_memory()]

    def sharpen() -> list[str]:
        found = GaussianBlur(estimated[0].sigma.tolist())
        setup.start_memory()
        work = partial(restore, setup, generator, found, observed, len(faces), start=estimated[0].latent)
        results: list[Any] = []
        seconds, gradients = counted(setup, lambda: results.extend(work()))
        figures = f"{len(faces) / seconds:,.1f}", str(gradients), f"{1000 * seconds / gradients:.2f}"
        return [*figures, "as estimated", f"{psnr(images_of(results), faces):.2f}", setup.peak_memory()]

    table.try_row("estimate_blur, evidence", partial(estimate, "evidence"))
    table.try_row("invert, a blur of each image", sharpen)
    table.try_row("estimate_blur, joint", partial(estimate, "joint"))
    table.row("the blurred images", "", "", "", "", f"{psnr(observed, faces):.2f}")
    table.end()


def choices(setup: Setup) -> None:
    """Restore a few images by every solver, loss, start and refinement."""
    from gan_lightning.degradations import Grayscale, RandomMask, SquareMask

    generator, _ = open_generator(setup)
    size, few = setup.sizes.image_size, setup.held_out(min(4, setup.sizes.restored))
    table = Table("Every kind of restoration", "setting", "result", "seconds", "PSNR")
    discriminator = None
    if setup.checkpoint.is_file():
        from gan_lightning import DCGAN

        model = DCGAN.load_from_checkpoint(setup.checkpoint, map_location=setup.device, weights_only=True)
        discriminator = model.discriminator
    short: dict[str, Any] = {"num_steps": 5, "refine_steps": 5}
    settings: dict[str, tuple[Degradation, dict[str, Any]]] = {
        "adam": (Identity(), {"solver": "adam"}),
        "levenberg_marquardt": (Identity(), {"solver": "levenberg_marquardt"}),
        "l1": (Identity(), {"loss": "l1"}),
        "huber": (Identity(), {"loss": "huber"}),
        "perceptual": (Identity(), {"loss": "perceptual", "discriminator": discriminator}),
        "start random, restarts 2": (Identity(), {"start": "random", "restarts": 2}),
        "start mean": (Identity(), {"start": "mean"}),
        "refine weights": (Identity(), {"refine": "weights"}),
        "square hole": (SquareMask(size, size // 4), {}),
        "random hole": (RandomMask(size, 0.5), {}),
        "color": (Grayscale(), {}),
        "blur": (GaussianBlur(1.0), {}),
        "blur of each": (GaussianBlur([0.8 + 0.1 * number for number in range(len(few))]), {}),
        "bicubic 2x": (Downsample(2, "bicubic"), {}),
    }
    for name, (degradation, options) in settings.items():

        def measure(degradation: Degradation = degradation, options: dict[str, Any] = options) -> list[str]:
            observed = degradation(few)
            work = partial(invert, generator, degradation, observed, **{**short, **options})
            seconds, result = setup.seconds(work)
            if not result.image.isfinite().all():
                raise RuntimeError("a pixel is not finite")
            return ["ok", f"{seconds:.1f}", f"{psnr(result.image, few):.2f}"]

        table.try_row(name, measure)
    table.end()
