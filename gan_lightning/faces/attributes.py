"""Labels of a face as in CelebA's text files: forty attributes and five landmarks."""

from __future__ import annotations

from gan_lightning.faces.canvas import to_picture
from gan_lightning.faces.head import Head
from gan_lightning.faces.mouth import corner
from gan_lightning.faces.parameters import Beard, Clothes, Face, Glasses, HairColor, HairStyle, HairTexture, Hat

ATTRIBUTES = (
    *("5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips"),
    *("Big_Nose", "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin"),
    *("Eyeglasses", "Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open"),
    *("Mustache", "Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline"),
    *("Rosy_Cheeks", "Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat"),
    *("Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie", "Young"),
)  # in CelebA's order

LANDMARKS = (
    *("lefteye_x", "lefteye_y", "righteye_x", "righteye_y", "nose_x", "nose_y"),
    *("leftmouth_x", "leftmouth_y", "rightmouth_x", "rightmouth_y"),
)


def face_attributes(face: Face) -> dict[str, int]:
    """Return CelebA's forty attributes of a face.

    Args:
        face: The face.

    Returns:
        Name to 1 or -1, in CelebA's order. Attributes that the renderer cannot decide are also -1: Attractive is
        subjective, and no image is Blurry or has a Double_Chin.
    """
    true = _hair_attributes(face) | _feature_attributes(face) | _worn_attributes(face)
    return {name: 1 if true.get(name, False) else -1 for name in ATTRIBUTES}


def _hair_attributes(face: Face) -> dict[str, bool]:
    """Return the attributes of hair on head and face; those hidden by a hat are false."""
    hair = face.hair_style != HairStyle.BALD
    long = face.hair_style in (HairStyle.BOB, HairStyle.LONG)
    seen = hair and (long or face.hat == Hat.NONE)
    forehead = hair and face.hat == Hat.NONE
    return {
        "5_o_Clock_Shadow": face.beard == Beard.STUBBLE,
        "Bald": not hair and face.hat == Hat.NONE,
        "Bangs": forehead and face.bangs,
        "Black_Hair": seen and face.hair_color_name == HairColor.BLACK,
        "Blond_Hair": seen and face.hair_color_name == HairColor.BLOND,
        "Brown_Hair": seen and face.hair_color_name == HairColor.BROWN,
        "Gray_Hair": seen and face.hair_color_name == HairColor.GRAY,
        "Goatee": face.beard == Beard.GOATEE,
        "Mustache": face.beard in (Beard.MUSTACHE, Beard.GOATEE, Beard.FULL),
        "No_Beard": face.beard in (Beard.NONE, Beard.MUSTACHE),
        "Receding_Hairline": forehead and not face.bangs and face.receding > 0.35,
        "Sideburns": face.sideburns and not long,
        "Straight_Hair": seen and face.hair_texture == HairTexture.STRAIGHT,
        "Wavy_Hair": seen and face.hair_texture == HairTexture.WAVY,
    }


def _feature_attributes(face: Face) -> dict[str, bool]:
    """Return the attributes of facial features; those hidden by sunglasses are false."""
    eyes_seen = face.glasses != Glasses.SUN
    return {
        "Arched_Eyebrows": face.brow_arch > 0.7,
        "Bags_Under_Eyes": eyes_seen and face.eye_bags > 0.5,
        "Big_Lips": face.lip_fullness > 1.12,
        "Big_Nose": face.nose_width > 1.1,
        "Bushy_Eyebrows": face.brow_thickness > 1.2,
        "Chubby": face.fullness > 0.6,
        "High_Cheekbones": face.cheekbones > 0.6,
        "Male": face.masculine,
        "Mouth_Slightly_Open": face.mouth_open > 0,
        "Narrow_Eyes": eyes_seen and face.eye_openness * face.eye_size < 0.85,
        "Oval_Face": face.jaw_squareness < 0.4 and face.fullness < 0.4,
        "Pale_Skin": face.skin_tone < 0.12,
        "Pointy_Nose": face.nose_tip > 0.6,
        "Rosy_Cheeks": face.blush > 0,
        "Smiling": face.smile > 0.4,
        "Young": face.age < 0.5,
    }


def _worn_attributes(face: Face) -> dict[str, bool]:
    """Return the attributes of accessories and clothes. Long hair covers the ears; only a V-neck shows a necklace."""
    return {
        "Eyeglasses": face.glasses != Glasses.NONE,
        "Heavy_Makeup": face.eye_shadow > 0 and face.glasses != Glasses.SUN,
        "Wearing_Earrings": face.earrings and face.hair_style not in (HairStyle.BOB, HairStyle.LONG),
        "Wearing_Hat": face.hat != Hat.NONE,
        "Wearing_Lipstick": face.lipstick > 0,
        "Wearing_Necklace": face.necklace and face.clothes == Clothes.V_NECK,
        "Wearing_Necktie": face.clothes == Clothes.SUIT,
    }


def face_landmarks(face: Face) -> tuple[int, ...]:
    """Return the five landmarks of a face.

    Args:
        face: The face.

    Returns:
        Ten integers, in pixels from the upper left corner, in the order of `LANDMARKS`: the eyes, the tip of the nose
        and the corners of the mouth. Left and right are the viewer's.
    """
    return tuple(round(coordinate) for point in landmark_points(face) for coordinate in point)


def landmark_points(face: Face) -> tuple[tuple[float, float], ...]:
    """Return the five landmarks (x, y) of a face, as `face_landmarks`, before they are rounded."""
    head = Head.of(face)
    points = (
        *(head.eye_center(face, -1), head.eye_center(face, 1)),
        *((head.turn(0, 14), head.nose_tip_v), corner(face, head, -1), corner(face, head, 1)),
    )
    return tuple(to_picture(face, u, v) for u, v in points)
