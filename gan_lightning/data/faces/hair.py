"""Hair as a volume around the skull: a layer behind the head, a layer in front of it, and beards on the skin."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gan_lightning.data.faces.canvas import ORIGIN_Y, Array, Light, Region, blend, bump, darken, linear, region, smooth, soft
from gan_lightning.data.faces.head import Head, Surface
from gan_lightning.data.faces.parameters import Beard, Face, HairStyle, HairTexture, Hat
from gan_lightning.data.faces.strands import curl_noise, fine_noise, puff_noise, strand_noise

_SPRING = -14.0  # height of the skull's middle, from which the hair's dome rises


@dataclass(frozen=True)
class Shape:
    """Measures of the hair, in pixels of the face's frame."""

    half_width: float
    top: float
    end: float  # where the hair ends below
    flare: float  # widening towards the end
    hairline: float  # height of the forehead's edge
    opening: float  # half of the width that it leaves to the face

    @classmethod
    def of(cls, face: Face, head: Head) -> Shape:
        """The measures of a face's hair; a hat presses it flat."""
        style, volume = face.hair_style, face.hair_volume
        curly = face.hair_texture == HairTexture.CURLY
        lift = {HairStyle.SHORT: 5 + 10 * volume, HairStyle.TIED: 5 + 4 * volume}.get(style, 6 + 7 * volume)
        side = {HairStyle.SHORT: 1.5 + 2.5 * volume, HairStyle.TIED: 1.0 + volume}.get(style, 5 + 6 * volume)
        if curly:
            lift, side = lift * 1.4, side * 1.7 + 1
        if face.hat != Hat.NONE:
            lift, side = 2.0, min(side, 4.0)
        end = {HairStyle.BOB: 52 + 22 * volume, HairStyle.LONG: 150.0}.get(style, 12.0)
        high = -46.0 - 4 * head.nod
        return cls(
            half_width=head.half_width + side,
            top=head.top - lift,
            end=end,
            flare={HairStyle.BOB: 3 + 4 * volume, HairStyle.LONG: 5 + 9 * volume}.get(style, 0.0) * (1.5 if curly else 1),
            hairline=high - 15 * face.receding * (not face.bangs),
            opening=head.half_width - (4.5 if style in (HairStyle.BOB, HairStyle.LONG) else 2.0),
        )


@dataclass(frozen=True)
class _Dome:
    """The hair's outer form over a region."""

    area: Region
    inside: Array  # signed distance to the outline
    x: Array  # across, -1 to 1
    rise: Array  # (height, 1) 0 at the spring line, 1 at the top


def _dome(face: Face, head: Head, shape: Shape) -> _Dome:
    """A dome over the skull that goes on straight, or flaring, to the hair's end."""
    reach = shape.half_width + shape.flare + 6
    area = region(-reach - 9, reach + 9, shape.top - 4, min(shape.end + 8, 140.0))
    rise = np.clip((_SPRING - area.v) / (_SPRING - shape.top), 0, 1.2)
    fall = np.clip((area.v - _SPRING) / 90.0, 0, 1.2)
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
        inside -= 9 * np.clip(fall - 0.3, 0, 0.5) * strand_noise(x * 700, face.texture_seed + 9)
    return _Dome(area, inside, x, rise)


def _hairline(face: Face, head: Head, shape: Shape, u: Array) -> Array:
    """Height of the forehead's edge over u: parted, swept, fringed or receding."""
    x = (u - head.turn(0, -4)) * (1 / shape.opening)
    line = np.full_like(x, shape.hairline)
    if face.bangs:
        jag = strand_noise(x * 210, face.texture_seed + 5) - 0.5
        return line + 28 + 5 * jag - 4 * np.abs(x - face.hair_part) + 5 * x * x
    away = x - face.hair_part
    sweep = (4 + 13 * face.hair_sweep) * (0.45 if face.hair_style == HairStyle.SHORT else 1.0)
    if face.hair_style == HairStyle.TIED:
        sweep *= 0.3
    longer = np.where(away * face.hair_part < 0, 1.0, 0.45)  # the hair crosses to the side far from the part
    line += sweep * longer * np.minimum(np.abs(away), 1.2) ** 1.5
    line -= 12 * face.receding * bump(np.abs(x) - 0.6, 0.45)
    ragged = 7.0 if face.hair_style == HairStyle.SHORT else 2.5
    return line + ragged * (strand_noise(x * 420, face.texture_seed + 3) - 0.5)


