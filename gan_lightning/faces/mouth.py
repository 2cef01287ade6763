"""The mouth: lips, teeth, and the dark gap between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gan_lightning.faces.canvas import Array, Light, Region, blend, bump, clip, darken, linear, region, soft
from gan_lightning.faces.head import Head
from gan_lightning.faces.parameters import Face


@dataclass(frozen=True)
class _Lips:
    """Curves of the mouth over the columns of a region, each (1,width), in v."""

    x: Array  # -1 left corner, 1 right corner
    top: Array
    upper: Array  # lower edge of the upper lip
    lower: Array  # upper edge of the lower lip
    bottom: Array


def corner(face: Face, head: Head, sign: int) -> tuple[float, float]:
    """Return (u, v) of a corner of the mouth; a smile widens the mouth and lifts its corners."""
    return head.turn(sign * head.mouth_half, 1), head.mouth_v - 4.2 * face.smile


def _curves(face: Face, head: Head, area: Region) -> _Lips:
    """Return the lines of the lips, as polynomials of the position between the two corners."""
    left, lift = corner(face, head, -1)
    right, _ = corner(face, head, 1)
    middle = head.turn(0, 7)
    x = np.where(area.u < middle, (area.u - middle) / (middle - left), (area.u - middle) / (right - middle))
    x = x.astype(np.float32)
    arc = np.maximum(1 - x * x, 0)
    line = lift + (head.mouth_v - lift + 0.6) * arc  # from the height of the corners to that of the middle
    full = face.lip_fullness * (0.9 if face.masculine else 1.12) * (1 - 0.14 * max(face.smile, 0.0))
    bow = 1.0 - 0.22 * bump(x, 0.3) + 0.1 * bump(np.abs(x) - 0.3, 0.3)
    gap = face.mouth_open * (4.8 + 2.4 * max(face.smile, 0.0)) * arc ** (1.4 - 0.6 * max(face.smile, 0.0))
    top = line - 4.3 * full * bow * arc**0.85 - 0.35 * gap
    lower = line + 0.65 * gap
    return _Lips(x, top, line - 0.35 * gap, lower, lower + 5.2 * full * arc**0.7)


def draw_mouth(canvas: Array, face: Face, head: Head, light: Light) -> None:
    """Paint the mouth over the skin; the lips are lit like the skin."""
    area = region(head.turn(-26, 0), head.turn(26, 6), head.mouth_v - 16, head.mouth_v + 22)
    lips = _curves(face, head, area)
    v = area.v
    sides = soft((1 - np.abs(lips.x)) * head.mouth_half, 1.6)
    if face.mouth_open > 0:
        _draw_inside(canvas, face, area, lips, sides, light)
    color = _lip_color(face, canvas, area)
    height = np.maximum(lips.bottom - lips.lower, 0.5)
    below = (v - lips.lower) / height
    upper_mask = soft(np.minimum(v - lips.top, lips.upper - v) + 0.2, 1.5) * sides
    lower_mask = soft(np.minimum(v - lips.lower, lips.bottom - v) + 0.2, 1.5) * sides
    strength = 0.82 + 0.12 * face.lipstick
    blend(canvas, area, strength * upper_mask, color * 0.78)
    rounding = 1.12 - 0.42 * clip(below - 0.2, 0, 1) ** 2
    shine = (0.035 + 0.09 * face.lipstick) * bump(below - 0.38, 0.42) * bump(lips.x - 0.4 * light.direction[0], 0.7)
    blend(canvas, area, strength * lower_mask, color * rounding + shine)
    parting = bump(v - 0.5 * (lips.upper + lips.lower), 1.7) * sides * (1.0 if face.mouth_open == 0 else 0.0)
    darken(canvas, area, 0.62 * parting, (0.86, 1.0, 1.0))
    edge = bump(v - lips.upper, 1.4) * sides * min(face.mouth_open * 3, 1.0)
    darken(canvas, area, 0.4 * edge)
    under = bump(v - lips.bottom - 1.6, 2.6) * bump(lips.x, 0.8)
    darken(canvas, area, 0.2 * under)


def _lip_color(face: Face, canvas: Array, area: Region) -> Array:
    """Return lips tinted over the light of the skin, so that they are lit like the face; (3,h,w) linear."""
    patch = canvas[:, area.rows, area.columns]
    skin = linear(face.skin_color)
    lit = clip(patch.mean(axis=0) / float(skin.mean()), 0.35, 1.3)
    red = 0.55 if face.masculine else 0.75
    natural = skin * np.array([0.92 - 0.1 * red, 0.7 - 0.28 * red, 0.72 - 0.24 * red], np.float32)[:, None, None]
    tone = natural + face.lipstick * (0.9 * linear(face.lipstick_color) - natural)
    return tone * lit


def _draw_inside(canvas: Array, face: Face, area: Region, lips: _Lips, sides: Array, light: Light) -> None:
    """Return the dark mouth and the upper teeth, shaded by the lips and the corners."""
    v = area.v
    opening = soft(np.minimum(v - lips.upper, lips.lower - v) + 0.5, 1.2) * sides
    blend(canvas, area, opening, np.array([0.055, 0.014, 0.013], np.float32)[:, None, None])
    exposure = float(light.ambient.mean()) + 0.55 * float(light.key.mean())
    depth = 1.6 + 4.4 * max(face.smile, 0.0)
    shade = (1 - 0.72 * clip(np.abs(lips.x) * 1.05, 0, 1) ** 2) * (0.72 + 0.28 * soft(v - lips.upper - 1.2, 2.5))
    gaps = 1 - 0.1 * clip(np.cos(lips.x * 21.0), 0.75, 1) * 4 + 0.3
    teeth = np.array([0.7, 0.65, 0.57], np.float32)[:, None, None] * (exposure * shade * np.minimum(gaps, 1.0))
    mask = opening * soft(lips.upper + depth * (1 - 0.5 * lips.x**2) - v, 1.4)
    blend(canvas, area, mask, teeth)
