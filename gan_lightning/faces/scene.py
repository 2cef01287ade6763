"""The surroundings of the head: an out-of-focus background, shoulders and clothes."""

from __future__ import annotations

import numpy as np

from gan_lightning.faces.canvas import (
    CANVAS_HEIGHT,
    CANVAS_WIDTH,
    Array,
    Light,
    Region,
    bell,
    blend,
    bump,
    clip,
    darken,
    linear,
    region,
    smooth,
    soft,
    visible,
)
from gan_lightning.faces.head import Head
from gan_lightning.faces.parameters import Clothes, Face
from gan_lightning.faces.strands import curl_noise


def background(face: Face) -> Array:
    """Return a new canvas, (3,h,w) linear: three shades in a few wide blurred blobs."""
    rng = np.random.default_rng(face.texture_seed)
    count = 7
    rows = np.empty((count, 5), np.float32)
    rows[:, 1] = rng.uniform(-110, 110, count)
    rows[:, 2] = rng.uniform(18, 65, count)
    rows[:, 3] = rng.uniform(-130, 130, count)
    rows[:, 4] = rng.uniform(25, 90, count)
    base, second, third = (np.array(color, np.float32) ** 2 for color in face.background)
    weights = rng.uniform(0.1, 0.4, count)
    area = visible(face)
    across = bell(area.u - rows[:, 1:2], rows[:, 2:3])
    down = bell(area.v.T - rows[:, 3:4], rows[:, 4:5])
    ramp = area.v.T * float(rng.uniform(-0.002, 0.001)) + 1
    canvas = np.zeros((3, CANVAS_HEIGHT, CANVAS_WIDTH), np.float32)  # parts that the warp never reads stay black
    for channel in range(3):
        goals = np.where(np.arange(count) % 2 == 0, second[channel], third[channel]) - base[channel]
        amplitude = (weights * goals).astype(np.float32)[:, None]
        patch = np.matmul((down * amplitude * ramp).T, across)
        patch += ramp.T * float(base[channel])
        canvas[channel, area.rows, area.columns] = patch
    return canvas


def draw_shoulders(canvas: Array, face: Face, head: Head, light: Light) -> None:
    """Paint the shoulders in clothes, below a neckline."""
    area = region(-108, 108, head.chin + 4, 124)
    middle = -8.0 * head.sine
    x = area.u - middle
    far = np.abs(x)
    wide = 1.12 if face.masculine else 0.96
    slope = head.chin + 16 + (0.3 / wide) * np.maximum(far - 20, 0) + 0.0042 * np.maximum(far - 62 * wide, 0) ** 2
    neckline = _neckline(face, head, far)
    distance = area.v - np.maximum(slope - 3 * bump(far - 30, 16.0), neckline)
    color = _cloth(face, area, x, slope, light)
    if face.clothes == Clothes.SUIT:
        _draw_suit(color, area, x, head, light)
    collar = bump(distance - 2.2, 2.2) if face.clothes != Clothes.SUIT else np.zeros_like(distance)
    color *= 1 + 0.12 * collar - 0.35 * bump(distance, 1.6)
    darken(canvas, area, 0.35 * bump(np.minimum(distance, 0), 6.0))
    blend(canvas, area, soft(distance, 1.4), color)


def _neckline(face: Face, head: Head, far: Array) -> Array:
    """Return the upper edge of the clothes over the distance from the middle."""
    if face.clothes == Clothes.V_NECK:
        return head.chin + 58 - 1.35 * far
    if face.clothes == Clothes.SUIT:
        return head.chin + 19 - 0.4 * far
    return head.chin + 27 - 9 * (far * (1 / 30)) ** 2


def _cloth(face: Face, area: Region, x: Array, slope: Array, light: Light) -> Array:
    """Return cloth over rounded shoulders with faint folds, (3,h,w) linear."""
    n_u = clip(x * (1 / 130), -0.8, 0.8)
    n_v = -0.7 * bump(area.v - slope, 42.0)
    n_z = np.sqrt(np.maximum(1 - n_u * n_u - n_v * n_v, 0.1))
    lu, lv, lz = light.direction
    lambert = np.maximum((n_u * lu + n_v * lv + n_z * lz + 0.25) * 0.8, 0)
    folds = 0.84 + 0.32 * curl_noise(face.texture_seed // 3, area)
    base = linear(face.clothes_color)
    return (lambert * light.key + light.ambient) * (folds * 0.85) * base


def _draw_suit(color: Array, area: Region, x: Array, head: Head, light: Light) -> None:
    """Paint a white shirt with a tie between the lapels of a jacket."""
    depth = area.v - head.chin
    far = np.abs(x)
    exposure = light.ambient + 0.62 * light.key
    shirt = soft(30 - 0.33 * np.maximum(depth - 16, 0) - far, 1.4)
    tie_color = color[::-1] * 0.9 + 0.03 * exposure
    tie_half = np.where(depth < 26, 5.0 - 0.08 * depth, 2.9 + 0.08 * (depth - 26))
    tie = soft(tie_half - far, 1.2) * soft(depth - 17, 1.5)
    tie_tone = np.ascontiguousarray(tie_color) * (1 - 0.35 * (far * (1 / 9)) ** 2)
    collar = bump(far - 0.9 * (depth - 12), 2.0) * 0.28
    white = np.array([0.72, 0.73, 0.76], np.float32)[:, None, None] * exposure * (1 - collar)
    color += shirt * (white - color)
    color += tie * (tie_tone - color)
    lapel = bump(far - (31 - 0.33 * np.maximum(depth - 16, 0)), 1.8)
    color *= 1 - 0.4 * lapel
    color *= 1 - 0.25 * smooth(4 - depth + 14, 14)


def draw_necklace(canvas: Array, face: Face, head: Head, light: Light) -> None:
    """Paint a thin chain in the neckline; clothes other than a V-neck would cover it."""
    if not face.necklace or face.clothes != Clothes.V_NECK:
        return
    area = region(-34, 34, head.chin + 4, head.chin + 48)
    x = (area.u + 8 * head.sine) * (1 / 30)
    curve = head.chin + 30 - 20 * x * x
    fade = clip((1.0 - np.abs(x)) * 6, 0, 1)
    beads = 0.55 + 0.45 * np.cos(area.u * 2.1)
    blend(
        canvas,
        area,
        bump(area.v - curve, 1.5) * fade * 0.85,
        (0.35 + 0.6 * beads) * light.key * linear((0.95, 0.85, 0.6)),
    )
    darken(canvas, area, 0.3 * bump(area.v - curve - 1.8, 1.6) * fade)
