"""Sampling of the parameters of a face from (seed, index)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gan_lightning.faces.parameters import (
    Beard,
    Clothes,
    Color,
    Face,
    Glasses,
    HairColor,
    HairStyle,
    HairTexture,
    Hat,
)

BLOCK = 400  # images that share a set of people
PEOPLE_IN_BLOCK = 50  # divisible by ten, so that splits by `index % 10` never share a person

SKIN_TONES = np.array(
    [(247, 220, 204), (236, 196, 170), (214, 166, 132), (178, 126, 92), (130, 86, 60), (84, 55, 41)], np.float64
)
HAIR_SHADES: dict[HairColor, tuple[Color, Color]] = {
    HairColor.BLACK: ((22, 18, 18), (36, 29, 27)),
    HairColor.BROWN: ((62, 42, 30), (122, 84, 54)),
    HairColor.BLOND: ((176, 138, 88), (232, 208, 160)),
    HairColor.GRAY: ((140, 138, 136), (208, 206, 204)),
    HairColor.RED: ((112, 48, 24), (164, 82, 42)),
}
EYE_COLORS: tuple[Color, ...] = (
    (54, 34, 22),
    (92, 58, 34),
    (128, 98, 56),
    (98, 118, 82),
    (96, 132, 164),
    (122, 136, 146),
)
CLOTHES_COLORS: tuple[Color, ...] = (
    (38, 42, 54),
    (222, 220, 214),
    (120, 36, 42),
    (52, 84, 110),
    (72, 92, 70),
    (184, 142, 96),
    (92, 72, 104),
    (200, 120, 110),
    (30, 30, 32),
    (70, 120, 130),
)
LIPSTICK_COLORS: tuple[Color, ...] = ((176, 36, 52), (200, 78, 92), (150, 48, 70), (206, 98, 88), (126, 30, 50))
EYE_SHADOW_COLORS: tuple[Color, ...] = ((96, 70, 62), (110, 78, 110), (70, 90, 112), (150, 104, 78), (60, 52, 56))


def identity_of(index: int) -> int:
    """Return the number of the person in an image, from 1; `BLOCK` images share `PEOPLE_IN_BLOCK` people."""
    return index // BLOCK * PEOPLE_IN_BLOCK + index % PEOPLE_IN_BLOCK + 1


def sample_face(seed: int, index: int) -> Face:
    """Draw the face of one image.

    Args:
        seed: Seed of the dataset, at least 0.
        index: Index of the image, from 0. CelebA's file names start at 1.

    Returns:
        The face. It depends only on `seed` and `index`, and the traits of a person only on `seed` and the identity.
    """
    identity = identity_of(index)
    person = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 1, identity])))
    picture = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 0, index])))
    traits: dict[str, object] = {"identity": identity, **_coloring(person)}
    traits |= _bones(person, bool(traits["masculine"]))
    masculine = bool(traits["masculine"])
    traits |= _pose(picture) | _expression(picture) | _hair(picture, traits) | _extras(picture, masculine)
    traits |= _surroundings(picture)
    return Face(**traits)  # type: ignore[arg-type]  # one dictionary of mixed plain numbers


def _coloring(rng: np.random.Generator) -> dict[str, object]:
    """Draw presentation, age and natural colors; fair hair and light eyes are more frequent with light skin."""
    age = float(rng.beta(1.3, 2.2))
    tone = float(rng.uniform() ** 1.15)
    position = tone * (len(SKIN_TONES) - 1)
    skin = [float(np.interp(position, range(len(SKIN_TONES)), SKIN_TONES[:, c])) for c in range(3)]
    undertone = rng.normal(0, 0.022)
    skin = [skin[0], skin[1] * (1 + undertone), skin[2] * (1 - 1.2 * undertone)]
    fair = max(0.0, 1 - tone / 0.5)
    weights = [0.36 + 1.6 * tone, 0.42, 0.02 + 0.7 * fair, 2.6 * max(0.0, age - 0.4), 0.02 + 0.14 * fair]
    name = HairColor(_pick(rng, weights))
    eyes = [0.5 + 2.5 * tone, 0.8, 0.12 + 0.4 * fair, 0.02 + 0.35 * fair, 0.02 + 0.7 * fair, 0.01 + 0.3 * fair]
    texture = [0.5 - 0.36 * tone, 0.4 - 0.12 * tone, 0.07 + 0.4 * tone]
    return {
        "masculine": bool(rng.uniform() < 0.5),
        "age": age,
        "skin_tone": tone,
        "skin_color": _scaled(skin),
        "hair_color_name": name,
        "hair_color": _between(rng, *HAIR_SHADES[name], 1 - 0.7 * tone * (name == HairColor.BROWN)),
        "hair_texture": HairTexture(_pick(rng, texture)),
        "receding": float(rng.beta(1.2, 4) + 0.35 * max(0.0, age - 0.4)),
        "eye_color": _jittered(rng, EYE_COLORS[_pick(rng, eyes)], 0.1),
        "freckles": float(max(0.0, rng.normal(-0.5, 0.6)) * fair),
    }


def _bones(rng: np.random.Generator, masculine: bool) -> dict[str, object]:
    """Draw the proportions of a face; some differ on average between presentations."""
    lean = 1.0 if masculine else -1.0

    def around(mean: float, deviation: float) -> float:
        return mean + deviation * _clipped(rng.normal(), -2, 2)

    return {
        "face_width": around(0.99 + 0.01 * lean, 0.04),
        "face_length": around(1.0, 0.04),
        "jaw_squareness": _clipped(rng.beta(2, 2) + 0.15 * lean, 0, 1),
        "chin_taper": float(rng.uniform(0.06, 0.22) - 0.05 * lean),
        "fullness": float(rng.beta(1.5, 3)),
        "cheekbones": float(rng.beta(2, 2)),
        "eye_size": around(1.03 - 0.03 * lean, 0.07),
        "eye_spacing": around(1.0, 0.035),
        "eye_tilt": around(0.05, 0.05),
        "lid_fold": _clipped(around(0.65, 0.3), 0, 1),
        "brow_thickness": around(1.0 + 0.08 * lean, 0.2),
        "brow_arch": around(0.5 - 0.12 * lean, 0.25),
        "brow_height": around(0.0, 0.6),
        "nose_width": around(0.98 + 0.04 * lean, 0.1),
        "nose_length": around(1.0, 0.06),
        "nose_tip": float(rng.beta(2, 2)),
        "mouth_width": around(1.0, 0.06),
        "lip_fullness": around(1.0 - 0.04 * lean, 0.16),
    }


def _pose(rng: np.random.Generator) -> dict[str, object]:
    """Draw small deviations from CelebA's alignment, and the rotation of the head."""
    return {
        "yaw": _clipped(rng.normal(0, 0.17), -0.4, 0.4),
        "pitch": _clipped(rng.normal(0, 0.07), -0.16, 0.16),
        "roll": _clipped(rng.normal(0, 0.045), -0.12, 0.12),
        "scale": _clipped(rng.normal(1.0, 0.02), 0.95, 1.06),
        "shift_x": _clipped(rng.normal(0, 0.8), -2, 2),
        "shift_y": _clipped(rng.normal(0, 0.8), -2, 2),
    }


