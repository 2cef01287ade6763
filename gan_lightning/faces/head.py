"""The shape of the head: its outline, its relief, and the positions of the features when it is turned."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gan_lightning.faces.canvas import EYE_X, Array, Region, clip, gaussian_slopes, region
from gan_lightning.faces.parameters import Face

CHEEK_V = 8.0  # height at which the face is widest
EYE_DEPTH = 31.0  # distance of the eyes in front of the axis of rotation of the head


@dataclass(frozen=True)
class Head:
    """Dimensions of one head, in pixels in the frame of the face."""

    half_width: float
    top: float
    chin: float
    sine: float  # sine of the yaw
    cosine: float
    nod: float  # sine of the pitch
    nose_tip_v: float
    mouth_v: float
    mouth_half: float

    @classmethod
    def of(cls, face: Face) -> Head:
        """Return the dimensions of the head of a face."""
        length = face.face_length
        open_drop = 3.0 * face.mouth_open
        nod = math.sin(face.pitch)
        return cls(
            half_width=42.0 * face.face_width + 2.5 * face.fullness,
            top=-64.0 * length,
            chin=70.0 * length + open_drop + 1.5 * face.fullness + 4 * nod,
            sine=math.sin(face.yaw),
            cosine=math.cos(face.yaw),
            nod=nod,
            nose_tip_v=23.0 * face.nose_length + 14 * nod,
            mouth_v=40.5 * (0.5 + 0.5 * length) + 8 * nod,
            mouth_half=(15.0 if face.masculine else 14.2) * face.mouth_width * (1 + 0.25 * max(face.smile, 0.0)),
        )

    def turn(self, x: float, z: float) -> float:
        """Return u, after the yaw, of a point x to the right of the middle of the face and z in front of the eyes."""
        return x * self.cosine + z * self.sine

    def side(self, sign: int) -> float:
        """Return the foreshortening of one side of the face (-1 left, 1 right in the image)."""
        return self.cosine - 0.35 * sign * self.sine

    def axis(self, v: Array) -> Array:
        """Return the middle of the outline at heights v: the skull turns against the chin, which is in front."""
        middle: Array = (-20.0 + 15.0 * clip((v + 30) * (1 / 100), 0, 1)) * self.sine
        return middle

    def axis_at(self, v: float) -> float:
        """Return `axis` at one height."""
        return float(self.axis(np.array([v], np.float32))[0])

    def eye_center(self, face: Face, sign: int) -> tuple[float, float]:
        """Return the center (u, v) of an eye."""
        return self.turn(sign * EYE_X * face.eye_spacing, 0.0), 0.0


@dataclass(frozen=True)
class Surface:
    """The surface of the head over a region: its extent and its normals."""

    area: Region
    inside: Array  # signed distance to the outline, pixels, positive inside
    normal: tuple[Array, Array, Array]  # unit vectors in (u, v, z)


def surface(face: Face, head: Head) -> Surface:
    """Return the head as an egg-shaped solid with the relief of a face."""
    area = region(-head.half_width - 12, head.half_width + 12, head.top - 2, head.chin + 12)
    v = area.v
    up = clip((CHEEK_V - v) / (CHEEK_V - head.top), 0, np.inf)
    down = clip((v - CHEEK_V) / (head.chin - CHEEK_V), 0, np.inf)
    power = 1.8 + 0.8 * face.jaw_squareness + 0.3 * face.fullness
    vertical = up**2.9 + down**power
    width = head.half_width * (1 - face.chin_taper * (1 - 0.6 * face.fullness) * np.minimum(down, 1.2) ** 1.5)
    width = width * (1 - 0.05 * clip(up * 1.6, 0, 1))
    x = (area.u - head.axis(v)) / width
    level = x * x
    slope_x = 2 * x / width
    slope_v = 2.9 * up**1.9 * (-1 / (CHEEK_V - head.top)) + power * down ** (power - 1) / (head.chin - CHEEK_V)
    level += vertical
    steepness = np.sqrt(slope_x * slope_x + slope_v * slope_v)
    steepness += 0.008
    inside = (1 - level) / steepness
    # A face is flatter in front than an ellipsoid: raise the level set to a power.
    np.minimum(level, 1.0, out=level)
    flat = np.sqrt(level)
    z = np.sqrt(1.0001 - level * flat)
    gain = flat * (0.75 * head.half_width)
    relief_u, relief_v = gaussian_slopes(area, _relief(face, head))
    z_relief = np.minimum(z * 1.6, 1.0)
    n_u = gain * slope_x - relief_u * z_relief
    n_v = gain * slope_v - relief_v * z_relief
    scale = 1 / np.sqrt(n_u * n_u + n_v * n_v + z * z)
    return Surface(area, inside, (n_u * scale, n_v * scale, z * scale))


def _relief(face: Face, head: Head) -> Array:
    """Return the bumps and hollows of the face as rows of (height, u, sigma_u, v, sigma_v)."""
    turn, nose = head.turn, head.nose_tip_v
    wide = face.nose_width
    smile = max(face.smile, 0.0)
    brow = 3.0 if face.masculine else 1.6
    rows = [
        (3.4, turn(0, 4), 4.4 * wide, 1.0, 10.0),
        (6.0, turn(0, 9), 5.2 * wide, nose - 9, 8.0),
        (6.5 + 2 * face.nose_tip, turn(0, 14), (6.6 - 1.6 * face.nose_tip) * wide, nose, 5.0),
        (-2.0, turn(0, 6), 9.0, nose + 8, 3.0),
        (-0.9, turn(0, 8), 2.2, nose + 11, 4.0),
        (4.0, turn(0, 6), 13.0, head.mouth_v, 9.0),
        (-2.2, turn(0, 7), 9.0, head.mouth_v + 11, 3.0),
        (4.2, turn(0, 7), 8.0 + 3 * face.jaw_squareness, head.chin - 11, 6.5),
    ]
    for sign in (-1, 1):
        eye_u, eye_v = head.eye_center(face, sign)
        rows += [
            (brow, turn(sign * 16, 2), 11.0, -12.0, 4.5),
            (-3.0, eye_u, 10.0, eye_v - 1, 6.5),
            (-3.0, turn(sign * 9.5, 1), 4.0, -3.0, 6.0),
            (2.2, eye_u, 7.0, eye_v - 1, 4.5),
            (3.6, turn(sign * 8.0 * wide, 6), 3.2 * wide, nose + 1, 3.6),
            (2.2 + 1.8 * face.cheekbones + 3.2 * smile, turn(sign * (24 + 2 * smile), -2), 10.5, 19.0 - 2 * smile, 8.5),
            (-1.6 * (1 - face.fullness) * (0.4 + face.cheekbones), turn(sign * 31, -8), 8.0, 38.0, 10.0),
            (2.4 * face.fullness, turn(sign * 28, -8), 11.0, 40.0, 12.0),
            (1.8, turn(sign * 14, -2), 16.0, -36.0, 12.0),
            (-2.6, turn(sign * 38, -14), 6.0, -20.0, 12.0),
        ]
    return np.array(rows, np.float32)
