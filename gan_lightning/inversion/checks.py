"""What inversion refuses, before any work."""

from __future__ import annotations

import math
from collections.abc import Callable, Sized

import torch
from torch import Tensor

from gan_lightning.errors import InputError
from gan_lightning.inversion.frozen_generator import FrozenGenerator


def check_observed(
    generator: FrozenGenerator, degradation: Callable[[Tensor], Tensor], observed: Tensor, indices: Sized
) -> None:
    """Refuse images that A(G(z)) cannot explain.

    Raises:
        InputError: Another shape than A makes of the generator's images, pixels that are not finite, an empty batch,
            or another number of indices.
    """
    if observed.ndim != 4 or not len(observed):
        raise InputError(f"observed has shape {tuple(observed.shape)}: give images as (B,C,H,W), one or more")
    if len(indices) != len(observed):
        raise InputError(f"{len(indices)} indices were given for {len(observed)} images: give one an image")
    if not observed.isfinite().all():
        bad = (~observed.flatten(1).isfinite().all(1)).nonzero()[:, 0].tolist()
        raise InputError(f"observed has pixels that are not finite, in images {bad}: mend or leave out these images")
    with torch.no_grad():
        image = generator(observed.new_zeros(1, generator.latent_dim))
        if not image.isfinite().all():
            raise InputError("the generator makes images that are not finite: give one whose training has not diverged")
        degraded = degradation(image.expand(len(observed), *image.shape[1:]))
        if not degraded.isfinite().all():
            raise InputError("the degradation makes pixels that are not finite: it must be smooth on all of [-1, 1]")
        expected = degraded.shape
    if observed.shape == expected:
        return
    if observed.shape[1] != expected[1]:
        raise InputError(
            f"observed images have {observed.shape[1]} channels, but the degraded generator's have {expected[1]}: "
            "convert the images, or take another generator or degradation"
        )
    sizes = ["x".join(map(str, shape[2:])) for shape in (observed.shape, expected)]
    raise InputError(
        f"observed images are of {sizes[0]} pixels, but the degraded generator's of {sizes[1]}: "
        "crop and resize them first"
    )


def check_start(start: str | Tensor, count: int, latent_dim: int) -> None:
    """Refuse a start that is not known, and latents that are not one an image.

    Raises:
        InputError: Another word; another shape than (count, latent_dim), or numbers that are not finite.
    """
    if isinstance(start, str):
        if start not in ("mean", "random", "best_of_k"):
            raise InputError(f"start {start!r} is not known: choose mean, random or best_of_k, or give latents")
    elif start.shape != (count, latent_dim) or not start.isfinite().all():
        raise InputError(f"start has shape {tuple(start.shape)}: give finite latents of shape ({count}, {latent_dim})")


def check_numbers(**numbers: float | None) -> None:
    """Refuse settings below zero, or not finite.

    Raises:
        InputError: Such a setting.
    """
    for name, value in numbers.items():
        if value is not None and not (value >= 0 and math.isfinite(value)):
            raise InputError(f"{name} is {value}: give a number of 0 or more")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse a name that is not among the choices.

    Raises:
        InputError: Such a name.
    """
    if value not in choices:
        raise InputError(f"{name} {value!r} is not known: choose one of {', '.join(choices)}")
