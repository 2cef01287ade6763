"""Facial hair, painted on the skin and a little beyond it."""

from __future__ import annotations

import numpy as np

from gan_lightning.faces.canvas import (
    Array,
    Light,
    Region,
    blend,
    bump,
    clip,
    linear,
    region,
    smooth,
    soft,
    within,
)
from gan_lightning.faces.head import Head, Surface
from gan_lightning.faces.parameters import Beard, Face
from gan_lightning.faces.strands import fine_noise


def draw_beard(canvas: Array, face: Face, head: Head, shape: Surface, light: Light) -> None:
    """Paint stubble, mustache, goatee, full beard and sideburns, on the skin and a little beyond it."""
    if face.beard == Beard.NONE and not face.sideburns:
        return
    area = region(-head.half_width - 6, head.half_width + 6, -8, head.chin + 12)
    inside = shape.inside[within(area.rows, shape.area.rows), within(area.columns, shape.area.columns)]
    cover = _beard_cover(face, head, area)
    grown = 5.0 if face.beard == Beard.FULL else 0.5
    hairs = fine_noise(face.texture_seed + 3, area)
    edge = soft(inside + grown - 1 + 3 * (hairs - 0.5), 2.5)
    stubble = face.beard == Beard.STUBBLE
    density = (0.42 if stubble else 0.94) * clip(cover * (0.78 + 0.44 * hairs), 0, 1)
    lambert = np.maximum(light.direction[0] * area.u * (1 / head.half_width) + 0.55 * light.direction[2] + 0.25, 0.05)
    lit = float(light.ambient.mean()) + 0.8 * float(light.key.mean()) * lambert
    tone = linear(face.hair_color) * (0.7 + 0.6 * hairs) * lit
    if stubble:
        tone = tone * 0.7 + 0.25 * linear(face.skin_color) * lit * np.array([0.8, 0.9, 1.0], np.float32)[:, None, None]
    blend(canvas, area, density * edge, tone)


def _beard_cover(face: Face, head: Head, area: Region) -> Array:
    """Return the density of facial hair, 0 to 1."""
    u, v = area.u - head.turn(0, 3), area.v
    x = np.abs(u) * (1 / head.half_width)
    mouth, half = head.mouth_v, head.mouth_half
    corner_v = mouth - 4.2 * face.smile
    lip_gap = smooth(1.0 - np.sqrt((u * (1 / (half + 1))) ** 2 + ((v - mouth - 2) * (1 / 6.0)) ** 2), 0.35)
    upper = bump(v - (mouth - 7.4) - 2.2 * (u * (1 / half)) ** 2, 4.6) * smooth(half + 4 - np.abs(u), 5.0)
    upper = upper * (1 - 0.25 * bump(u, 2.0))
    cover: Array = np.zeros(np.broadcast_shapes(u.shape, v.shape), np.float32)
    if face.beard in (Beard.MUSTACHE, Beard.GOATEE, Beard.FULL, Beard.STUBBLE):
        cover = np.maximum(cover, upper)
    if face.beard == Beard.GOATEE:
        ring = smooth(half + 3.5 - np.abs(u) - 0.12 * np.maximum(v - mouth - 8, 0), 5.0) * smooth(v - corner_v + 1, 6.0)
        cover = np.maximum(cover, ring)
    if face.beard in (Beard.FULL, Beard.STUBBLE):
        line = mouth - 2 - 34 * np.maximum(x - 0.42, 0) ** 1.3 * 1.7
        cover = np.maximum(cover, smooth(v - line - 2, 9.0))
    cover *= 1 - lip_gap
    if face.sideburns:
        edge = np.abs(area.u - head.axis(v)) * (1 / head.half_width)
        side = smooth(edge - 0.88, 0.12) * smooth(26 - v, 14.0) * smooth(v - 2, 12.0)
        cover = np.maximum(cover, side)
    return cover
