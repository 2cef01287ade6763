"""Checks of the inputs of an inversion, made before the search starts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from numbers import Integral, Real

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gan_lightning.errors import InputError
from gan_lightning.inversion.frozen_generator import FrozenGenerator

LOUDEST = 20.0  # largest absolute pixel value that noise could explain


class PixelRangeWarning(UserWarning):
    """Images that may be in another range than [-1, 1]."""


@contextmanager
def range_is_known() -> Iterator[None]:
    """Silence `PixelRangeWarning` within the context, for images whose range was checked when they were read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PixelRangeWarning)
        yield


def check_observed(
    generator: FrozenGenerator, degradation: Callable[[Tensor], Tensor], observed: Tensor, indices: Sized
) -> None:
    """Raise if A(G(z)) cannot explain the observed images.

    Args:
        generator: G.
        degradation: A.
        observed: Observed images, (B,C,H,W) if they are valid.
        indices: Indices of the B images.

    Raises:
        InputError: If the batch is empty, does not have the shape of A(G(z)), or has pixels that are not finite or in
            [0, 255]; if the number of indices differs; or if G or A returns values that are not finite.
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
        check_range(observed, degraded)
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


def check_pixels(observed: object) -> None:
    """Check that observed images are a tensor of floats.

    Raises:
        InputError: If they are something else, such as integers from 0 to 255, or an image of Pillow or NumPy.
    """
    if isinstance(observed, Image.Image | np.ndarray):
        convert = "torchvision.transforms.functional.to_tensor(observed)[None] * 2 - 1"
        raise InputError(
            f"observed is a {describe_type(observed)}: give a tensor (B,C,H,W) in [-1, 1], as by {convert}"
        )
    if not isinstance(observed, Tensor):
        raise InputError(f"observed is a {describe_type(observed)}: give a tensor (B,C,H,W) in [-1, 1]")
    if not observed.is_floating_point():
        raise InputError(
            f"observed is of {observed.dtype}: give floats in [-1, 1]; pixels in [0, 255] are observed / 127.5 - 1"
        )


def describe_type(value: object) -> str:
    """Return the full name of a value's class, without private modules."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def check_range(observed: Tensor, possible: Tensor) -> None:
    """Check that observed images may be in the range of A(G(z)).

    Args:
        observed: y, (B,C,H,W).
        possible: Degraded images of the generator. A user-defined A may map to another range than [-1, 1].

    Raises:
        InputError: If they are far outside the range, such as pixels in [0, 255].

    Warns:
        PixelRangeWarning: If no value is below 0, as in [0, 1]. This is no error, because a bright photograph may have
            no negative values either.
    """
    if observed.abs().amax() > LOUDEST and possible.abs().amax() <= 2:
        largest = observed.abs().amax().item()
        raise InputError(f"observed has values up to {largest:.3g}: give [-1, 1]; [0, 255] is observed / 127.5 - 1")
    if 0 <= observed.amin() < observed.amax() and possible.amin() < 0:
        warnings.warn(
            "no value of the observed images is below 0: if they are in [0, 1], map them by observed * 2 - 1",
            PixelRangeWarning,
            stacklevel=4,
        )


def check_start(latents: Tensor, count: int, latent_dim: int) -> None:
    """Raise an InputError if latents cannot start a search: they must be finite and of shape (count, latent_dim)."""
    if latents.shape != (count, latent_dim) or not latents.isfinite().all():
        raise InputError(
            f"start has shape {tuple(latents.shape)}: give finite latents of shape ({count}, {latent_dim})"
        )


def check_prior(generator: object, *, noise_maps: str, solver: str) -> None:
    """Raise an InputError if a setting needs something that the prior does not offer."""
    if noise_maps == "optimized" and not getattr(generator, "noise_sizes", ()):
        raise InputError("this generator has no noise maps to optimize: set noise_maps to held")
    if solver == "robust" and not (getattr(generator, "num_filters", 0) and getattr(generator, "space", None) == "w"):
        raise InputError("the solver robust searches a StyleGAN2 in space w: leave space out, or choose another solver")


def check_numbers(**numbers: float | None) -> None:
    """Raise an InputError if a setting is negative or not finite; None is allowed."""
    for name, value in numbers.items():
        if value is not None and not (isinstance(value, Real) and value >= 0 and math.isfinite(value)):
            raise InputError(f"{name} is {value}: give a number of 0 or more")


def check_counts(least: int, **counts: int | None) -> None:
    """Raise an InputError if a setting is not a whole number, or below the least one; None is allowed."""
    for name, value in counts.items():
        if value is not None and (not isinstance(value, Integral) or isinstance(value, bool) or value < least):
            raise InputError(f"{name} is {value}: give a whole number of {least} or more")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise an InputError if a value is not among the choices."""
    if value not in choices:
        raise InputError(f"{name} {value!r} is unknown: choose one of {', '.join(choices)}")