def _uncovered(face: Face, head: Head, shape: Shape, dome: _Dome) -> Array:
    """Signed distance into the opening that shows the face: positive on the face, negative in hair."""
    area = dome.area
    v = area.v
    line = _hairline(face, head, shape, area.u)
    spring = 6.0
    height = np.clip((spring - v) / (spring - line), 0, 1.6)
    middle = head.axis(v) * 0.6 + head.turn(0, -6) * 0.4
    width = np.full_like(v, shape.opening)
    if face.hair_style in (HairStyle.BOB, HairStyle.LONG):
        width = width - (2 + 5 * face.hair_sweep) * bump(v - 52, 55.0)
        if face.hair_texture == HairTexture.WAVY:
            width = width + 2.2 * np.sin(v * 0.17 + face.texture_seed % 7)
    x = np.abs((area.u - middle) / width)
    level = x * x * x + height * height * height
    opening = (1 - np.sqrt(level)) * 30.0
    if face.hair_texture == HairTexture.CURLY:
        opening += 7 * (puff_noise(face.texture_seed + 2, area) - 0.5)
    return opening


def _color(face: Face, dome: _Dome, light: Light, depth: float) -> Array:
    """Lit hair: strands that run from the crown, a band of gloss, dark where it turns away; (3,h,w) linear."""
    v, x, rise = dome.area.v, dome.x, dome.rise
    if face.hair_texture == HairTexture.CURLY:
        strands = 0.75 * curl_noise(face.texture_seed, dome.area) + 0.25 * fine_noise(face.texture_seed, dome.area)
    else:
        across = x / np.sqrt(np.maximum(1.02 - rise * rise, 0.12))
        drift = 0.05 * face.hair_part * rise
        if face.hair_texture == HairTexture.WAVY:
            drift = drift + 0.055 * np.sin(v * 0.15 + 5 * face.hair_part) * np.clip((v + 60) / 60, 0.15, 1)
        if face.hair_style == HairStyle.SHORT:  # combed to a side over the top
            across = 1.1 * rise - 0.6 * math.copysign(1.0, face.hair_part) * x + 0.4 * x * x
        strands = strand_noise((across + drift) * 330, face.texture_seed)
    n_u, n_v = np.clip(x, -1, 1), -0.95 * rise
    n_z = np.sqrt(np.maximum(1.05 - n_u * n_u - n_v * n_v, 0.03))
    lu, lv, lz = light.direction
    lambert = np.maximum((n_u * lu + n_v * lv + n_z * lz + 0.3) * (1 / 1.3), 0)
    gloss_height = -lv * 0.75 + 0.08 - 0.12 * (strands - 0.5)
    gloss = bump(rise - gloss_height, 0.3) * n_z * (0.25 + 1.5 * strands * strands)
    gloss *= (0.35 if face.hair_texture == HairTexture.CURLY else 1.0) * 0.16
    body = (0.42 + 1.05 * strands) * depth
    base = linear(face.hair_color)
    color = np.empty((3, *lambert.shape), np.float32)
    for channel in range(3):
        lit = float(light.ambient[channel, 0, 0]) * 0.9 + float(light.key[channel, 0, 0]) * lambert
        tone = float(base[channel, 0, 0])
        color[channel] = body * lit * tone + gloss * lambert * (0.2 + 1.5 * tone) * depth
    return color


def draw_back(canvas: Array, face: Face, head: Head, light: Light) -> None:
    """Hair behind neck and shoulders."""
    if face.hair_style not in (HairStyle.BOB, HairStyle.LONG):
        return
    shape = Shape.of(face, head)
    dome = _dome(face, head, shape)
    blend(canvas, dome.area, soft(dome.inside, 1.6), _color(face, dome, light, 0.5))


def draw_front(canvas: Array, face: Face, head: Head, skull: Surface, light: Light) -> None:
    """Hair over skull and temples, open where the face is, and its shadow on the skin."""
    if face.hair_style == HairStyle.BALD:
        return
    shape = Shape.of(face, head)
    dome = _dome(face, head, shape)
    uncovered = _uncovered(face, head, shape, dome)
    _keep_on_head(uncovered, dome.area, skull)
    v = dome.area.v
    if face.hair_style in (HairStyle.SHORT, HairStyle.TIED):
        np.maximum(uncovered, (v - (5 if face.hair_style == HairStyle.SHORT else -4)) * 0.5, out=uncovered)
    mask = soft(dome.inside, 1.6) * smooth(-uncovered, 2.6 if face.hair_style != HairStyle.SHORT else 5.0)
    shadow = bump(np.maximum(uncovered, 0), 11.0) * soft(dome.inside, 2.0)
    darken(canvas, dome.area, (0.3 + 0.12 * face.light_contrast) * shadow)
    color = _color(face, dome, light, 1.0)
    color *= 1 - 0.35 * bump(uncovered + 2, 7.0)  # strands lie deeper at the edge
    blend(canvas, dome.area, mask, color)


