"""Direction of the best value of a metric, by its name."""

from __future__ import annotations

from typing import Literal

Direction = Literal["min", "max"]

HIGHER = ("is", "psnr", "ssim", "identity", "images_per_second")
BY_NEIGHBORS = ("precision", "recall", "density", "coverage")  # also with suffixes such as "recall_random"
LOWER = ("fid", "kid", "mifid", "mse", "l1", "lpips", "loss")  # losses of a GAN are not named "loss"
SUFFIXES = ("_median", "_worst", "_degraded", "_hole")


def better(name: str) -> Direction | None:
    """Return the direction of the best value of a metric, "min" or "max"; None if it has no best value.

    Neither the losses of a GAN, each of which depends on the other network, nor the outputs of its discriminator have a
    best value.

    Args:
        name: Logged name of the metric, such as "val/fid" or "test/psnr_median".
    """
    last = name.rsplit("/", 1)[-1]
    for suffix in SUFFIXES:
        last = last.removesuffix(suffix)
    if last in HIGHER or last.split("_")[0] in BY_NEIGHBORS:
        return "max"
    return "min" if last in LOWER or last.startswith(("fd_", "kid_", "mifid_")) or last.endswith("_mse") else None
