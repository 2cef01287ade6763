"""Which of two values of a metric is the better one, by the name of the metric."""

from __future__ import annotations

from typing import Literal

Direction = Literal["min", "max"]

HIGHER = ("is", "psnr", "ssim", "identity", "images_per_second")
BY_NEIGHBORS = ("precision", "recall", "density", "coverage")  # and, with another extractor, "recall_random"
LOWER = ("fid", "kid", "mifid", "mse", "l1", "lpips", "loss")  # the loss of a single network: a GAN's have other names
SUFFIXES = ("_median", "_worst", "_degraded", "_hole")


def better(name: str) -> Direction | None:
    """Return whether "min" or "max" of a metric is its best value; None if it has none.

    Neither the losses of a GAN, each of which depends on the other network, nor the outputs of its discriminator have a
    best value.

    Args:
        name: Name that the metric is logged under, such as "val/fid" or "test/psnr_median".
    """
    last = name.rsplit("/", 1)[-1]
    for suffix in SUFFIXES:
        last = last.removesuffix(suffix)
    if last in HIGHER or last.split("_")[0] in BY_NEIGHBORS:
        return "max"
    return "min" if last in LOWER or last.startswith(("fd_", "kid_", "mifid_")) or last.endswith("_mse") else None
