"""Hair as a volume around the skull: one layer behind the head, and one in front of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gan_lightning.faces.canvas import (
    ORIGIN_Y,
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
    within,
)
from gan_lightning.faces.head import Head, Surface
from gan_lightning.faces.parameters import Face, HairStyle, HairTexture, Hat
from gan_lightning.faces.strands import curl_noise, fine_noise, puff_noise, strand_noise

_SPRING = -14.0  # height of the middle of the skull, where the dome of the hair begins


@dataclass(frozen=True)
class Shape:
    """Dimensions of the hair, in pixels in the frame of the face."""

    half_width: float
    top: float
    end: float  # lower end of the hair
    flare: float  # widening towards the end
    hairline: float  # height of the upper edge of the forehead
    opening: float  # half of the width in which the face is visible

    @classmethod
    def of(cls, face: Face, head: Head) -> Shape:
        """Return the dimensions of the hair of a face; a hat flattens it."""
        style, volume = face.hair_style, face.hair_volume
        curly = face.hair_texture == HairTexture.CURLY
        lift = {HairStyle.SHORT: 7 + 10 * volume, HairStyle.TIED: 6 + 4 * volume}.get(style, 8 + 8 * volume)
        side = {HairStyle.SHORT: 1.5 + 2.5 * volume, HairStyle.TIED: 1.0 + volume}.get(style, 5 + 6 * volume)
        if curly:
            lift, side = lift * 1.4, side * 1.7 + 1
        if face.hat != Hat.NONE:
            lift, side = 2.0, min(side, 4.0)
        end = {HairStyle.BOB: 52 + 22 * volume, HairStyle.LONG: 150.0}.get(style, 34.0)
        high = -46.0 - 4 * head.nod
        return cls(
            half_width=head.half_width + side,
            top=head.top - lift,
            end=end,
            flare={HairStyle.BOB: 3 + 4 * volume, HairStyle.LONG: 5 + 9 * volume}.get(style, 0.0)
            * (1.5 if curly else 1),
            hairline=high - 15 * face.receding * (not face.bangs),
            opening=head.half_width - (4.5 if style in (HairStyle.BOB, HairStyle.LONG) else 2.0),
        )


@dataclass(frozen=True)
class Dome:
    """The outer shape of the hair over a region."""

    area: Region
    inside: Array  # signed distance to the outline
    x: Array  # across, -1 to 1
    rise: Array  # (height,1), 0 at the spring line, 1 at the top


def _dome(face: Face, head: Head, shape: Shape) -> Dome:
    """Return a dome over the skull that continues, straight or flaring, to the end of the hair."""
    reach = shape.half_width + shape.flare + 6
    area = region(-reach - 9, reach + 9, shape.top - 4, min(shape.end + 8, 124.0))
    rise = clip((_SPRING - area.v) / (_SPRING - shape.top), 0, 1.2)
    fall = clip((area.v - _SPRING) / 90.0, 0, 1.2)
    width = shape.half_width + shape.flare * fall * fall * (3 - 2 * np.minimum(fall, 1))
    if face.hair_texture == HairTexture.WAVY:
        width = width + (1 + shape.flare * 0.15) * np.sin(area.v * 0.16 + face.hair_part * 9) * np.minimum(fall * 3, 1)
    x = (area.u - head.axis(np.minimum(area.v, 10.0))) / width
    radius = np.sqrt(x * x + rise**2.2)
    inside = (1 - radius) * (0.5 * shape.half_width + 0.5 * (_SPRING - shape.top))
    np.minimum(inside, shape.end - area.v + 5 * (1 - x * x), out=inside)
    if face.hair_texture == HairTexture.CURLY:
        inside += 9 * (puff_noise(face.texture_seed, area) - 0.5)
    else:
        ragged = 2.0 + (4.0 + 3 * face.hair_volume) * (face.hair_style == HairStyle.SHORT) * np.minimum(rise, 1)
        inside += ragged * (strand_noise(x * 420, face.texture_seed) - 0.5)
        inside -= 6 * clip(fall - 0.3, 0, 0.5) * strand_noise(x * 260, face.texture_seed + 9)
    return Dome(area, inside, x, rise)


def _hairline(face: Face, head: Head, shape: Shape, u: Array) -> Array:
    """Return the height of the hairline over u: parted, swept, fringed or receding."""
    x = (u - head.turn(0, -4)) * (1 / shape.opening)
    line = np.full_like(x, shape.hairline)
    if face.bangs:
        jag = strand_noise(x * 210, face.texture_seed + 5) - 0.5
        line += 28 + 5 * jag - 4 * np.abs(x - face.hair_part) + 5 * x * x
        return line
    away = x - face.hair_part
    sweep = (4 + 13 * face.hair_sweep) * (0.45 if face.hair_style == HairStyle.SHORT else 1.0)
    if face.hair_style == HairStyle.TIED:
        sweep *= 0.3
    longer = np.where(away * face.hair_part < 0, 1.0, 0.45)  # hair crosses to the side away from the part
    line += sweep * longer * np.minimum(np.abs(away), 1.2) ** 1.5
    line -= 12 * face.receding * bump(np.abs(x) - 0.6, 0.45)
    ragged = 7.0 if face.hair_style == HairStyle.SHORT else 2.5
    line += ragged * (strand_noise(x * 420, face.texture_seed + 3) - 0.5)
    return line


def _uncovered(face: Face, head: Head, shape: Shape, dome: Dome) -> Array:
    """Return the signed distance into the opening that shows the face: positive on the face, negative in the hair."""
    area = dome.area
    v = area.v
    line = _hairline(face, head, shape, area.u)
    spring = 6.0
    height = clip((spring - v) / (spring - line), 0, 1.6)
    middle = head.axis(v) * 0.6 + head.turn(0, -6) * 0.4
    width = np.full_like(v, shape.opening)
    if face.hair_style in (HairStyle.BOB, HairStyle.LONG):
        width = width - (2 + 5 * face.hair_sweep) * bump(v - 52, 55.0)
        if face.hair_texture == HairTexture.WAVY:
            width = width + 2.2 * np.sin(v * 0.17 + face.texture_seed % 7)
    x = np.abs((area.u - middle) / width)
    level = x * x * x + height * height * height
    opening: Array = (1 - np.sqrt(level)) * 30.0
    if face.hair_texture == HairTexture.CURLY:
        opening += 7 * (puff_noise(face.texture_seed + 2, area) - 0.5)
    return opening


def _color(face: Face, dome: Dome, light: Light) -> Array:
    """Return lit hair, (3,h,w) linear: strands from the crown, a band of gloss, and dark edges."""
    v, x, rise = dome.area.v, dome.x, dome.rise
    if face.hair_texture == HairTexture.CURLY:
        strands = (
            0.2 + 0.45 * curl_noise(face.texture_seed, dome.area) + 0.15 * fine_noise(face.texture_seed, dome.area)
        )
    else:
        across = x * (1 / np.sqrt(np.maximum(1.02 - rise * rise, 0.12)))
        drift = 0.05 * face.hair_part * rise
        if face.hair_texture == HairTexture.WAVY:
            drift = drift + 0.055 * np.sin(v * 0.15 + 5 * face.hair_part) * clip((v + 60) / 60, 0.15, 1)
        if face.hair_style == HairStyle.SHORT:  # combed to one side over the top
            across = 1.1 * rise - 0.6 * math.copysign(1.0, face.hair_part) * x + 0.4 * x * x
        strands = strand_noise((across + drift) * 330, face.texture_seed)
    n_u, n_v = clip(x, -1, 1), -0.95 * rise
    n_z = np.sqrt(np.maximum(1.05 - n_u * n_u - n_v * n_v, 0.03))
    lu, lv, lz = light.direction
    lambert = np.maximum((n_u * lu + n_v * lv + n_z * lz + 0.3) * (1 / 1.3), 0)
    gloss_height = -lv * 0.75 + 0.08 - 0.12 * (strands - 0.5)
    gloss = bump(rise - gloss_height, 0.3) * n_z * (0.25 + 1.5 * strands * strands)
    gloss *= (0.6 if face.hair_texture == HairTexture.CURLY else 1.0) * 0.16
    body = 0.42 + 1.05 * strands
    gloss *= lambert
    lit = body * lambert
    base = linear(face.hair_color)
    color = np.empty((3, *lambert.shape), np.float32)
    for channel in range(3):
        tone = float(base[channel, 0, 0])
        np.multiply(body, 0.9 * tone * float(light.ambient[channel, 0, 0]), out=color[channel])
        color[channel] += lit * (tone * float(light.key[channel, 0, 0]))
        color[channel] += gloss * (0.2 + 1.5 * tone)
    return color


@dataclass(frozen=True)
class Hair:
    """Hair of one face, ready to be blended behind and in front of the head."""

    shape: Shape
    dome: Dome
    color: Array  # (3,h,w) linear

    @classmethod
    def of(cls, face: Face, head: Head, light: Light) -> Hair | None:
        """Return the hair of a face, or None if the face has none."""
        if face.hair_style == HairStyle.BALD:
            return None
        shape = Shape.of(face, head)
        dome = _dome(face, head, shape)
        return cls(shape, dome, _color(face, dome, light))


def draw_back(canvas: Array, face: Face, hair: Hair) -> None:
    """Paint the hair behind neck and shoulders, which receives little light."""
    if face.hair_style in (HairStyle.BOB, HairStyle.LONG):
        area = hair.dome.area
        skip = ORIGIN_Y - 10 - area.rows.start  # above it, the head and the front layer cover the hair
        lower = area._replace(rows=slice(area.rows.start + skip, area.rows.stop), v=area.v[skip:])
        blend(canvas, lower, soft(hair.dome.inside[skip:], 1.6), hair.color[:, skip:] * 0.5)


def draw_front(canvas: Array, face: Face, head: Head, skull: Surface, hair: Hair) -> None:
    """Paint the hair over skull and temples, open at the face, and its shadow on the skin."""
    dome = hair.dome
    uncovered = _uncovered(face, head, hair.shape, dome)
    _keep_on_head(uncovered, dome.area, skull)
    edge = 2.6
    if face.hair_style in (HairStyle.SHORT, HairStyle.TIED):  # the hair fades out beside the ears
        end = 5 if face.hair_style == HairStyle.SHORT else -4
        np.maximum(uncovered, (dome.area.v - end) * 0.5, out=uncovered)
        edge = 5.0 if face.hair_style == HairStyle.SHORT else edge
    covers = soft(dome.inside, 1.6)
    side = dome.area.u.shape[1] // 5  # there is no skin beside the face
    inner = dome.area._replace(columns=slice(dome.area.columns.start + side, dome.area.columns.stop - side))
    darken(canvas, inner, (0.36 * covers[:, side:-side]) * bump(np.maximum(uncovered[:, side:-side], 0), 11.0))
    color = hair.color
    color *= 1 - 0.35 * bump(uncovered + 2, 7.0)  # strands lie deeper at the edge
    covers *= smooth(-uncovered, edge)
    blend(canvas, dome.area, covers, color)


def _keep_on_head(uncovered: Array, area: Region, skull: Surface) -> None:
    """End the opening of the face at the outline of the head; hair continues beside it, above the ears."""
    top, bottom = max(area.rows.start, skull.area.rows.start), min(area.rows.stop, ORIGIN_Y + 24)
    left = max(area.columns.start, skull.area.columns.start)
    right = min(area.columns.stop, skull.area.columns.stop)
    rows, columns = slice(top, bottom), slice(left, right)
    seen = uncovered[within(rows, area.rows), within(columns, area.columns)]
    solid = skull.inside[within(rows, skull.area.rows), within(columns, skull.area.columns)]
    release = 0.5 * clip(ORIGIN_Y - 6 - np.arange(top, bottom, dtype=np.float32), -np.inf, 0)[:, None]  # at the ears
    np.minimum(seen, solid - 4 - release, out=seen)
