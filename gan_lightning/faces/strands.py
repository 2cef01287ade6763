"""Hair texture: noise along strands, from tables that are computed once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gan_lightning.faces.canvas import Array, Region

_LENGTH = 4096
_SIDE = 512


def _smoothed(values: npt.NDArray[np.float64], width: int, axis: int) -> npt.NDArray[np.float64]:
    """Apply a circular mean over a window twice, which makes noise without corners."""
    for _ in range(2):
        padded = np.concatenate([values.take(range(-width, 0), axis), values], axis)
        total = np.cumsum(padded, axis)
        values = (
            total.take(range(width, total.shape[axis]), axis) - total.take(range(total.shape[axis] - width), axis)
        ) / width
    return values


def _spread(values: npt.NDArray[np.float64]) -> Array:
    """Scale values to [0, 1] with mean one half."""
    values = (values - values.mean()) / values.std()
    return np.clip(0.5 + 0.22 * values, 0, 1).astype(np.float32)


def _tables() -> tuple[Array, Array, Array, Array]:
    """Compute noise along one axis for strands, and hairs, curls and lumps in the plane."""
    rng = np.random.default_rng(7)
    octaves = [(64, 1.0), (24, 0.8), (9, 0.55), (4, 0.3)]
    line = sum(
        weight * _spread(_smoothed(rng.normal(size=_LENGTH), width, 0)).astype(np.float64) for width, weight in octaves
    )
    fine = _smoothed(_smoothed(rng.normal(size=(_SIDE, _SIDE)), 4, 0), 1, 1)
    coarse = _smoothed(_smoothed(rng.normal(size=(_SIDE, _SIDE)), 5, 0), 5, 1)
    bent = _spread(coarse)
    curls = 0.45 * bent + 0.55 * (1 - np.abs(2 * _spread(np.roll(coarse, 91, 0)) - 1))  # ridges are rims of curls
    return (
        _spread(np.asarray(line)),
        _spread(fine),
        _spread(curls.astype(np.float64)),
        _spread(_smoothed(_smoothed(coarse, 6, 0), 6, 1)),
    )


_STRANDS, _FINE, _CURLS, _PUFFS = _tables()


def strand_noise(across: Array, offset: int) -> Array:
    """Return noise in [0, 1] that is constant along strands.

    Args:
        across: Position across the strands, in steps of the table (a lock is about 60 wide), of any shape.
        offset: Offset into the table; another offset gives other hair.
    """
    index = across.astype(np.int32)
    index += offset % _LENGTH
    index &= _LENGTH - 1
    return _STRANDS.take(index)


def _window(table: Array, seed: int, area: Region) -> Array:
    """Return a part of a plane of noise, for a region."""
    height, width = area.v.shape[0], area.u.shape[1]
    top, left = seed % (_SIDE - height), seed // 512 % (_SIDE - width)
    return table[top : top + height, left : left + width]


def fine_noise(seed: int, area: Region) -> Array:
    """Return short upright hairs, in [0, 1]."""
    return _window(_FINE, seed, area)


def puff_noise(seed: int, area: Region) -> Array:
    """Return soft lumps, in [0, 1], for the outline of curly hair."""
    return _window(_PUFFS, seed, area)


def curl_noise(seed: int, area: Region) -> Array:
    """Return curls, in [0, 1]."""
    return _window(_CURLS, seed, area)
