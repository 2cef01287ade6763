"""The skin of the head: light on its relief, occlusion, blush, freckles and folds; and the ears."""

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
    gaussians,
    linear,
    region,
    smooth,
    soft,
)
from gan_lightning.faces.head import Head, Surface
from gan_lightning.faces.parameters import Face

SCATTERING = (0.34, 0.2, 0.15)  # how far the light of each channel wraps around: red travels furthest under the skin


def shade(albedo: Array, normal: tuple[Array, Array, Array], light: Light, gloss: float) -> Array:
    """Return the light that skin reflects to the viewer.

    Args:
        albedo: (3,h,w) or (3,1,1), linear.
        normal: Unit normals, each (h,w).
        light: The scene's light.
        gloss: Strength of the soft highlight.

    Returns:
        (3,h,w) linear color.
    """
    n_u, n_v, n_z = normal
    lu, lv, lz = light.direction
    lambert = n_u * lu + n_v * lv + n_z * lz
    hu, hv, hz = light.halfway
    highlight = np.maximum(n_u * hu + n_v * hv + n_z * hz, 0)
    for _ in range(4):
        highlight *= highlight
    sky = 0.82 - 0.28 * n_v  # ambient light comes from above rather than from below
    glow = 1 - n_z  # at the outline
    glow *= glow
    glow *= 0.04
    highlight *= gloss
    glow += highlight
    result = np.empty((3, *lambert.shape), np.float32)
    for channel, wrap in enumerate(SCATTERING):
        strength = float(light.key[channel, 0, 0]) / (1 + wrap)
        diffuse = np.multiply(lambert, strength, out=result[channel])
        diffuse += strength * wrap
        np.maximum(diffuse, 0, out=diffuse)
        diffuse += sky * float(light.ambient[channel, 0, 0])
        diffuse *= albedo[channel]
        diffuse += glow
    return result


def draw_head(canvas: Array, face: Face, head: Head, shape: Surface, light: Light) -> None:
    """Paint the bare head."""
    area = shape.area
    redness = gaussians(area, _redness(face, head))
    albedo = np.empty((3, *redness.shape), np.float32)
    for channel, (tone, weight) in enumerate(zip(face.skin_color, (0.05, -0.2, -0.17), strict=True)):
        np.multiply(redness, weight * tone * tone, out=albedo[channel])
        albedo[channel] += tone * tone
    if face.freckles > 0:
        _add_freckles(albedo, face, head, area)
    oily = 0.05 + 0.05 * (1 - face.skin_tone) + 0.03 * face.skin_tone
    color = shade(albedo, shape.normal, light, oily)
    hollows = gaussians(area, _hollows(face, head, light))
    hollows = clip(hollows, 0, 0.85)
    for channel, weight in enumerate((0.78, 1.0, 1.06)):
        color[channel] *= 1 - weight * hollows
    blend(canvas, area, soft(shape.inside, 1.2), color)
    _draw_folds(canvas, face, head)


def _redness(face: Face, head: Head) -> Array:
    """Return the areas where blood shows, as Gaussians."""
    blush = (0.3 + 1.4 * face.blush) * (1 - 0.45 * face.skin_tone)
    rows = [
        (0.35, head.turn(0, 14), 6.0, head.nose_tip_v, 5.0),
        (0.2, head.turn(0, 7), 9.0, head.chin - 10, 6.0),
        (-0.25, 0.0, 24.0, -38.0, 12.0),
    ]
    for sign in (-1, 1):
        rows.append((blush, head.turn(sign * 26, -3), 9.0, 20.0, 6.5))
    return np.array(rows, np.float32)


def _hollows(face: Face, head: Head, light: Light) -> Array:
    """Return occlusion and the shadow that the nose casts, as Gaussians."""
    turn, nose = head.turn, head.nose_tip_v
    lateral = -light.direction[0]
    cast = 0.3 * abs(lateral) * face.light_contrast + 0.05
    below = 0.08 + 0.2 * max(-light.direction[1], 0.0)
    rows = [
        (below, turn(0, 7), 8.5 * face.nose_width, nose + 7.5, 3.0),
        (0.14, turn(0, 7), 9.0, head.mouth_v + 11, 2.8),
        (0.3, turn(-4.2 * face.nose_width, 9), 1.7, nose + 5.2, 1.2),
        (0.3, turn(4.2 * face.nose_width, 9), 1.7, nose + 5.2, 1.2),
        (cast, turn(0, 6) + 11 * lateral, 5.0, nose - 1, 8.0),
        (0.1, 0.0, 30.0, head.chin + 1, 5.0),
    ]
    for sign in (-1, 1):
        u, v = head.eye_center(face, sign)
        rows += [
            (0.15, turn(sign * 9.5, 1), 3.6, -3.5, 4.5),
            (0.16, u, 10.0, v - 5.0, 3.0),
            (0.1 + 0.16 * face.eye_bags, u, 7.5, v + 8.0, 2.0),
            (0.13, turn(sign * 8.2 * face.nose_width, 5), 2.4, nose - 3, 4.5),
            (0.12, turn(sign * (head.mouth_half + 2.5), -1), 2.6, head.mouth_v - 2.5 * face.smile, 3.2),
            (0.1, turn(sign * 40, -18), 8.0, 36.0, 20.0),
        ]
    return np.array(rows, np.float32)


