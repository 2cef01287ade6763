"""StyleGAN2 against the public implementation, and inversion in W, as Markdown tables.

    python benchmarks/stylegan2.py

All of it is measured on the tiny generator of the tests, whose weights are random: its images have no faces in them,
but every layer is at work. Rates are those of a whole inversion. "Grouped" gives each image its own weights in one
grouped convolution, as the papers do; ours scales the features instead.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import environment  # noqa: F401  first: it sets what torch reads when it is imported
import torch
from report import measure_in_turn, print_header, print_table, ratio
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from gan_lightning.degradations import Identity
from gan_lightning.inversion import invert
from gan_lightning.inversion.frozen_generator import freeze_generator
from gan_lightning.inversion.whitening import NoWhitening, Whitening, estimate_gauss_newton_matrix
from gan_lightning.networks.checkpoints import load_generator
from gan_lightning.networks.stylegan2 import StyleGAN2Generator
from gan_lightning.networks.stylegan2_layers import filter_images
from gan_lightning.networks.stylegan2_prior import LatentSpace, StyleGAN2Prior
from gan_lightning.networks.stylegan2_synthesis import SynthesisLayer

REFERENCE = Path(__file__).parent.parent / "tests" / "networks" / "stylegan2_tiny.safetensors"
PLAIN: dict[str, Any] = {"noise_level": 0.0, "latent_weight": 0.0, "refine": "none", "composite": False}


def psnr(images: Tensor, targets: Tensor) -> Tensor:
    return -10 * ((images - targets) / 2).square().flatten(1).mean(1).log10()


@torch.no_grad()
def print_agreement(generator: StyleGAN2Generator) -> None:
    expected = load_file(REFERENCE)
    z = expected["out.z"]
    ws = generator.mapping(z)
    ours = {
        "w": ws,
        "w_truncated_0_7": generator.mapping(z, truncation_psi=0.7),
        "image_noise_none": generator.synthesis(ws, noise_mode="none"),
        "image_noise_const": generator.synthesis(ws, noise_mode="const"),
        "image_truncated_0_7": generator(z, truncation_psi=0.7, noise_mode="const"),
    }
    rows = []
    for name, value in ours.items():
        theirs = expected[f"out.{name}"]
        rows.append([name, f"{float((value - theirs).abs().max() / theirs.abs().max()):.1e}"])
    print_table(["output", "largest difference, relative to the largest value"], rows)


def print_inversions(generator: StyleGAN2Generator, count: int, steps: int) -> None:
    with torch.no_grad():
        targets = generator(torch.randn(count, generator.latent_dim, generator=torch.Generator().manual_seed(1)))
    rows = []
    searches: list[tuple[LatentSpace, str]] = [("w", "mean"), ("w", "best_of_k"), ("z", "best_of_k")]
    for space, start in searches:
        prior = StyleGAN2Prior(generator, space)
        started = time.perf_counter()
        found = invert(prior, Identity(), targets, num_steps=steps, start=start, tolerance=0.0, **PLAIN)
        seconds = time.perf_counter() - started
        quality = psnr(found.image, targets)
        low = float(quality.quantile(0.1))
        rows.append(
            [f"{space}, {start}", f"{float(quality.median()):.1f} dB", f"{low:.1f} dB", f"{count / seconds:.1f}"]
        )
    print_table([f"{count} images of G, {steps} steps, from", "median PSNR", "lowest tenth", "images/s"], rows)


def print_preconditioners(generator: StyleGAN2Generator, count: int) -> None:
    prior = StyleGAN2Prior(generator)
    with torch.no_grad():
        targets = generator(torch.randn(count, generator.latent_dim, generator=torch.Generator().manual_seed(2)))
    frozen, at = freeze_generator(prior), (10, 25, 50, 100)
    curvature = estimate_gauss_newton_matrix(frozen, prior.latent_dim, next(frozen.parameters()))
    candidates = {"none": NoWhitening(), "mean of J'J": Whitening(curvature), "covariance of w": frozen.whitening}
    rows = []
    for name, preconditioner in candidates.items():
        frozen.__dict__["whitening"] = preconditioner  # where it is kept once it is measured
        found = invert(prior, Identity(), targets, num_steps=at[-1], start="mean", tolerance=0.0, **PLAIN)
        best = -10 * found.history.cummin(0).values.log10()
        rows.append([name, *(f"{float(best[min(step, len(best) - 1)].median()):.1f} dB" for step in at)])
    print_table([f"preconditioner of W, {count} images, steps:", *map(str, at)], rows)


def print_batches(generator: StyleGAN2Generator, steps: int, repeats: int) -> None:
    prior = StyleGAN2Prior(generator)
    with torch.no_grad():
        targets = generator(torch.randn(8, generator.latent_dim, generator=torch.Generator().manual_seed(1)))
    freeze_generator(prior).whitening  # noqa: B018  measured once per generator
    images: dict[str, Tensor] = {}

    def search(rows: range) -> Tensor:
        part = targets[rows.start : rows.stop]
        return invert(prior, Identity(), part, num_steps=steps, start="mean", indices=rows, **PLAIN).image

    def rate(name: str, parts: list[range]) -> Callable[[], float]:
        def measure() -> float:
            started = time.perf_counter()
            images[name] = torch.cat([search(rows) for rows in parts])
            return 8 / (time.perf_counter() - started)

        return measure

    candidates = {"batch": rate("batch", [range(8)]), "single": rate("single", [range(i, i + 1) for i in range(8)])}
    rates = measure_in_turn(candidates, repeats)
    difference = float((images["batch"] - images["single"]).abs().max())
    rows = [
        ["one batch of 8", f"{statistics.median(rates['batch']):.2f}", f"{ratio(rates, 'batch', 'single'):.2f}"],
        ["8 single calls", f"{statistics.median(rates['single']):.2f}", "1"],
    ]
    print_table([f"inversion in W, {steps} steps", "images/s", "speed"], rows)
    print(f"Largest difference of the images: {difference:.1e}.\n")


def grouped(layer: SynthesisLayer, features: Tensor, styles: Tensor, noise: Tensor | None) -> Tensor:
    batch, inputs, *size = features.shape
    weights = layer.weight * styles[:, None, :, None, None]
    weights = weights * (weights.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    merged = features.reshape(1, batch * inputs, *size)
    if layer.up:
        weights = weights.transpose(1, 2).flatten(0, 1)
        features = F.conv_transpose2d(merged, weights, stride=2, groups=batch)
        features = filter_images(features.unflatten(1, (batch, -1))[0], 4 * layer.resample_filter, padding=1)
    else:
        features = F.conv2d(merged, weights.flatten(0, 1), padding=1, groups=batch).unflatten(1, (batch, -1))[0]
    shift = layer.bias[:, None, None] + (0 if noise is None else layer.noise_strength * noise)
    return F.leaky_relu(features + shift, 0.2) * 2**0.5


def print_convolutions(repeats: int) -> None:
    torch.manual_seed(0)
    generator = StyleGAN2Generator(64, base_channels=32, max_channels=256).eval().requires_grad_(False)
    layers = [layer for layer in generator.modules() if isinstance(layer, SynthesisLayer)]
    rows = []
    for batch in (1, 8):
        ws = generator.mapping(torch.randn(batch, 512))
        results: dict[str, Tensor] = {}

        def rate(name: str, ws: Tensor = ws, results: dict[str, Tensor] = results) -> Callable[[], float]:
            def measure() -> float:
                for layer in layers:
                    if name == "grouped":
                        layer.forward = grouped.__get__(layer)  # type: ignore[method-assign]
                started = time.perf_counter()
                leaf = ws.clone().requires_grad_()
                results[name] = generator.synthesis(leaf)
                torch.autograd.grad(results[name].square().sum(), leaf)
                seconds = time.perf_counter() - started
                for layer in layers:
                    vars(layer).pop("forward", None)
                return len(ws) / seconds

            return measure

        rates = measure_in_turn({name: rate(name) for name in ("ours", "grouped")}, repeats)
        torch.testing.assert_close(results["ours"], results["grouped"], atol=1e-3, rtol=1e-3)
        medians = [f"{statistics.median(rates[name]):.1f}" for name in ("ours", "grouped")]
        rows.append([str(batch), *medians, f"{ratio(rates, 'ours', 'grouped'):.2f}"])
    print_table(["batch, 64 px, image and gradient", "images/s", "grouped", "speed"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=64, help="number of images that are inverted")
    parser.add_argument("--steps", type=int, default=200, help="largest number of steps of a search")
    parser.add_argument("--repeats", type=int, default=5, help="number of rounds of the measured rates")
    parser.add_argument("--threads", type=int, default=1, help="number of torch threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print_header("StyleGAN2 and inversion in W")
    generator = load_generator(REFERENCE)
    assert isinstance(generator, StyleGAN2Generator)
    generator.requires_grad_(False)
    print_agreement(generator)
    print_inversions(generator, arguments.count, arguments.steps)
    print_preconditioners(generator, arguments.count // 4)
    print_batches(generator, arguments.steps // 4, arguments.repeats)
    print_convolutions(2 * arguments.repeats + 1)


if __name__ == "__main__":
    main()
