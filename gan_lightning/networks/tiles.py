"""Enlargement of an image tile by tile, with memory that does not depend on the size of the image."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gan_lightning.errors import InputError
from gan_lightning.images import to_uint8

BORDER = 32  # pixels of context on each side of a tile
SMALLEST_TILE = 3 * BORDER  # a third of the tile is not context


@dataclass(frozen=True)
class Span:
    """A tile along one side of the image, in pixels of the input.

    Attributes:
        start: First pixel.
        stop: Pixel after the last one.
        weight: Weight of each pixel of the output, (scale * (stop - start)). Those of all spans add up to 1.
    """

    start: int
    stop: int
    weight: Tensor


def check_tile(tile: int, border: int = BORDER) -> None:
    """Check the side of a tile.

    Args:
        tile: Height and width, in pixels of the small image; 0 for the whole image at once.
        border: Pixels of context on each side.

    Raises:
        InputError: If it is less than three borders.
    """
    if tile != 0 and tile < 3 * border:
        raise InputError(
            f"a tile of {tile} pixels is too small for its border of {border} on each side: give {3 * border} or more, "
            "or 0 for the whole image at once"
        )


def spans(side: int, tile: int, border: int, scale: int, multiple: int = 1) -> list[Span]:
    """Divide one side of an image into overlapping tiles of equal cores.

    Neighbors share `border` pixels on each side of the line between them, and are blended in the middle half of these.
    Pixels that a tile contributes are therefore at least half a border away from its edges inside the image.
    """
    count = 1 if tile == 0 or side <= tile else math.ceil((side - 2 * border) / (tile - 2 * border - multiple + 1))
    inner = [multiple * round((border + (side - 2 * border) * index / count) / multiple) for index in range(1, count)]
    found, total = [], torch.zeros(scale * side)
    for first, last in itertools.pairwise([0, *inner, side]):
        start, stop = max(0, first - border), min(side, last + border)
        places, weight = (torch.arange(scale * start, scale * stop) + 0.5) / scale, torch.ones(scale * (stop - start))
        if start:
            weight *= ((places - first) / border + 0.5).clamp(0, 1)
        if stop < side:
            weight *= ((last - places) / border + 0.5).clamp(0, 1)
        total[scale * start : scale * stop] += weight
        found.append(Span(start, stop, weight))
    return [replace(span, weight=span.weight / total[scale * span.start : scale * span.stop]) for span in found]


def enlarge_in_tiles(
    network: Callable[[Tensor], Tensor],
    image: Tensor,
    scale: int,
    tile: int,
    border: int = BORDER,
    multiple: int = 1,
) -> Iterator[Tensor]:
    """Enlarge an image, and yield it from top to bottom in strips (C,rows,scale*W) uint8.

    Args:
        network: Function from images (1,C,H,W) in [-1, 1] to images `scale` times as large.
        image: (C,H,W) in [-1, 1].
        scale: Factor of the network.
        tile: Largest height and width of the network's input; 0 for the whole image at once.
        border: Pixels of context on each side of a tile. If it is twice the radius of the network's receptive field,
            the result is that of the whole image.
        multiple: Number that must divide the first row and column of a tile; it divides the border.

    Raises:
        InputError: If the tile is too small.
    """
    check_tile(tile, border)
    height, width = image.shape[-2:]
    rows, columns = (spans(side, tile, border, scale, multiple) for side in (height, width))
    left_over = torch.zeros(0)
    for index, row in enumerate(rows):
        strip = torch.zeros(image.shape[0], scale * (row.stop - row.start), scale * width)
        if index:
            strip[:, : left_over.shape[1]] = left_over
        for column in columns:
            part = image[:, row.start : row.stop, column.start : column.stop]
            large = network(part[None])[0].float().cpu()
            weight = row.weight[:, None] * column.weight
            strip[:, :, scale * column.start : scale * column.stop] += weight * large
        done = scale * ((rows[index + 1].start if index + 1 < len(rows) else row.stop) - row.start)
        left_over = strip[:, done:]
        yield to_uint8(strip[:, :done])
