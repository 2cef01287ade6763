"""Train the denoising network of the package on drawn images and rendered faces, and write its weights.

    python benchmarks/make_denoiser.py --steps 6000 [--weights FOLDER]

No photograph is used. It takes about an hour on one core of a CPU with AMX, most of it the steps.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import environment  # noqa: F401  first: it sets what torch reads when it is imported
import numpy as np
import torch
from dead_leaves import SIZE, draw_image
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from gan_lightning.faces import render_face, sample_face
from gan_lightning.images import to_float
from gan_lightning.inversion.learned_prior import WEIGHTS
from gan_lightning.networks.denoiser import Denoiser
from gan_lightning.pretrained import write_weights

CROP, BATCH = 64, 16
LEAVES, FACES = 1900, 500  # images that are drawn beforehand, and vary by crops, symmetries and colors
SEED, FACES_SEED = 11, 7  # built-in data sets have the seed 0
FACE_SHARE = 0.12
LEAST_STD, MOST_STD = 0.01, 0.6  # of the noise, for images in [-1, 1]
RATE, WARM_UP = 1e-3, 100
GRADIENT_NORM = 0.05
AVERAGE = 0.998
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6000, help="number of training steps")
    parser.add_argument("--leaves", type=int, default=LEAVES, help="number of drawn images")
    parser.add_argument("--faces", type=int, default=FACES, help="number of rendered faces")
    parser.add_argument("--threads", type=int, default=1, help="number of CPU threads")
    parser.add_argument("--weights", type=Path, default=WEIGHTS.parent, help="folder to write to")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    leaves = np.stack([draw_image(SEED, index) for index in range(options.leaves)])
    faces = np.stack([small_face(index) for index in range(options.faces)])
    network = train(leaves, faces, options.steps)
    write_weights(options.weights / WEIGHTS.name, network.state_dict(), {"steps": options.steps}, half=True)


def small_face(index: int) -> Bytes:
    """Return a rendered face (CROP, CROP, 3)."""
    whole = Image.fromarray(render_face(sample_face(FACES_SEED, index)))
    return np.asarray(whole.crop((0, 20, 178, 198)).resize((CROP, CROP), Image.Resampling.BICUBIC))


def train(leaves: Bytes, faces: Bytes, steps: int) -> Denoiser:
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
        clean = batch(rng, leaves, faces)
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


def batch(rng: np.random.Generator, leaves: Bytes, faces: Bytes) -> Tensor:
    """Return clean images (BATCH,3,CROP,CROP) in [-1, 1]."""
    images = []
    for _ in range(BATCH):
        if rng.random() < FACE_SHARE:
            image = faces[rng.integers(len(faces))].astype(np.float32) / 255
            image = image[:, ::-1] if rng.random() < 0.5 else image
        else:
            image = _varied(rng, leaves[rng.integers(len(leaves))])
        if rng.random() < 0.5:
            image = (image - 0.5) * rng.uniform(0.5, 1.1) + 0.5 + rng.uniform(-0.15, 0.15)
        images.append(torch.from_numpy(np.clip(image, 0, 1).astype(np.float32)).permute(2, 0, 1))
    return to_float(torch.stack(images) * 255)


def _varied(rng: np.random.Generator, drawn: Bytes) -> Floats:
    """Return a crop in one of eight orientations, with its colors exchanged or faded."""
    top, left = rng.integers(0, SIZE - CROP + 1, 2)
    image = drawn[top : top + CROP, left : left + CROP].astype(np.float32) / 255
    turn = rng.integers(8)
    image = image[::-1] if turn & 1 else image
    image = image[:, ::-1] if turn & 2 else image
    image = image.swapaxes(0, 1) if turn & 4 else image
    image = image[..., rng.permutation(3)]
    if rng.random() < 0.3:
        saturation = rng.random()
        image = image.mean(-1, keepdims=True) * (1 - saturation) + image * saturation
    return image


if __name__ == "__main__":
    main()
