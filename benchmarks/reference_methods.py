"""Alternatives to a generator: the classical methods of scikit-image and Pillow for each task.

Each function takes observed images (B,C,H,W) in [-1, 1] and returns restored ones. Where two methods are common, or a
setting matters, all of them are returned by name, and the benchmark reports the best: the comparison is with the
strongest.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage import restoration
from torch import Tensor

from gan_lightning.images import to_float, to_uint8

Pixels = NDArray[np.float64]


def denoised(observed: Tensor, noise: float) -> dict[str, Tensor]:
    """Non-local means, with the settings of scikit-image's example, and with its defaults."""
    settings = {"h": 0.8 * noise, "sigma": noise, "patch_size": 5, "patch_distance": 6, "fast_mode": False}
    return {
        "non-local means": _each(observed, lambda i: restoration.denoise_nl_means(i, channel_axis=-1, **settings)),
        "non-local means, defaults": _each(observed, lambda i: restoration.denoise_nl_means(i, channel_axis=-1)),
    }


def inpainted(observed: Tensor, known: Tensor) -> dict[str, Tensor]:
    """Biharmonic inpainting."""
    missing = known[0, 0].numpy() == 0
    return {"biharmonic": _each(observed, lambda i: restoration.inpaint_biharmonic(i, missing, channel_axis=-1))}


def deblurred(observed: Tensor, sigma: float) -> dict[str, Tensor]:
    """Unsupervised Wiener and Richardson-Lucy, on images whose borders are mirrored."""
    radius = int(4 * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = np.outer(taps, taps) / taps.sum() ** 2
    margin = 2 * radius

    def mirrored(method: Callable[[Pixels], Pixels]) -> Callable[[Pixels], Pixels]:
        def restore(image: Pixels) -> Pixels:
            channels = [method(np.pad(image[..., c], margin, mode="reflect")) for c in range(image.shape[-1])]
            return np.stack(channels, -1)[margin:-margin, margin:-margin]

        return restore

    methods: dict[str, Callable[[Pixels], Pixels]] = {
        "unsupervised Wiener": lambda i: restoration.unsupervised_wiener(i, kernel, clip=False, rng=0)[0],
        "Richardson-Lucy, 30 steps": lambda i: restoration.richardson_lucy(i, kernel, num_iter=30),
        "Richardson-Lucy, 100 steps": lambda i: restoration.richardson_lucy(i, kernel, num_iter=100),
    }
    return {name: _each(observed, mirrored(method)) for name, method in methods.items()}


def colored(observed: Tensor) -> dict[str, Tensor]:
    """The gray image."""
    return {"left gray": observed.expand(-1, 3, -1, -1)}


def enlarged(observed: Tensor, factor: int) -> dict[str, Tensor]:
    """Bicubic and Lanczos interpolation."""
    size = (observed.shape[-1] * factor, observed.shape[-2] * factor)
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in to_uint8(observed)]
    kinds = {"bicubic": Image.Resampling.BICUBIC, "Lanczos": Image.Resampling.LANCZOS}
    return {
        name: to_float(
            torch.stack([torch.from_numpy(np.array(p.resize(size, kind))).permute(2, 0, 1) for p in pictures])
        )
        for name, kind in kinds.items()
    }


def _each(observed: Tensor, method: Callable[[Pixels], Pixels]) -> Tensor:
    pixels = ((observed.double() + 1) / 2).permute(0, 2, 3, 1).numpy()
    return torch.from_numpy(np.stack([method(image) for image in pixels])).permute(0, 3, 1, 2).float() * 2 - 1
