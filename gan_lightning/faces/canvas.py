"""The canvas: coordinates, soft masks, layers, and light.

A face is drawn upright in its own frame. The origin is the midpoint of the eyes; u points to the right, v down, and z
towards the viewer, in pixels of the final image. One affine warp then applies roll, scale and shift. In the upright
frame most shapes are products or sums of a function of u and a function of v, which makes them cheap: a sum of K
Gaussians is one matrix product. Colors are planar and linear in light; `encode` converts them to pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from gan_lightning.faces.parameters import Color, Face

Array = npt.NDArray[Any]  # float32; NumPy's types lose the precision in mixed expressions

WIDTH, HEIGHT = 178, 218  # CelebA's aligned images
CENTER_X, CENTER_Y = 88.5, 111.5  # midpoint of the eyes in CelebA's alignment
CANVAS_WIDTH, CANVAS_HEIGHT = 224, 264  # larger, so that the warp always finds drawn pixels
ORIGIN_X, ORIGIN_Y = 112, 134
EYE_X = 19.5  # half the distance between the eyes in CelebA's alignment
_U: Array = (np.arange(CANVAS_WIDTH, dtype=np.float32) - ORIGIN_X)[None, :]
_V: Array = (np.arange(CANVAS_HEIGHT, dtype=np.float32) - ORIGIN_Y)[:, None]


class Region(NamedTuple):
    """A rectangle of the canvas and its coordinates: u is (1,width), v is (height,1)."""

    rows: slice
    columns: slice
    u: Array
    v: Array


def region(left: float, right: float, top: float, bottom: float) -> Region:
    """Return the rectangle of the canvas that covers a rectangle in the frame of the face."""
    columns = slice(max(round(left) + ORIGIN_X, 0), min(round(right) + ORIGIN_X + 1, CANVAS_WIDTH))
    rows = slice(max(round(top) + ORIGIN_Y, 0), min(round(bottom) + ORIGIN_Y + 1, CANVAS_HEIGHT))
    return Region(rows, columns, _U[:, columns], _V[rows])


def within(inner: slice, outer: slice) -> slice:
    """Convert a slice of the canvas to a slice of an array that covers `outer`."""
    return slice(inner.start - outer.start, inner.stop - outer.start)


def clip(values: Array, low: float, high: float) -> Array:
    """Clip values like `np.clip`, which takes four times as long for small arrays."""
    result = np.maximum(values, low)
    return np.minimum(result, high, out=result)


def soft(distance: Array, width: float = 1.0) -> Array:
    """Return the coverage of a pixel at a signed distance inside an edge: 0 to 1 over `width` pixels."""
    result = distance * (1 / width)
    result += 0.5
    np.maximum(result, 0, out=result)
    np.minimum(result, 1, out=result)
    return result


def smooth(distance: Array, width: float) -> Array:
    """Return the coverage like `soft`, but without kinks, for wide, visible transitions."""
    t = soft(distance, width)
    curve: Array = t * t * (3 - 2 * t)
    return curve


def bump(distance: Array, width: float) -> Array:
    """Return a bell of height 1 around 0 that is zero beyond `width`: a cheap Gaussian."""
    t = distance * (1 / width)
    t *= t
    np.subtract(1, t, out=t)
    np.maximum(t, 0, out=t)
    squared: Array = t * t
    return squared


def linear(color: Color) -> Array:
    """Convert an sRGB color to (3,1,1) linear light (gamma 2, so that encoding is one square root)."""
    return np.array([c * c for c in color], np.float32)[:, None, None]


def blend(canvas: Array, area: Region, mask: Array, color: Array) -> None:
    """Blend a color, (3,1,1) or (3,h,w), into an area of the canvas, weighted by the mask."""
    patch = canvas[:, area.rows, area.columns]
    change = color - patch
    change *= mask
    patch += change


def darken(canvas: Array, area: Region, amount: Array, tint: tuple[float, float, float] = (0.8, 1.0, 1.05)) -> None:
    """Darken an area of the canvas. Red is darkened less by default, because shadows on skin are warm."""
    patch = canvas[:, area.rows, area.columns]
    for channel, weight in enumerate(tint):
        patch[channel] *= 1 - weight * amount


def bell(offset: Array, sigma: Array) -> Array:
    """Return a Gaussian of height 1, set to zero far out, because denormal numbers slow down matrix products."""
    value: Array = np.exp(-0.5 * (offset / sigma) ** 2)
    value *= value > 1e-7
    return value


def gaussians(area: Region, table: Array) -> Array:
    """Return a sum of axis-aligned Gaussians; the rows of the table are (amplitude, u, sigma_u, v, sigma_v)."""
    amplitude, u0, su, v0, sv = table.T[:, :, None]
    across = bell(area.u - u0, su)
    down = bell(area.v.T - v0, sv) * amplitude
    total: Array = np.matmul(down.T, across)
    return total


def gaussian_slopes(area: Region, table: Array) -> tuple[Array, Array]:
    """Return the derivatives of `gaussians(area, table)` with respect to u and v."""
    amplitude, u0, su, v0, sv = table.T[:, :, None]
    du, dv = area.u - u0, area.v.T - v0
    across = bell(du, su)
    down = bell(dv, sv) * amplitude
    return down.T @ (across * (-du / su**2)), (down * (-dv / sv**2)).T @ across


@dataclass(frozen=True)
class Light:
    """A key light, and ambient light that fills the shadows."""

    direction: tuple[float, float, float]  # unit vector towards the light, in (u, v, z)
    halfway: tuple[float, float, float]  # unit vector halfway between the light and the viewer
    key: Array  # (3,1,1) linear
    ambient: Array  # (3,1,1) linear

    @classmethod
    def of(cls, face: Face) -> Light:
        """Return the light of a face; the ambient light takes on a little of the background color."""
        rise = math.sin(face.light_elevation)
        run = math.cos(face.light_elevation)
        direction = (run * math.sin(face.light_azimuth), -rise, run * math.cos(face.light_azimuth))
        length = math.sqrt(2 + 2 * direction[2])
        halfway = (direction[0] / length, direction[1] / length, (1 + direction[2]) / length)
        warmth = 0.07 * face.light_warmth
        key = (0.78 + 0.36 * face.light_contrast) * np.array([1 + warmth, 1, 1 - 1.4 * warmth], np.float32)
        room = np.array(face.background[0], np.float32) ** 2
        ambient = (0.42 - 0.2 * face.light_contrast) * (0.9 + 0.25 * (room - room.mean()))
        return cls(direction, halfway, key[:, None, None], ambient.astype(np.float32)[:, None, None])


def visible(face: Face) -> Region:
    """Return the part of the canvas that the warp of a face reads."""
    corners = [from_picture(face, x, y) for x in (-2, WIDTH + 1) for y in (-2, HEIGHT + 1)]
    u, v = zip(*corners, strict=True)
    return region(min(u), max(u), min(v), max(v))


def encode(canvas: Array, face: Face) -> npt.NDArray[np.uint8]:
    """Convert a canvas to pixels: gamma, then the warp by roll, scale and shift of the face.

    Returns:
        (218,178,3) uint8 RGB.
    """
    area = visible(face)
    bands = []
    for channel in range(3):
        light = np.maximum(canvas[channel, area.rows, area.columns], 0)
        np.sqrt(light, out=light)
        light *= 255
        light += 0.5
        bands.append(Image.fromarray(np.minimum(light, 255, out=light).astype(np.uint8)))
    # Pillow maps corners of pixels: (x, y) of the image to (a x + b y + c, d x + e y + f) of the canvas.
    u0, v0 = from_picture(face, -0.5, -0.5)
    u_x, v_x = (math.cos(face.roll) / face.scale, -math.sin(face.roll) / face.scale)
    left, top = float(area.u[0, 0]) - 0.5, float(area.v[0, 0]) - 0.5
    matrix = (u_x, -v_x, u0 - left, v_x, u_x, v0 - top)
    warped = Image.merge("RGB", bands).transform(
        (WIDTH, HEIGHT), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )
    return np.asarray(warped)


def from_picture(face: Face, x: float, y: float) -> tuple[float, float]:
    """Return the point (u, v) in the frame of the face that is warped to (x, y) in the image."""
    cosine, sine = math.cos(face.roll) / face.scale, math.sin(face.roll) / face.scale
    dx, dy = x - CENTER_X - face.shift_x, y - CENTER_Y - face.shift_y
    return cosine * dx + sine * dy, cosine * dy - sine * dx


def to_picture(face: Face, u: float, v: float) -> tuple[float, float]:
    """Return the point (x, y) in the image, in pixels, to which `encode` warps a point in the frame of the face."""
    cosine, sine = math.cos(face.roll) * face.scale, math.sin(face.roll) * face.scale
    return CENTER_X + face.shift_x + cosine * u - sine * v, CENTER_Y + face.shift_y + sine * u + cosine * v
