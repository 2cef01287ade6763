"""The parameters of a synthetic face: plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

Color = tuple[float, float, float]


class HairColor(IntEnum):
    """Natural hair colors: those of CelebA, and red, which CelebA does not have."""

    BLACK = 0
    BROWN = 1
    BLOND = 2
    GRAY = 3
    RED = 4


class HairTexture(IntEnum):
    """Texture of the hair."""

    STRAIGHT = 0
    WAVY = 1
    CURLY = 2


class HairStyle(IntEnum):
    """Style of the hair."""

    BALD = 0
    SHORT = 1
    TIED = 2
    BOB = 3
    LONG = 4


class Beard(IntEnum):
    """Facial hair."""

    NONE = 0
    STUBBLE = 1
    MUSTACHE = 2
    GOATEE = 3
    FULL = 4


class Glasses(IntEnum):
    """Eyewear."""

    NONE = 0
    CLEAR = 1
    SUN = 2


class Hat(IntEnum):
    """Headwear."""

    NONE = 0
    BEANIE = 1
    BRIMMED = 2


class Clothes(IntEnum):
    """Clothes below the neck."""

    CREW_NECK = 0
    V_NECK = 1
    SUIT = 2


@dataclass(frozen=True)
class Face:
    """Parameters of `render_face`. Colors are sRGB in [0, 1], angles in radians, and lengths relative.

    The first block belongs to a person, the second changes from image to image.
    """

    identity: int  # from 1, as in identity_CelebA.txt
    masculine: bool
    age: float  # 0 young adult, 1 old
    skin_tone: float  # 0 very light, 1 very dark
    skin_color: Color
    hair_color_name: HairColor
    hair_color: Color
    hair_texture: HairTexture
    receding: float  # 0 full hairline, 1 far back
    eye_color: Color
    face_width: float  # 1 is average, here and below
    face_length: float
    jaw_squareness: float  # 0 round, 1 square
    chin_taper: float  # narrowing towards the chin
    fullness: float  # 0 lean, 1 chubby
    cheekbones: float  # 0 flat, 1 high
    eye_size: float
    eye_spacing: float
    eye_tilt: float  # outer corner up is positive
    lid_fold: float  # 0 single lid, 1 deep crease
    brow_thickness: float
    brow_arch: float
    brow_height: float
    nose_width: float
    nose_length: float
    nose_tip: float  # 0 round, 1 pointed
    mouth_width: float
    lip_fullness: float
    freckles: float

    yaw: float  # positive turns the nose towards larger x
    pitch: float  # positive looks down
    roll: float
    scale: float
    shift_x: float  # pixels
    shift_y: float
    smile: float  # 0 neutral, 1 broad; slightly negative is stern
    mouth_open: float  # 0 closed, 1 wide
    eye_openness: float
    gaze_x: float
    gaze_y: float
    brow_raise: float
    hair_style: HairStyle
    hair_volume: float
    hair_part: float  # -1 left, 1 right
    bangs: bool
    hair_sweep: float  # how far the hair falls over the side of the forehead
    beard: Beard
    sideburns: bool
    glasses: Glasses
    glasses_round: float  # 0 rectangular, 1 round
    glasses_color: Color
    hat: Hat
    hat_color: Color
    lipstick: float
    lipstick_color: Color
    eye_shadow: float
    eye_shadow_color: Color
    blush: float
    eye_bags: float
    earrings: bool
    necklace: bool
    clothes: Clothes
    clothes_color: Color
    light_azimuth: float
    light_elevation: float
    light_warmth: float  # -1 cool, 1 warm
    light_contrast: float  # 0 flat, 1 strong key light
    background: tuple[Color, Color, Color]
    texture_seed: int