def _expression(rng: np.random.Generator) -> dict[str, object]:
    """Draw smile, mouth, eyes and brows; broad smiles open the mouth and narrow the eyes."""
    smiling = rng.uniform() < 0.5
    smile = float(rng.uniform(0.5, 1.0) if smiling else rng.uniform(-0.05, 0.25))
    opened = rng.uniform() < (0.65 if smiling else 0.22)
    return {
        "smile": smile,
        "mouth_open": float(rng.uniform(0.3, 1.0) if opened else 0.0),
        "eye_openness": _clipped(rng.normal(1.0, 0.14) - 0.12 * max(smile, 0.0), 0.55, 1.2),
        "gaze_x": _clipped(rng.normal(0, 0.35), -1, 1),
        "gaze_y": _clipped(rng.normal(0, 0.2), -0.5, 0.5),
        "brow_raise": float(rng.normal(0, 0.6)),
    }


def _hair(rng: np.random.Generator, traits: dict[str, object]) -> dict[str, object]:
    """Draw hair style and facial hair, by presentation and age."""
    masculine = bool(traits["masculine"])
    styles = [0.1, 0.76, 0.02, 0.06, 0.06] if masculine else [0.005, 0.075, 0.2, 0.26, 0.46]
    style = HairStyle(_pick(rng, styles))
    beard = Beard(_pick(rng, [0.46, 0.2, 0.08, 0.1, 0.16]))
    return {
        "receding": float(traits["receding"]) * (1.0 if masculine else 0.3),  # type: ignore[arg-type]
        "hair_style": style,
        "hair_volume": float(rng.uniform(0, 1)),
        "hair_part": float(rng.choice([-1, 1]) * rng.uniform(0.05, 0.75)),
        "bangs": bool(rng.uniform() < (0.12 if masculine else 0.26))
        and style in (1, 3, 4)
        and traits["hair_texture"] != HairTexture.CURLY,
        "hair_sweep": float(rng.uniform(0, 1)),
        "beard": beard if masculine else Beard.NONE,
        "sideburns": masculine and bool(rng.uniform() < 0.35 or beard == Beard.FULL),
    }