def draw_beard(canvas: Array, face: Face, head: Head, shape: Surface, light: Light) -> None:
    """Stubble, moustache, goatee, full beard and sideburns, on skin and a little beyond it."""
    if face.beard == Beard.NONE and not face.sideburns:
        return
    area = region(-head.half_width - 6, head.half_width + 6, -8, head.chin + 12)
    inside = shape.inside[_within(area.rows, shape.area.rows), _within(area.columns, shape.area.columns)]
    cover = _beard_cover(face, head, area)
    grown = 5.0 if face.beard == Beard.FULL else 0.5
    edge = soft(inside + grown, 4.0)
    hairs = fine_noise(face.texture_seed + 3, area)
    stubble = face.beard == Beard.STUBBLE
    density = (0.42 if stubble else 0.94) * np.clip(cover * (0.78 + 0.44 * hairs), 0, 1)
    lambert = np.maximum(light.direction[0] * area.u * (1 / head.half_width) + 0.55 * light.direction[2] + 0.25, 0.05)
    lit = float(light.ambient.mean()) + 0.8 * float(light.key.mean()) * lambert
    tone = linear(face.hair_color) * (0.7 + 0.6 * hairs) * lit
    if stubble:
        tone = tone * 0.7 + 0.25 * linear(face.skin_color) * lit * np.array([0.8, 0.9, 1.0], np.float32)[:, None, None]
    blend(canvas, area, density * edge, tone)


def _keep_on_head(uncovered: Array, area: Region, skull: Surface) -> None:
    """Let the face's opening end at the head's outline: beside it, above the ears, hair goes on."""
    top, bottom = max(area.rows.start, skull.area.rows.start), min(area.rows.stop, ORIGIN_Y + 12)
    left = max(area.columns.start, skull.area.columns.start)
    right = min(area.columns.stop, skull.area.columns.stop)
    rows, columns = slice(top, bottom), slice(left, right)
    seen = uncovered[_within(rows, area.rows), _within(columns, area.columns)]
    solid = skull.inside[_within(rows, skull.area.rows), _within(columns, skull.area.columns)]
    release = 2 * np.clip(ORIGIN_Y - 14 - np.arange(top, bottom, dtype=np.float32), None, 0)[:, None]  # at the ears
    np.minimum(seen, solid - 1.5 - release, out=seen)


def _within(inner: slice, outer: slice) -> slice:
    """A slice of the canvas as a slice of an array that covers `outer`."""
    return slice(inner.start - outer.start, inner.stop - outer.start)


def _beard_cover(face: Face, head: Head, area: Region) -> Array:
    """Where hair grows, 0 to 1."""
    u, v = area.u - head.turn(0, 3), area.v
    x = np.abs(u) * (1 / head.half_width)
    mouth, half = head.mouth_v, head.mouth_half
    corner_v = mouth - 4.2 * face.smile
    lip_gap = smooth(1.0 - np.sqrt((u * (1 / (half + 1))) ** 2 + ((v - mouth - 2) * (1 / 7.0)) ** 2), 0.35)
    upper = bump(v - (mouth - 8.2) - 2.2 * (u * (1 / half)) ** 2, 4.6) * smooth(half + 4 - np.abs(u), 5.0)
    upper = upper * (1 - 0.25 * bump(u, 2.0))
    cover = np.zeros(np.broadcast_shapes(u.shape, v.shape), np.float32)
    if face.beard in (Beard.MUSTACHE, Beard.GOATEE, Beard.FULL, Beard.STUBBLE):
        cover = np.maximum(cover, upper)
    if face.beard == Beard.GOATEE:
        ring = smooth(half + 3.5 - np.abs(u) - 0.12 * np.maximum(v - mouth - 8, 0), 5.0) * smooth(v - corner_v + 1, 6.0)
        cover = np.maximum(cover, ring)
    if face.beard in (Beard.FULL, Beard.STUBBLE):
        line = mouth - 2 - 34 * np.maximum(x - 0.42, 0) ** 1.3 * 1.7
        cover = np.maximum(cover, smooth(v - line - 2, 9.0))
    cover = cover * (1 - lip_gap)
    if face.sideburns:
        side = smooth(x - 0.83, 0.14) * smooth(28 - v, 12.0) * smooth(v + 6, 6.0)
        cover = np.maximum(cover, side)
    return cover