def _add_freckles(albedo: Array, face: Face, head: Head, area: Region) -> None:
    """Paint small brown dots on nose and cheeks."""
    rng = np.random.default_rng(face.texture_seed + 1)
    count = 26
    rows = np.empty((count, 5), np.float32)
    rows[:, 0] = rng.uniform(0.1, 0.3, count) * min(face.freckles, 1.0)
    rows[:, 1] = head.turn(0, 5) + rng.normal(0, 14, count)
    rows[:, 3] = 15 + rng.normal(0, 5.5, count)
    rows[:, 2] = rows[:, 4] = rng.uniform(0.6, 1.0, count)
    dots = gaussians(area, rows)
    for channel, weight in enumerate((0.7, 1.0, 1.1)):
        albedo[channel] *= 1 - weight * dots


def _draw_folds(canvas: Array, face: Face, head: Head) -> None:
    """Paint the folds from the nose to the corners of the mouth, which smile and age deepen, and forehead lines."""
    depth = 0.06 + 0.2 * max(face.smile, 0.0) + 0.14 * face.age
    for sign in (-1, 1):
        start = head.turn(sign * 10.5 * face.nose_width, 4)
        end = head.turn(sign * (head.mouth_half + 4.5), 0)
        top, bottom = head.nose_tip_v, head.mouth_v + 1
        area = region(min(start, end) - 6, max(start, end) + 6, top - 4, bottom + 4)
        along = clip((area.v - top) / (bottom - top), 0, 1)
        path = start + (end - start) * along**0.8
        fade = bump(area.v - 0.5 * (top + bottom), 0.5 * (bottom - top) + 5)
        darken(canvas, area, depth * fade * bump(area.u - path, 4.0))
    if face.age > 0.45:
        for line in range(3):
            area = region(-26, 26, -38 + 7 * line - 5, -38 + 7 * line + 5)
            bend = area.v - (-38 + 7 * line) - 2 * np.cos(area.u * 0.1)
            fade = bump(area.u, 26.0)
            darken(canvas, area, 0.22 * (face.age - 0.45) * fade * bump(bend, 2.2))


def draw_ears(canvas: Array, face: Face, head: Head, light: Light) -> None:
    """Paint the ears; when the head is turned, the cheek hides the far one."""
    skin = linear(face.skin_color)
    for sign in (-1, 1):
        u = head.axis_at(10.0) + sign * (head.half_width - 0.5 - 6 * sign * head.sine)
        area = region(u - 11, u + 11, -12, 32)
        x = (area.u - u + 0.1 * sign * (area.v - 10)) * (1 / 6.2)
        y = (area.v - 9.0) * (1 / 15.5)
        taper = 1 + 0.25 * clip(y, -1, 1)
        level = (x * taper) ** 2 + y * y
        z = np.sqrt(np.maximum(1.02 - level, 0.02))
        normal = (0.8 * x, 0.5 * y, z)
        length = 1 / np.sqrt(normal[0] ** 2 + normal[1] ** 2 + z * z)
        color = shade(
            skin * np.array([1.02, 0.9, 0.88], np.float32)[:, None, None],
            (normal[0] * length, normal[1] * length, z * length),
            light,
            0.03,
        )
        inner = bump(x * taper + 0.15 * sign, 0.62) * bump(y + 0.1, 0.75)
        for channel, weight in enumerate((0.4, 0.55, 0.6)):
            color[channel] *= 1 - weight * inner
        blend(canvas, area, soft((1 - np.sqrt(level)) * 9.0, 1.2), color)


def draw_neck(canvas: Array, face: Face, head: Head, light: Light) -> None:
    """Paint the neck, a column that widens into the shoulders, in the shadow of the chin."""
    half = (25.0 if face.masculine else 20.5) * (0.6 + 0.4 * face.face_width) + 4 * face.fullness
    area = region(-half - 34, half + 34, 30, 124)
    middle = -8.0 * head.sine
    spread = clip(area.v - (head.chin + 8), 0, np.inf)
    width = half + 0.035 * spread * spread
    x = (area.u - middle) / width
    normal_u = clip(x, -0.97, 0.97)
    normal_z = np.sqrt(1 - normal_u * normal_u)
    normal = (normal_u, np.full_like(normal_u, 0.05), normal_z)
    color = shade(linear(face.skin_color) * 0.92, normal, light, 0.02)
    slant = 10 * light.direction[0]
    jaw = np.sqrt(clip(1 - ((area.u - middle + slant) / (head.half_width * 1.05)) ** 2, 0, 1))
    edge = head.chin - 46 + 64 * jaw - area.v  # shadow of the jaw on the neck
    shadow = (0.42 + 0.2 * face.light_contrast) * smooth(edge, 16)
    muscle = 0.1 * bump(np.abs(area.u - middle) - 0.62 * half + 0.22 * clip(area.v - head.chin, 0, 40), 6.0)
    for channel, weight in enumerate((0.85, 1.0, 1.04)):
        color[channel] *= (1 - weight * shadow) * (1 - muscle)
    blend(canvas, area, soft((1 - np.abs(x)) * half, 1.2), color)
