"""Glasses, hats and earrings."""

from __future__ import annotations

import numpy as np

from gan_lightning.faces.canvas import Array, Light, blend, bump, clip, darken, linear, region, smooth, soft
from gan_lightning.faces.head import Head
from gan_lightning.faces.parameters import Face, Glasses, Hat
from gan_lightning.faces.strands import strand_noise


def draw_glasses(canvas: Array, face: Face, head: Head, light: Light) -> None:
    """Paint two lenses in rims, the bridge and the front of the temples, with a shadow on the skin."""
    if face.glasses == Glasses.NONE:
        return
    rim_color = linear(face.glasses_color) * (light.ambient + 0.6 * light.key)
    sun = face.glasses == Glasses.SUN
    grow = 1.12 if sun else 1.0
    for sign in (-1, 1):
        u = head.turn(sign * 20.2, 5)
        half_u = 15.6 * grow * head.side(sign)
        half_v = (10.6 + 3.2 * face.glasses_round) * grow
        area = region(u - half_u - 6, u + half_u + 6, -half_v - 5, half_v + 10)
        x, y = (area.u - u) * (1 / half_u), (area.v - 2.0) * (1 / half_v)
        power = 4 - 2 * face.glasses_round
        level = np.abs(x) ** power + np.abs(y) ** power
        distance = (1 - level ** (1 / power)) * 0.5 * (half_u + half_v)
        lower = bump(distance + 2.5, 3.5) * soft(y, 1.0)
        darken(canvas, area, 0.18 * lower)
        sheen = smooth(x * 0.8 - y - 0.35, 0.7) * smooth(y + 0.85 - x * 0.8, 0.9)
        if sun:
            dark = rim_color * 0.25 + 0.03 * (1 + y) * light.key
            blend(canvas, area, 0.96 * soft(distance, 1.2), dark + 0.07 * sheen)
        else:
            blend(canvas, area, soft(distance, 1.2) * (0.03 + 0.07 * sheen), 0.9 * light.key)
        rim = soft(1.15 - np.abs(distance), 1.1)
        blend(canvas, area, 0.9 * rim, rim_color * (1.1 - 0.35 * y))
        _draw_temple(canvas, head, u + sign * half_u, sign, rim_color)
    bridge = region(head.turn(-8, 8), head.turn(8, 8), -8, 6)
    arc = bridge.v + 2.5 + 2.5 * (1 - ((bridge.u - head.turn(0, 9)) * (1 / 7)) ** 2)
    blend(canvas, bridge, 0.9 * soft(1.1 - np.abs(arc), 1.1), rim_color)


def _draw_temple(canvas: Array, head: Head, start: float, sign: int, color: Array) -> None:
    """Paint the temple from a rim towards the ear."""
    end = head.axis_at(0.0) + sign * (head.half_width - 1)
    if (end - start) * sign < 2:
        return
    area = region(min(start, end), max(start, end), -6, 4)
    blend(canvas, area, 0.85 * soft(1.1 - np.abs(area.v + 1.5), 1.0) * np.ones_like(area.u), color * 0.8)


def draw_earrings(canvas: Array, face: Face, head: Head, light: Light) -> None:
    """Paint a drop below each ear."""
    if not face.earrings:
        return
    middle = head.axis_at(10.0)
    for sign in (-1, 1):
        u = middle + sign * (head.half_width + 2.5 - 6 * sign * head.sine)
        area = region(u - 6, u + 6, 22, 42)
        drop = soft(3.1 - np.hypot(area.u - u, (area.v - 31) * 0.72), 1.2)
        shine = bump(np.hypot(area.u - u + 1, area.v - 29), 2.6)
        blend(canvas, area, drop, linear((0.9, 0.76, 0.46)) * (light.ambient + 0.45 * light.key) + 0.6 * shine)


def draw_hat(canvas: Array, face: Face, head: Head, light: Light) -> None:
    """Paint a knitted cap, or a hat with a brim, and its shadow on the forehead."""
    if face.hat == Hat.NONE:
        return
    brimmed = face.hat == Hat.BRIMMED
    half, top = head.half_width + (5.0 if brimmed else 6.5), head.top - (16.0 if brimmed else 12.0)
    rim = -34.0 if brimmed else -30.0
    area = region(-half - 38, half + 38, top - 3, rim + 30)
    u = area.u - head.axis_at(-40.0)
    x = u * (1 / half)
    rise = clip((rim + 10 - area.v) / (rim + 10 - top), 0, 1.2)
    edge = rim + 6 * (1 - x * x) - 3
    radius = np.sqrt(x * x + rise ** (3.6 if brimmed else 3.0))
    crown = np.minimum((1 - radius) * 0.5 * (half + rim - top), edge - area.v)
    shadow = bump(np.maximum(area.v - edge, 0), 14.0) * soft(area.v - edge + 1, 2.0) * soft(0.94 - np.abs(x), 0.1)
    darken(canvas, area, 0.5 * shadow)
    color = _felt(face, x, rise, light)
    if brimmed:
        color *= 1 - 0.55 * soft(6.5 - np.abs(area.v - edge + 8), 1.5)
    else:
        color *= 0.82 + 0.36 * np.abs(np.sin(np.arcsin(clip(x, -1, 1)) * 17))
        color *= 1 + 0.2 * soft(area.v - edge + 13, 1.5) - 0.3 * bump(area.v - edge + 13, 1.5)
    blend(canvas, area, soft(crown, 1.3), color)
    if brimmed:
        wide = half + 28
        brim_v = (area.v - rim - 1 + 7 * (u * (1 / wide)) ** 2) * (1 / 6.5)
        level = np.sqrt((u * (1 / wide)) ** 2 + brim_v * brim_v)
        brim = _felt(face, u * (1 / wide), 0.55 - 0.5 * brim_v, light)
        blend(canvas, area, soft((1 - level) * 6.5, 1.3), brim)


def _felt(face: Face, x: Array, rise: Array, light: Light) -> Array:
    """Return the lit cloth of a hat over a dome, (3,h,w) linear."""
    n_u = clip(x, -1, 1)
    n_v = -0.8 * rise
    n_z = np.sqrt(np.maximum(1.1 - n_u * n_u - n_v * n_v, 0.05))
    lu, lv, lz = light.direction
    lambert = np.maximum((n_u * lu + n_v * lv + n_z * lz + 0.25) * 0.8, 0)
    weave = 0.9 + 0.2 * strand_noise(x * 400, face.texture_seed)
    return (lambert * light.key + light.ambient) * weave * linear(face.hat_color)
