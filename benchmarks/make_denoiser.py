"""Train the denoising network of the package on photographs, drawings and rendered faces, and write its weights.

    python benchmarks/make_denoiser.py --photographs FOLDER [--steps 12000] [--weights FOLDER]

The photographs of the package's own weights are listed in gan_lightning/weights/denoiser/README.md; any large
photographs will do. It takes about 70 minutes on one core of a CPU with AMX, most of it the steps.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import environment  # noqa: F401  first: it sets what torch reads when it is imported
import numpy as np
import torch
from dead_leaves import draw_image
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from gan_lightning.faces import render_face, sample_face
from gan_lightning.images import to_float
from gan_lightning.inversion.learned_prior import WEIGHTS
from gan_lightning.networks.denoiser import Denoiser
from gan_lightning.pretrained import write_weights

CROP, BATCH = 64, 16
LONGER_SIDES = 1400, 900, 560, 350, 220  # that photographs are reduced to, in pixels
LARGEST_SCALE = 0.62  # of a reduced photograph: noise and blur of the camera disappear
LEAVES, FACES = 5000, 500  # images that are drawn beforehand, and vary by crops, symmetries and colors
SEED, FACES_SEED = 11, 7  # built-in data sets have the seed 0
FACE_SHARE, LEAVES_SHARE = 0.1, 0.2  # the other crops are of photographs
LEAST_STD, MOST_STD = 0.01, 0.6  # of the noise, for images in [-1, 1]
RATE, WARM_UP = 1e-3, 100
GRADIENT_NORM = 0.05
AVERAGE = 0.998
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, required=True, help="folder of large photographs in color")
    parser.add_argument("--steps", type=int, default=12000, help="number of training steps")
    parser.add_argument("--leaves", type=int, default=LEAVES, help="number of drawn images")
    parser.add_argument("--faces", type=int, default=FACES, help="number of rendered faces")
    parser.add_argument("--threads", type=int, default=1, help="number of CPU threads")
    parser.add_argument("--weights", type=Path, default=WEIGHTS.parent, help="folder to write to")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    photographs = [reduced for path in sorted(options.photographs.iterdir()) for reduced in sizes_of(path)]
    leaves = np.stack([draw_image(SEED, index) for index in range(options.leaves)])
    faces = np.stack([small_face(index) for index in range(options.faces)])
    network = train(photographs, leaves, faces, options.steps)
    write_weights(options.weights / WEIGHTS.name, network.state_dict(), {"steps": options.steps}, half=True)


def sizes_of(path: Path) -> Iterator[Bytes]:
    """Yield a photograph reduced to several sizes: (H, W, 3), no side shorter than CROP."""
    with Image.open(path) as image:
        whole = image.convert("RGB")
    for side in LONGER_SIDES:
        scale = side / max(whole.size)
        size = tuple(round(length * scale) for length in whole.size)
        if scale <= LARGEST_SCALE and min(size) >= CROP:
            yield np.asarray(whole.resize(size, Image.Resampling.BICUBIC))


def small_face(index: int) -> Bytes:
    """Return a rendered face (CROP, CROP, 3)."""
    whole = Image.fromarray(render_face(sample_face(FACES_SEED, index)))
    return np.asarray(whole.crop((0, 20, 178, 198)).resize((CROP, CROP), Image.Resampling.BICUBIC))


def train(photographs: list[Bytes], leaves: Bytes, faces: Bytes, steps: int) -> Denoiser:
    """Return the average of the networks of the last steps, in bfloat16 where that is faster.

    The loss is the root of the mean squared error of each image, so that no noise level outweighs the others.
    """
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = Denoiser().to(memory_format=torch.channels_last)
    average = Denoiser()
    average.load_state_dict(network.state_dict())
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE, betas=(0.9, 0.99))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * step / steps)) / 2
        clean = batch(rng, photographs, leaves, faces)
        std = torch.empty(BATCH, 1, 1, 1).uniform_(math.log(LEAST_STD), math.log(MOST_STD)).exp()
        noisy = (clean + std * torch.randn_like(clean)).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            noise = network.noise(noisy, std)
        loss = ((noisy - noise.float() - clean).square().mean((1, 2, 3)) + 1e-6).sqrt().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
        optimizer.step()
        with torch.no_grad():
            kept = min(AVERAGE, (step + 1) / (step + 20))
            for ours, theirs in zip(average.parameters(), network.parameters(), strict=True):
                ours.lerp_(theirs, 1 - kept)
        if step % 100 == 99:
            print(f"step {step + 1}: loss {loss.item():.4f}", flush=True)
    return average


def batch(rng: np.random.Generator, photographs: list[Bytes], leaves: Bytes, faces: Bytes) -> Tensor:
    """Return clean images (BATCH,3,CROP,CROP) in [-1, 1].

    A photograph and its size are drawn with a probability that grows with the length of its sides: large ones have more
    different crops.
    """
    lengths = np.sqrt([photograph[..., 0].size for photograph in photographs])
    images = []
    for kind in rng.random(BATCH):
        if kind < FACE_SHARE:
            image = faces[rng.integers(len(faces))].astype(np.float32) / 255
            image = image[:, ::-1] if rng.random() < 0.5 else image
        elif kind < FACE_SHARE + LEAVES_SHARE:
            image = _varied(rng, leaves[rng.integers(len(leaves))])
        else:
            image = _varied(rng, photographs[rng.choice(len(photographs), p=lengths / lengths.sum())])
        if rng.random() < 0.4:
            image = (image - 0.5) * rng.uniform(0.5, 1.2) + 0.5 + rng.uniform(-0.15, 0.15)
        images.append(torch.from_numpy(np.clip(image, 0, 1).astype(np.float32)).permute(2, 0, 1))
    return to_float(torch.stack(images) * 255)


def _varied(rng: np.random.Generator, source: Bytes) -> Floats:
    """Return a crop in one of eight orientations; the colors of some are exchanged or faded."""
    top, left = (rng.integers(0, length - CROP + 1) for length in source.shape[:2])
    image = source[top : top + CROP, left : left + CROP].astype(np.float32) / 255
    turn = rng.integers(8)
    image = image[::-1] if turn & 1 else image
    image = image[:, ::-1] if turn & 2 else image
    image = image.swapaxes(0, 1) if turn & 4 else image
    if rng.random() < 0.4:
        image = image[..., rng.permutation(3)]
    if rng.random() < 0.25:
        saturation = rng.random()
        image = image.mean(-1, keepdims=True) * (1 - saturation) + image * saturation
    return image


if __name__ == "__main__":
    main()
