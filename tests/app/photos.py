"""Photographs for the tests of the page."""

import numpy as np
from PIL import Image


def draw(path, size=(40, 30), mode="RGB", **options):
    """Write a smooth image of any format, and return its path."""
    coarse = np.random.default_rng(3).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode).save(path, **options)
    return path