def _extras(rng: np.random.Generator, masculine: bool) -> dict[str, object]:
    """Draw accessories and clothes: glasses, hat, make-up, jewelry, clothes."""
    made_up = not masculine and rng.uniform() < 0.6
    heavy = made_up and rng.uniform() < 0.55
    hat = Hat(_pick(rng, [0.92, 0.05, 0.03]))
    suit = 0.4 if masculine else 0.08
    return {
        "glasses": Glasses(_pick(rng, [0.87, 0.1, 0.03])),
        "glasses_round": float(rng.uniform(0, 1)),
        "glasses_color": _jittered(rng, ((28, 26, 28), (92, 58, 36), (120, 112, 100))[int(rng.integers(3))], 0.15),
        "hat": hat,
        "hat_color": _jittered(rng, CLOTHES_COLORS[int(rng.integers(len(CLOTHES_COLORS)))], 0.12),
        "lipstick": float(rng.uniform(0.5, 1.0)) if made_up else 0.0,
        "lipstick_color": _jittered(rng, LIPSTICK_COLORS[int(rng.integers(5))], 0.08),
        "eye_shadow": float(rng.uniform(0.5, 1.0)) if heavy else 0.0,
        "eye_shadow_color": _jittered(rng, EYE_SHADOW_COLORS[int(rng.integers(5))], 0.08),
        "blush": float(rng.uniform(0.5, 1.0)) if rng.uniform() < (0.5 if heavy else 0.06) else 0.0,
        "eye_bags": float(max(0.0, rng.normal(0.1, 0.45))),
        "earrings": not masculine and bool(rng.uniform() < 0.35),
        "necklace": not masculine and bool(rng.uniform() < 0.25),
        "clothes": Clothes(_pick(rng, [(1 - suit) * 0.6, (1 - suit) * 0.4, suit])),
        "clothes_color": _jittered(rng, CLOTHES_COLORS[int(rng.integers(len(CLOTHES_COLORS)))], 0.12),
    }


def _surroundings(rng: np.random.Generator) -> dict[str, object]:
    """Draw light and background; the three background colors are related shades."""
    base = rng.uniform(0.12, 0.8)
    tint = rng.normal(0, 0.055, 3)
    shades = [np.clip((base + rng.normal(0, 0.13)) * (1 + tint + rng.normal(0, 0.06, 3)), 0.03, 0.95) for _ in range(3)]
    return {
        "light_azimuth": _clipped(rng.normal(0, 0.55), -1.1, 1.1),
        "light_elevation": float(rng.uniform(0.2, 0.85)),
        "light_warmth": _clipped(rng.normal(0.1, 0.5), -1, 1),
        "light_contrast": float(rng.beta(2, 2)),
        "background": tuple((float(s[0]), float(s[1]), float(s[2])) for s in shades),
        "texture_seed": int(rng.integers(2**31)),
    }


def _scaled(color: list[float] | Color) -> Color:
    """Convert a color from the range 0..255 to 0..1."""
    return (float(color[0]) / 255, float(color[1]) / 255, float(color[2]) / 255)


def _between(rng: np.random.Generator, dark: Color, light: Color, reach: float) -> Color:
    """Draw a color on the line from one color towards another, no further than `reach`."""
    weight = reach * float(rng.uniform())
    return _scaled([d + weight * (bright - d) for d, bright in zip(dark, light, strict=True)])


def _jittered(rng: np.random.Generator, color: Color, amount: float) -> Color:
    """Draw a color near another one, by a common factor and a small one per channel."""
    factor = 1 + rng.uniform(-amount, amount) + rng.uniform(-amount, amount, 3) * 0.4
    return _scaled([float(min(c * f, 250.0)) for c, f in zip(color, factor, strict=True)])


def _pick(rng: np.random.Generator, weights: Sequence[float]) -> int:
    """Draw an index with the given weights (`rng.choice` takes ten times as long)."""
    left = rng.uniform() * sum(weights)
    for place, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return place
    return len(weights) - 1


def _clipped(value: float, low: float, high: float) -> float:
    """Draw a number between two bounds."""
    return float(min(max(value, low), high))
