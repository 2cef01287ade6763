"""Checks of the input of an inversion, before any work."""

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
    """Raise if A(G(z)) cannot explain the observed images.

    Args:
        generator: G.
        degradation: A.
        observed: Observed images, (B,C,H,W) if they are valid.
        indices: Indices of the images, of which there must be B.

    Raises:
        InputError: If the batch is empty, has another shape than A(G(z)) or pixels that are not finite; if the number
            of indices differs; or if G or A returns values that are not finite.
    """
    if observed.ndim != 4 or not len(observed):
        raise InputError(f"observed has shape {tuple(observed.shape)}: give images as (B,C,H,W), one or more")
    if len(indices) != len(observed):
        raise InputError(f"{len(indices)} indices were given for {len(observed)} images: give one per image")
    if not observed.isfinite().all():
        bad = (~observed.flatten(1).isfinite().all(1)).nonzero()[:, 0].tolist()
        raise InputError(f"observed has pixels that are not finite, in images {bad}: repair or leave out these images")
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
            "convert the images, or use another generator or degradation"
        )
    sizes = ["x".join(map(str, shape[2:])) for shape in (observed.shape, expected)]
    raise InputError(
        f"observed images are of {sizes[0]} pixels, but the degraded generator's of {sizes[1]}: "
        "crop and resize them first"
    )


def check_start(latents: Tensor, count: int, latent_dim: int) -> None:
    """Raise if latents are not (count, latent_dim) and finite, and so cannot be the start of a search."""
    if latents.shape != (count, latent_dim) or not latents.isfinite().all():
        raise InputError(
            f"start has shape {tuple(latents.shape)}: give finite latents of shape ({count}, {latent_dim})"
        )


def check_numbers(**numbers: float | None) -> None:
    """Raise an InputError if a setting is negative or not finite; None is allowed."""
    for name, value in numbers.items():
        if value is not None and not (value >= 0 and math.isfinite(value)):
            raise InputError(f"{name} is {value}: give a number of 0 or more")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise an InputError if a value is not among the choices."""
    if value not in choices:
        raise InputError(f"{name} {value!r} is unknown: choose one of {', '.join(choices)}")
