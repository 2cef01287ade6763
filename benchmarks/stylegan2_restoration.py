"""Spaces and searches of a StyleGAN2 on held-out synthetic faces, as Markdown tables, and a picture of some of them.

    python benchmarks/stylegan2_restoration.py --generator G.ckpt --root data/synthetic [--picture FILE.png]

Each row is one search for each image, from the generator alone or with what restoration adds to it (`composite`).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import environment  # noqa: F401  first: it sets what torch reads when it is imported
import numpy as np
import torch
from report import print_header, print_table
from torch import Tensor
from torch.nn import functional as F

from gan_lightning.data.synthetic_faces import SyntheticFaces
from gan_lightning.degradations import Degradation, Downsample, GaussianBlur, GaussianNoise, Identity, SquareMask
from gan_lightning.images import make_grid, to_float, write_png
from gan_lightning.inversion import invert
from gan_lightning.networks.checkpoints import load_discriminator, load_generator
from gan_lightning.networks.stylegan2 import StyleGAN2Generator
from gan_lightning.networks.stylegan2_prior import StyleGAN2Prior

METHODS: dict[str, dict[str, Any]] = {  # space and settings
    "z": {"space": "z", "refine": "none"},
    "w": {"refine": "none"},
    "w, perceptual loss": {"refine": "none", "loss": "perceptual"},
    "w, projector's steps": {"refine": "none", "solver": "adam", "schedule": "projector", "num_steps": 200},
    "w, noise maps optimized": {"refine": "none", "noise_maps": "optimized"},
    "w+": {"space": "w+", "refine": "none"},
    "w, then w+": {},
    "robust chain": {"solver": "robust"},
}
SHOWN = ("w", "w+", "robust chain")


def psnr(images: Tensor, targets: Tensor) -> Tensor:
    return -10 * ((images.clamp(-1, 1) - targets) / 2).square().flatten(1).mean(1).log10()


def held_out_faces(root: str, count: int, images: int, size: int) -> Tensor:
    data = SyntheticFaces(root, count=count, image_size=size)
    data.prepare_data()
    data.setup()
    pixels = torch.as_tensor(data.real_images("test").read(np.arange(images)))
    return to_float(pixels if pixels.shape[1] in (1, 3) else pixels.permute(0, 3, 1, 2))


def tasks(size: int) -> dict[str, tuple[Degradation, float]]:
    return {
        "noise 0.1": (Identity(), 0.1),
        f"hole of {size // 3}": (SquareMask(size, size // 3), 0.0),
        "blur of 1.5": (GaussianBlur(1.5), 0.0),
        "4x": (Downsample(4), 0.0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", required=True, help="checkpoint of a StyleGAN2 of 32 px")
    parser.add_argument("--root", required=True, help="folder of synthetic faces")
    parser.add_argument("--count", type=int, default=10000, help="number of faces in the folder")
    parser.add_argument("--images", type=int, default=16, help="number of held-out faces to restore")
    parser.add_argument("--picture", help="PNG of some of the results")
    parser.add_argument("--threads", type=int, default=1, help="number of torch threads")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = load_generator(options.generator)
    assert isinstance(generator, StyleGAN2Generator)
    generator.requires_grad_(False)
    discriminator = load_discriminator(options.generator)
    faces = held_out_faces(options.root, options.count, options.images, generator.image_size)
    print_header("Restoration by a StyleGAN2 of 32 px on held-out faces")
    header = ["mean PSNR, dB", *tasks(generator.image_size), "seconds per image"]
    rows: list[list[str]] = []
    pictures: list[Tensor] = []
    for name, settings in METHODS.items():
        prior = StyleGAN2Prior(generator, settings.get("space", "w"))
        given = {key: value for key, value in settings.items() if key != "space"}
        cells, started = [], time.process_time()
        for degradation, noise in tasks(generator.image_size).values():
            observed = degradation(faces)
            if noise:
                observed = GaussianNoise(noise)(observed, list(range(len(faces))))
            found = invert(
                prior,
                degradation,
                observed,
                num_searches=1,
                noise_level=noise,
                composite=False,
                discriminator=discriminator if settings.get("loss") else None,
                **given,
            )
            cells.append(f"{float(psnr(found.image, faces).mean()):.2f}")
            if name in SHOWN:
                pictures += [F.interpolate(x, faces.shape[-2:]) for x in (observed[:4], found.image[:4])]
        seconds = (time.process_time() - started) / len(faces) / len(cells)
        rows.append([name, *cells, f"{seconds:.1f}"])
        print(*rows[-1], file=sys.stderr, flush=True)
    print_table(header, rows)
    if options.picture:
        _save(Path(options.picture), pictures, faces[:4])


def _save(path: Path, pictures: list[Tensor], faces: Tensor) -> None:
    """Write a grid: for each task a column of inputs and those of the methods, and the faces at the end."""
    count = len(pictures) // len(SHOWN)
    columns: list[Tensor] = []
    for task in range(0, count, 2):
        columns += [pictures[task], *(pictures[method * count + task + 1] for method in range(len(SHOWN)))]
    columns.append(faces)
    images = torch.stack([column.clamp(-1, 1) for column in columns], 1).flatten(0, 1)
    write_png(path, make_grid(F.interpolate(images, scale_factor=2), len(columns)))


if __name__ == "__main__":
    main()
