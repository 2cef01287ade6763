"""Eyes and brows."""

from __future__ import annotations

import numpy as np

from gan_lightning.faces.canvas import (
    Array,
    Light,
    Region,
    blend,
    bump,
    clip,
    darken,
    linear,
    region,
    smooth,
    soft,
)
from gan_lightning.faces.head import Head
from gan_lightning.faces.parameters import Face, Glasses
from gan_lightning.faces.strands import fine_noise


def draw_eyes(canvas: Array, face: Face, head: Head, light: Light) -> None:
    """Paint both eyes with lids, lashes and shadow, and both brows."""
    for sign in (-1, 1):
        if face.glasses != Glasses.SUN:
            _draw_eye(canvas, face, head, light, sign)
        _draw_brow(canvas, face, head, sign)


def _draw_eye(canvas: Array, face: Face, head: Head, light: Light, sign: int) -> None:
    """Paint one eye: the eyeball between two lid curves, then lashes and creases on the skin around it."""
    u, v = head.eye_center(face, sign)
    half = 10.8 * face.eye_size * head.side(sign)
    area = region(u - 17, u + 17, v - 13, v + 13)
    x = (area.u - u) * (sign / half)  # -1 inner corner, 1 outer corner
    y = area.v - v + face.eye_tilt * half * x
    opened = face.eye_openness * face.eye_size
    arc = np.maximum(1 - x * x, 0)
    upper = -5.4 * opened * arc**0.75 * (1 - 0.12 * x)
    lower = 3.5 * (0.6 + 0.4 * opened - 0.18 * max(face.smile, 0.0)) * arc * (1 + 0.18 * x)
    within = bump(x, 1.35)
    _draw_lids(canvas, face, area, x, y - upper, y - lower, within)
    mask = soft(np.minimum(y - upper, lower - y) - 0.1, 1.1) * soft((1 - np.abs(x)) * half, 1.0)
    ball = _eyeball(face, light, area, u, v, sign, half, y - upper)
    blend(canvas, area, mask, ball)
    made_up = max(face.eye_shadow, 0.6 * face.lipstick)
    heavy = (0.3 if face.masculine else 0.55) + 0.3 * made_up
    thickness = 1.75 + 0.5 * made_up
    wing = clip(1.02 + 0.12 * made_up - np.abs(x), 0, 0.12) * (1 / 0.12)
    lash = bump(y - upper + 0.3 + 0.25 * clip(x, 0, 1.2) * heavy, thickness + 0.3 * heavy) * wing * (0.85 + 0.2 * x)
    darken(canvas, area, clip(lash * (0.66 + 0.4 * heavy), 0, 0.94), (1.0, 1.0, 1.0))
    low = bump(y - lower - 0.2, 1.2) * wing * (0.3 + 0.2 * x) * (0.5 + 0.6 * heavy)
    darken(canvas, area, clip(low, 0, 0.9))


def _draw_lids(canvas: Array, face: Face, area: Region, x: Array, above: Array, below: Array, within: Array) -> None:
    """Paint the crease above the upper lid, the eye shadow on it, and the bag under the lower lid."""
    crease_height = 3.0 + 0.8 * face.eye_openness
    crease = bump(above + crease_height, 1.9) * within * (0.4 + 0.25 * x)
    darken(canvas, area, clip(0.62 * face.lid_fold * crease, 0, 0.8))
    if face.eye_shadow > 0:
        spread = bump(np.minimum(above + 1.0, 0), 8.5) * bump(x - 0.12, 1.45) * soft(-above + 1, 2.0)
        patch = canvas[:, area.rows, area.columns]
        tone = linear(face.eye_shadow_color) * (0.35 + 0.9 * patch.mean(axis=0))
        blend(canvas, area, 0.55 * face.eye_shadow * spread, tone)
    if face.eye_bags > 0.05:
        fold = bump(below - 5.5, 1.8) * within
        darken(canvas, area, 0.3 * min(face.eye_bags, 1.2) * fold)


def _eyeball(
    face: Face, light: Light, area: Region, u: float, v: float, sign: int, half: float, below_lid: Array
) -> Array:
    """Return white, iris, pupil and highlight, in the shadow of the upper lid: (3,h,w) linear."""
    du = area.u - (u + 2.2 * face.gaze_x - 0.2 * sign)
    dv = area.v - (v - 0.9 + 1.2 * face.gaze_y)
    radius = np.sqrt(du * du + dv * dv)
    iris = 4.7 * (0.5 + 0.5 * face.eye_size)
    round_off = ((area.u - u) * (1 / half)) ** 2
    exposure = float(light.ambient.mean()) + 0.62 * float(light.key.mean()) * max(light.direction[2], 0.3)
    white = np.array([0.66, 0.6, 0.57], np.float32)[:, None, None] * exposure * (1.0 - 0.42 * round_off)
    color = np.broadcast_to(white, (3, *radius.shape)).copy()
    ring = bump(radius - iris, 1.3)
    glow = 0.75 + 0.75 * clip(dv * (1 / iris), -0.6, 1.0)  # light crosses the lens to the opposite side of the iris
    tone = linear(face.eye_color) * (1.25 * glow * (1 - 0.62 * ring) * max(exposure, 0.5))
    blend_mask = soft(iris - radius, 1.3)
    color += blend_mask * (tone - color)
    color *= 1 - 0.93 * soft(1.9 - radius, 1.2)
    color *= 1 - 0.6 * bump(np.minimum(below_lid, 5.0), 4.2) * soft(below_lid + 1, 1.0)
    glint = bump(np.hypot(du - 1.5 * np.sign(light.direction[0] + 0.01), dv + 1.5), 1.5)
    color += 0.85 * glint
    return color


def _draw_brow(canvas: Array, face: Face, head: Head, sign: int) -> None:
    """Paint one brow: soft hairs along an arched band that thins outwards."""
    middle = head.turn(sign * 21.0 * face.eye_spacing, -1)
    half = 12.4 * head.side(sign)
    v0 = -12.6 - face.brow_height - 0.9 * face.brow_raise - (0.0 if face.masculine else 1.0)
    area = region(middle - 18, middle + 18, v0 - 12, v0 + 11)
    x = (area.u - middle) * (sign / half)
    arch = (
        -3.6 * face.brow_arch * bump(x - 0.35, 1.3) + 1.6 * clip(x - 0.2, 0, np.inf) ** 2 + 0.5 * x * -face.brow_raise
    )
    thickness = (
        (3.1 if face.masculine else 2.3)
        * face.brow_thickness
        * (0.95 - 0.3 * x - 0.3 * np.maximum(-x - 0.3, 0))
        * clip((1.15 - np.abs(x)) * 3, 0, 1)
    )
    ends = smooth((1.0 - x) * half, 6.0) * smooth((0.92 + x) * half, 7.0)
    hairs = fine_noise(face.texture_seed + 11 * sign + 11, area)
    strength = (0.8 if face.masculine else 0.74) + 0.16 * min(face.brow_thickness - 1, 0.5)
    mask = bump((area.v - v0 - arch) / (1.25 * thickness + 0.6), 1.0) * ends * (0.85 + 0.32 * hairs) * strength
    shade = linear(face.hair_color) * 0.4 + 0.07 * linear(face.skin_color) * (1 - face.skin_tone)
    blend(canvas, area, clip(mask, 0, 0.92), shade * 0.75)
