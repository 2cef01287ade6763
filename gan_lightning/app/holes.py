"""Conversion of the strokes of the brush to a mask of the photograph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gan_lightning.data.decode import turn_upright
from gan_lightning.data.photo_format import largest_crop
from gan_lightning.degradations.mask_files import fit_mask
from gan_lightning.errors import InputError
from gan_lightning.images import center_box

Mask = NDArray[np.bool_]


def painted_pixels(layers: Sequence[Path], side: int) -> Mask:
    """Return where something was painted, (side, side).

    Args:
        layers: PNG files of the editor, transparent where nothing was painted.
        side: Side of the square that was painted on, in pixels.

    Raises:
        InputError: If an image has another size, which its header says, or is no image.
    """
    painted = np.zeros((side, side), dtype=np.bool_)
    for layer in layers:
        try:
            with Image.open(layer, formats=("PNG", "WEBP")) as opened:
                if opened.size != (side, side):
                    raise InputError("the drawing does not belong to this photograph: reload the page")
                if "A" in opened.getbands():
                    painted |= np.asarray(opened.getchannel("A")) > 0
        except OSError as error:
            raise InputError("the drawing cannot be read: reload the page") from error
    return painted


def write_mask(path: Path, photo: Path, painted: Mask | None, image_size: int) -> None:
    """Write the mask of a photograph, of the size of the photograph, as `restore` takes it.

    Args:
        path: File to write, .npy.
        photo: The photograph, which was checked.
        painted: (S,S) what was painted on the square in the center of the photograph, if anything.
        image_size: Side of the images of the generator, in pixels.

    Raises:
        InputError: If nothing is missing, or everything.
    """
    with Image.open(photo) as opened:
        upright = turn_upright(opened)
        known = np.ones(upright.size[::-1], dtype=np.bool_)
        if "A" in upright.getbands() or "transparency" in upright.info:
            known = np.asarray(upright.convert("RGBA").getchannel("A")) > 127
    crop = largest_crop(upright.size, (image_size, image_size))
    left, top, right, bottom = center_box(upright.size, crop)
    if painted is not None:
        known[top:bottom, left:right] &= fit_mask(~painted, (len(painted), len(painted)), crop)
    left_over = fit_mask(known, crop, (image_size, image_size))
    if left_over.all():
        raise InputError("nothing is painted: paint over what is missing in the photograph, then restore it")
    if not left_over.any():
        raise InputError("the brush covers all of the photograph: leave something of it to go by")
    np.save(path, known)
