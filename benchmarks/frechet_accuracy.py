"""Check that fd_random ranks images of obviously different quality as expected, and measure its speed.

    python benchmarks/frechet_accuracy.py --root data/synthetic

Prints a Markdown table of Frechet distances between one half of the images of a CelebA-like folder and degraded copies
of the other half, samples of a linear model of the faces (principal components with Gaussian weights, like a blurry
generator), and samples of an untrained DCGAN.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Iterator

import environment  # noqa: F401  first: it sets what torch reads when it is imported
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gan_lightning import images
from gan_lightning.data.celeba import CelebA
from gan_lightning.metrics import FrechetDistance, RandomFeatures
from gan_lightning.networks.dcgan import Generator


def blurred(pixels: Tensor, sigma: float) -> Tensor:
    taps = torch.arange(-12, 13, dtype=torch.float32)
    kernel = torch.exp(-(taps**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, 25)
    rows = F.conv2d(F.pad(pixels.float(), (12, 12, 0, 0), "reflect"), kernel, groups=3)
    both = F.conv2d(F.pad(rows, (0, 0, 12, 12), "reflect"), kernel.transpose(2, 3), groups=3)
    return both.round().to(torch.uint8)


def principal_samples(pixels: Tensor, components: int, count: int, rng: torch.Generator) -> Tensor:
    flat = pixels.flatten(1).float()
    mean = flat.mean(0)
    _, scales, directions = torch.svd_lowrank(flat - mean, q=components, niter=2)
    weights = torch.randn(count, components, generator=rng) * scales / len(flat) ** 0.5
    samples = mean + weights @ directions.T
    return samples.clamp(0, 255).round().to(torch.uint8).view(count, *pixels.shape[1:])


def candidates(train: Tensor, held_out: Tensor, rng: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    count, noise = len(held_out), torch.randn(held_out.shape, generator=rng)
    yield "held-out faces", held_out
    for level in (5, 20, 60):
        yield f"held-out, noise of {level} gray levels", (held_out + level * noise).clamp(0, 255).to(torch.uint8)
    for sigma in (0.5, 1.0, 2.0, 4.0):
        yield f"held-out, blur of {sigma} px", blurred(held_out, sigma)
    yield "held-out, upside down", held_out.flip(2)
    yield "16 held-out faces, repeated", held_out[:16].repeat(count // 16 + 1, 1, 1, 1)[:count]
    for components in (100, 10):
        yield f"samples of {components} principal components", principal_samples(train, components, count, rng)
    yield "uniform noise", torch.randint(0, 256, held_out.shape, dtype=torch.uint8, generator=rng)
    generator = Generator(64, 3, 100, 64, "batch").eval()
    with torch.no_grad():
        drawn = [generator(torch.randn(50, 100, generator=rng)) for _ in range(count // 50)]
    yield "untrained DCGAN, eval mode", images.to_uint8(torch.cat(drawn))


def update(metric: FrechetDistance, pixels: Tensor, real: bool) -> None:
    for batch in pixels.split(256):
        metric.update(batch, real=real)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--root", required=True, help="CelebA-like folder, such as one made by gan-lightning synthesize"
    )
    parser.add_argument("--count", type=int, default=2000, help="number of images in each half")
    parser.add_argument("--threads", type=int, default=1, help="number of torch threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    data = CelebA(arguments.root, image_size=64)
    data.prepare_data()
    data.setup()
    everything = data.real_images("all")
    count = min(arguments.count, len(everything) // 2 // 50 * 50)
    order = np.random.default_rng(0).permutation(len(everything))
    train, held_out = (everything.read(np.sort(half)) for half in (order[:count], order[count : 2 * count]))

    metric = FrechetDistance(RandomFeatures())
    started = time.perf_counter()
    update(metric, train, real=True)
    rate = count / (time.perf_counter() - started)
    update(metric, train, real=False)
    started = time.perf_counter()
    metric.compute()
    seconds = time.perf_counter() - started
    print(f"{count} images in each half, 64 px, {RandomFeatures.name}, {platform.machine()}, torch {torch.__version__}")
    print(f"{rate:.0f} images/s on {arguments.threads} thread(s), then {seconds:.2f} s for the distance\n")
    print("| images | fd_random |\n| --- | ---: |")
    for name, pixels in candidates(train, held_out, torch.Generator().manual_seed(0)):
        metric.reset()  # but for the real images
        update(metric, pixels, real=False)
        print(f"| {name} | {float(metric.compute()):.3f} |")


if __name__ == "__main__":
    main()
