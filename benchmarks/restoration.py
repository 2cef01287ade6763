"""Quality and speed of latent inversion on held-out synthetic faces, as a Markdown table.

    python benchmarks/restoration.py --generator runs/.../best.ckpt --encoder runs/.../best.ckpt --root data/synthetic

The baseline is the common recipe: one random latent, Adam with a learning rate of 0.01, squared error, 1,000 steps, one
image at a time. Since Adam updates each element separately, its errors are measured on one batch. Its time is the mean
over single images (`--baseline-images`).

`--parts settings` prints separate tables of the effect of `num_searches`, `latent_weight` and `num_steps` on the
validation split.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any, Literal

import environment  # noqa: F401  first: it sets what torch reads when it is imported
import numpy as np
import torch
from report import print_header, print_table
from torch import Tensor, nn
from torch.nn import functional as F

from gan_lightning.data.synthetic_faces import SyntheticFaces
from gan_lightning.degradations import (
    Degradation,
    Downsample,
    GaussianBlur,
    GaussianNoise,
    Grayscale,
    Identity,
    SquareMask,
)
from gan_lightning.images import to_float, to_uint8
from gan_lightning.inversion import Inversion, estimate_blur, invert
from gan_lightning.networks.checkpoints import load_generator
from gan_lightning.networks.dcgan import Generator
from gan_lightning.networks.encoder_checkpoint import load_encoder
from gan_lightning.seeding import image_rng

BATCH = 16
BASELINE_STEPS = 1000
REFINE_STEPS = 100  # of the comparison of batches with single images
PARTS = ["recovery", "inversion", "restorations", "blind", "batching", "encoder", "settings"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", required=True, help="checkpoint of a DCGAN")
    parser.add_argument("--encoder", help="checkpoint of a LatentEncoder for this generator")
    parser.add_argument("--root", required=True, help="folder of synthetic faces")
    parser.add_argument("--count", type=int, default=10000, help="number of faces in the folder")
    parser.add_argument("--images", type=int, default=64, help="number of held-out faces to restore")
    parser.add_argument("--baseline-images", type=int, default=2, help="number of images to time the baseline on")
    parser.add_argument("--threads", type=int, default=2, help="number of CPU threads")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS[:-1], help="parts of the table to measure")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = load_generator(options.generator).requires_grad_(False)
    if "settings" in options.parts:
        faces = held_out_faces(options.root, options.count, options.images, "val")
        print_header("Restoration: settings", f"{options.images} faces of the validation split")
        return settings_tables(generator, faces)
    faces = held_out_faces(options.root, options.count, options.images)
    print_header("Restoration", f"{options.images} faces of the test split, which were not used for training")
    print("| what | measured | baseline or input | target |\n| --- | --- | --- | --- |", flush=True)
    if "recovery" in options.parts:
        recovery(generator, options.images)
    if "inversion" in options.parts:
        plain_inversion(generator, faces, baseline_seconds(generator, faces[: options.baseline_images]))
    if "restorations" in options.parts:
        for name in ("denoising", "inpainting", "deblurring", "color", "super-resolution"):
            restoration(generator, faces, name)
    if "blind" in options.parts:
        blind(generator, faces)
    if "batching" in options.parts:
        batching(generator, faces)
    if "encoder" in options.parts and options.encoder:
        encoder_start(generator, load_encoder(options.encoder, generator), faces)


def held_out_faces(root: str, count: int, images: int, split: Literal["val", "test"] = "test") -> Tensor:
    data = SyntheticFaces(root, count=count)
    data.prepare_data()
    data.setup()
    pixels = torch.as_tensor(data.real_images(split).read(np.arange(images)))
    return to_float(pixels if pixels.shape[1] in (1, 3) else pixels.permute(0, 3, 1, 2))


def row(what: str, measured: str, reference: str, target: str, reached: bool) -> None:
    print(f"| {what} | {measured} | {reference} | {target}: {'reached' if reached else 'missed'} |", flush=True)


def mse(images: Tensor, targets: Tensor) -> Tensor:
    return ((images.clamp(-1, 1) - targets) / 2).square().flatten(1).mean(1)


def l1(images: Tensor, targets: Tensor) -> Tensor:
    return ((images.clamp(-1, 1) - targets) / 2).abs().flatten(1).mean(1)


def baseline(generator: Generator, degradation: nn.Module, observed: Tensor) -> Tensor:
    draws = [
        torch.randn(generator.latent_dim, generator=image_rng(1, index, "baseline")) for index in range(len(observed))
    ]
    latents = torch.stack(draws).requires_grad_()
    optimizer = torch.optim.Adam([latents], lr=0.01)
    for _ in range(BASELINE_STEPS):
        optimizer.zero_grad()
        (degradation(generator(latents)) - observed).square().flatten(1).mean(1).sum().backward()
        optimizer.step()
    with torch.no_grad():
        images: Tensor = generator(latents)
    return images


def baseline_seconds(generator: Generator, faces: Tensor) -> float:
    start = time.perf_counter()
    for face in faces:
        baseline(generator, Identity(), face[None])
    return (time.perf_counter() - start) / len(faces)


def restore(
    generator: Generator, degradation: Degradation, observed: Tensor, **settings: Any
) -> tuple[list[Inversion], float]:
    """Return the results of each batch, and the seconds per image."""
    start, results = time.perf_counter(), []
    for rows in torch.split(torch.arange(len(observed)), BATCH):
        part = degradation.select(rows)
        results.append(invert(generator, part, observed[rows], indices=rows.tolist(), **settings))
    return results, (time.perf_counter() - start) / len(observed)


def images_of(results: list[Inversion]) -> Tensor:
    return torch.cat([result.image for result in results])


def own_images(generator: Generator, count: int) -> Tensor:
    draws = [torch.randn(generator.latent_dim, generator=image_rng(2, index, "recovery")) for index in range(count)]
    with torch.no_grad():
        images: Tensor = generator(torch.stack(draws))
    return images


def psnr_of(results: list[Inversion], targets: Tensor) -> Tensor:
    return -10 * mse(images_of(results), targets).clamp(min=1e-12).log10()


def recovery(generator: Generator, count: int) -> None:
    own = own_images(generator, count)
    settings: dict[str, Any] = {"noise_level": 0.0, "num_steps": 400, "restarts": 1, "refine": "none"}
    results, seconds = restore(generator, Identity(), own, **settings)
    psnr = psnr_of(results, own)
    share = (psnr > 40).float().mean().item()
    measured = f"median {psnr.median():.1f} dB, {share:.0%} above 40 dB, {seconds:.2f} s per image"
    row("latent recovery", measured, "", "60 dB, 90%", psnr.median().item() >= 60 and share >= 0.9)


def plain_inversion(generator: Generator, faces: Tensor, baseline_time: float) -> None:
    base = mse(baseline(generator, Identity(), faces), faces).mean().item()
    results, seconds = restore(generator, Identity(), faces, refine="none", num_steps=250, tolerance=1e-4)
    error = mse(images_of(results), faces).mean().item()
    reference = f"MSE {base:.5f}, {baseline_time:.2f} s"
    ratios = error / base, seconds / baseline_time
    measured = f"MSE {error:.5f} ({ratios[0]:.2f}), {seconds:.2f} s per image ({ratios[1]:.3f})"
    row(
        "inversion, z only",
        measured,
        reference,
        "0.6 of the MSE, 0.1 of the time",
        ratios[0] <= 0.6 and ratios[1] <= 0.1,
    )
    results, seconds = restore(generator, Identity(), faces, refine_steps=120)
    refined = mse(images_of(results), faces).mean().item()
    measured = f"MSE {refined:.5f} ({refined / error:.2f} of z only), {seconds:.2f} s per image"
    row("inversion with refinement", measured, reference, "a quarter of z only", refined <= error / 4)
    row("MSE 0.0079 within 2 s per image", measured, "", "0.0079, 2 s", refined <= 0.0079 and seconds <= 2)


def degrade(faces: Tensor, name: str) -> tuple[Degradation, Tensor, slice]:
    """Return A, the degraded faces, and the rows and columns in which errors are measured."""
    size = faces.shape[-1]
    hole = {"inpainting": 8, "24x24 hole": 24, "large hole": 32}.get(name)
    degradation: Degradation = {
        "denoising": Identity(),
        "deblurring": GaussianBlur(2.0),
        "color": Grayscale(),
        "super-resolution": Downsample(4),
    }.get(name) or SquareMask(size, hole or 1)
    # Round to 8 bits, as files do, except for noisy images, which files would clip.
    observed = GaussianNoise(0.1)(faces) if name == "denoising" else to_float(to_uint8(degradation(faces)))
    return degradation, observed, slice((size - hole) // 2, (size + hole) // 2) if hole else slice(None)


def restoration(generator: Generator, faces: Tensor, name: str) -> None:
    size = faces.shape[-1]
    degradation, observed, hole = degrade(faces, name)
    shown = observed.expand(-1, 3, -1, -1)
    if observed.shape[-1] != size:
        shown = F.interpolate(shown, (size, size), mode="bicubic")
    results, seconds = restore(generator, degradation, observed)
    restored, base = images_of(results), baseline(generator, degradation, observed)
    triple = [image[..., hole, hole] for image in (restored, base, shown)]
    errors = [mse(image, faces[..., hole, hole]).mean().item() for image in triple]
    absolute = [l1(image, faces[..., hole, hole]).mean().item() for image in triple]
    whole = l1(restored, faces).mean().item()
    limit = {"denoising": 0.0626, "inpainting": 0.0512}.get(name)
    measured = f"MSE {errors[0]:.5f}, L1 {absolute[0]:.4f}, whole image's L1 {whole:.4f}, {seconds:.2f} s per image"
    reference = f"baseline MSE {errors[1]:.5f}, L1 {absolute[1]:.4f}; input MSE {errors[2]:.5f}, L1 {absolute[2]:.4f}"
    reached = errors[0] <= 0.75 * errors[1] and errors[0] < errors[2] and (limit is None or whole < limit)
    target = "25% below the baseline, below the input" + (f", L1 under {limit}" if limit else "")
    row(name + (" (hole)" if name == "inpainting" else ""), measured, reference, target, reached)


def blind(generator: Generator, faces: Tensor) -> None:
    for sigma in (0.8, 1.5, 2.5):
        observed = to_float(to_uint8(GaussianBlur(sigma)(faces)))
        found = torch.cat([estimate_blur(generator, part).sigma for part in torch.split(observed, BATCH)])
        for composite in (False, True):
            known, guessed = (
                mse(images_of(restore(generator, GaussianBlur(blur), observed, **settings)[0]), faces).mean()
                for settings in [{"composite": composite}]
                for blur in (sigma, found.tolist())
            )
            ratio = (guessed / known).item()
            measured = f"sigma {found.mean():.2f} +- {found.std():.2f}, MSE {known * ratio:.5f} ({ratio:.2f})"
            what = f"blind deblurring, sigma {sigma}{', composite' if composite else ', generator alone'}"
            row(what, measured, f"known sigma: MSE {known:.5f}", "within 15% of the known", ratio <= 1.15)


def batching(generator: Generator, faces: Tensor) -> None:
    together, apart = [], []
    for _ in range(3):
        start = time.perf_counter()
        whole = invert(generator, Identity(), faces[:BATCH], refine_steps=REFINE_STEPS)
        together.append(time.perf_counter() - start)
        start = time.perf_counter()
        single = [
            invert(generator, Identity(), faces[i : i + 1], indices=[i], refine_steps=REFINE_STEPS).image
            for i in range(BATCH)
        ]
        apart.append(time.perf_counter() - start)
    ratio = statistics.median(one / other for one, other in zip(apart, together, strict=True))
    difference = (torch.cat(single) - whole.image).abs().max().item()
    measured = f"{ratio:.1f} times as fast, results differ by {difference:.1e}"
    row(
        "batch of 16 against 16 single calls",
        measured,
        "",
        "4 times, 1e-4",
        ratio >= 4 and difference <= 1e-4,
    )


def encoder_start(generator: Generator, encoder: nn.Module, faces: Tensor) -> None:
    """Compare encoder and random initialization: steps to the same loss, and recovery at an equal number of steps."""
    for name, degradation in (("inversion", Identity()), ("deblurring", GaussianBlur(2.0))):
        observed = degradation(faces)
        settings: dict[str, Any] = {"refine": "none", "noise_level": 0.0, "tolerance": 0.0, "composite": False}
        random = restore(generator, degradation, observed, start="random", num_steps=100, **settings)[0]
        reached = torch.cat([result.history[-1] for result in random])
        guessed = [
            invert(generator, degradation, part, start=encoder(part), num_steps=100, **settings)
            for part in torch.split(observed, BATCH)
        ]
        history = torch.cat([result.history for result in guessed], 1)
        steps = torch.where(history <= reached, torch.arange(len(history))[:, None], len(history)).min(0).values
        measured = f"{steps.median():.0f} steps (median) to the loss of a random start after 100"
        row(f"encoder start, {name}", measured, "", "half the steps", steps.median().item() <= 50)
    own = own_images(generator, len(faces))
    for solver, num_steps in (("lbfgs", 10), ("lbfgs", 25), ("lbfgs", 50), ("levenberg_marquardt", 4), ("adam", 300)):
        settings = {"solver": solver, "num_steps": num_steps, "refine": "none", "noise_level": 0.0, "tolerance": 0.0}
        psnr = {
            start: psnr_of(
                [
                    invert(generator, Identity(), part, indices=rows.tolist(), start=at, **settings)
                    for rows in torch.split(torch.arange(len(own)), BATCH)
                    for part in [own[rows]]
                    for at in [encoder(part) if start == "encoder" else "random"]
                ],
                own,
            )
            .median()
            .item()
            for start in ("encoder", "random")
        }
        measured, reference = f"median {psnr['encoder']:.1f} dB", f"random start: {psnr['random']:.1f} dB"
        what = f"encoder start, latent recovery in {num_steps} steps of {solver}"
        row(what, measured, reference, "10 dB more", psnr["encoder"] >= psnr["random"] + 10)


def settings_tables(generator: Generator, faces: Tensor) -> None:
    """Measure the effect of the most important settings on error, latents and time.

    Under the prior, the mean square of a latent is one.
    """
    names = ("denoising", "inpainting", "large hole", "deblurring", "color", "super-resolution")
    for setting, values in (
        ("num_searches", (1, 2, 4, 8, 16)),
        ("latent_weight", (0.0, 1e-4, 1e-3, 3e-3, 1e-2, 1e-1)),
        ("num_steps", (5, 10, 25, 50, 100)),
    ):
        rows = []
        for value in values:
            cells, squares, times = [], [], []
            for name in names:
                degradation, observed, hole = degrade(faces, name)
                results, seconds = restore(generator, degradation, observed, **{setting: value})
                cells.append(f"{mse(images_of(results)[..., hole, hole], faces[..., hole, hole]).mean():.5f}")
                squares.append(torch.cat([result.latent for result in results]).square().mean().item())
                times.append(seconds)
            means = [f"{statistics.mean(squares):.2f}", f"{statistics.mean(times):.2f} s"]
            rows.append([f"{value:g}", *cells, *means])
        print(f"## {setting}\n")
        print_table([setting, *names, "mean square of the latents", "per image"], rows)


if __name__ == "__main__":
    main()
