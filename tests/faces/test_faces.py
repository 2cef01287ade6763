"""Properties of the synthetic faces: they are reproducible, and their labels are true of their pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from dataclasses import replace as replace_fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gan_lightning.faces import (
    ATTRIBUTES,
    LANDMARKS,
    Face,
    face_attributes,
    face_landmarks,
    render_face,
    sample_face,
)
from gan_lightning.faces.parameters import (
    Beard,
    Clothes,
    Glasses,
    HairColor,
    HairStyle,
    HairTexture,
    Hat,
)
from gan_lightning.faces.sampling import BLOCK, PEOPLE_IN_BLOCK, identity_of

Pixels = npt.NDArray[np.int64]


def replace(face: Face, **numbers: Any) -> Face:
    """Return a face with other parameters, given by name."""
    return replace_fields(face, **numbers)


PLAIN = replace(  # a face that shows everything: nothing worn, no turn
    sample_face(0, 0),
    **{"yaw": 0.0, "pitch": 0.0, "roll": 0.0, "scale": 1.0, "shift_x": 0.0, "shift_y": 0.0, "light_azimuth": 0.0},
    **{
        "glasses": Glasses.NONE,
        "hat": Hat.NONE,
        "beard": Beard.NONE,
        "sideburns": False,
        "lipstick": 0.0,
        "blush": 0.0,
    },
    **{"smile": 0.0, "mouth_open": 0.0, "hair_style": HairStyle.SHORT, "hair_texture": HairTexture.STRAIGHT},
    **{"bangs": False, "eye_openness": 1.0, "receding": 0.0, "eye_shadow": 0.0, "skin_color": (0.9, 0.7, 0.6)},
)


def render(face: Face) -> Pixels:
    return render_face(face).astype(np.int64)


def changed(first: Face, second: Face) -> Pixels:
    """Return the largest difference over the channels of the images of two faces, (218,178)."""
    difference: Pixels = np.abs(render(first) - render(second)).max(axis=2)
    return difference


def test_images_have_celeba_format() -> None:
    picture = render_face(sample_face(0, 3))
    assert picture.shape == (218, 178, 3)
    assert picture.dtype == np.uint8


def test_a_face_depends_on_seed_and_index_alone() -> None:
    alone = sample_face(5, 17)
    for index in range(17):
        sample_face(5, index)
    assert sample_face(5, 17) == alone
    np.testing.assert_array_equal(render_face(alone), render_face(sample_face(5, 17)))


@pytest.mark.parametrize(("seed", "index"), [(5, 18), (6, 17)])
def test_another_seed_or_index_is_another_image(seed: int, index: int) -> None:
    assert changed(sample_face(5, 17), sample_face(seed, index)).mean() > 5


def test_a_person_keeps_bones_and_colors() -> None:
    first, second = sample_face(1, 7), sample_face(1, 7 + PEOPLE_IN_BLOCK)
    other = sample_face(1, 8)
    kept = [field.name for field in fields(Face)][: [field.name for field in fields(Face)].index("yaw")]
    assert all(getattr(first, name) == getattr(second, name) for name in kept)
    assert first.skin_color != other.skin_color
    assert first.yaw != second.yaw


def test_splits_share_no_person() -> None:
    people = [
        {identity_of(index) for index in range(3 * BLOCK) if index % 10 in digits} for digits in (range(8), [8], [9])
    ]
    assert sum(len(split) for split in people) == len(set.union(*people))
    assert set.union(*people) == set(range(1, 3 * PEOPLE_IN_BLOCK + 1))


def test_landmarks_are_in_the_image_and_in_order() -> None:
    for index in range(300):
        points = dict(zip(LANDMARKS, face_landmarks(sample_face(0, index)), strict=True))
        assert all(0 <= points[name] < (178 if name.endswith("x") else 218) for name in LANDMARKS)
        assert points["lefteye_x"] < points["nose_x"] < points["righteye_x"]
        assert points["leftmouth_x"] < points["rightmouth_x"]
        assert max(points["lefteye_y"], points["righteye_y"]) < points["nose_y"] < points["leftmouth_y"]
        assert abs(points["lefteye_x"] - 69) <= 6
        assert abs(points["righteye_x"] - 108) <= 6
        assert abs(points["lefteye_y"] - 111) <= 7


def test_eyes_are_where_the_landmarks_say() -> None:
    """Another eye color changes pixels around the two eye landmarks, under roll, yaw and scale, and nowhere else."""
    posed = replace(PLAIN, roll=0.1, yaw=0.2, scale=1.04, gaze_x=0.0, gaze_y=0.0)
    difference = changed(replace(posed, eye_color=(0.1, 0.1, 0.1)), replace(posed, eye_color=(0.6, 0.9, 0.9)))
    points = np.array(face_landmarks(posed)).reshape(5, 2)
    left, right = difference[:, :89], difference[:, 89:]
    for side, offset, point in ((left, 0, points[0]), (right, 89, points[1])):
        rows, columns = np.nonzero(side > 12)
        assert abs(rows.mean() - point[1]) < 2
        assert abs(columns.mean() + offset - point[0]) < 2


def test_a_smile_lifts_and_widens_the_mouth() -> None:
    neutral, smiling = face_landmarks(PLAIN), face_landmarks(replace(PLAIN, smile=1.0))
    assert smiling[7] < neutral[7]
    assert smiling[8] - smiling[6] > neutral[8] - neutral[6]
    assert face_attributes(replace(PLAIN, smile=1.0))["Smiling"] == 1


LOCAL_CHANGES: dict[str, tuple[dict[str, object], tuple[int, int, int, int]]] = {  # attribute: numbers, box it changes
    "Eyeglasses": ({"glasses": Glasses.CLEAR}, (90, 135, 35, 143)),
    "Wearing_Hat": ({"hat": Hat.BEANIE}, (10, 115, 20, 158)),
    "Mustache": ({"beard": Beard.MUSTACHE}, (132, 160, 60, 120)),
    "Goatee": ({"beard": Beard.GOATEE}, (132, 200, 50, 130)),
    "Wearing_Lipstick": ({"lipstick": 1.0, "eye_shadow": 0.0}, (95, 175, 50, 130)),
    "Mouth_Slightly_Open": ({"mouth_open": 1.0}, (110, 218, 0, 178)),  # the chin drops, and what hangs below it
    "Rosy_Cheeks": ({"blush": 1.0}, (95, 175, 40, 140)),
    "Wearing_Earrings": ({"earrings": True, "masculine": False}, (120, 160, 20, 158)),
}


@pytest.mark.parametrize("attribute", LOCAL_CHANGES)
def test_an_attribute_is_seen_where_it_belongs(attribute: str) -> None:
    numbers, (top, bottom, left, right) = LOCAL_CHANGES[attribute]
    without = replace(PLAIN, masculine=False, earrings=False)
    worn = replace(without, **numbers)
    assert face_attributes(worn)[attribute] == 1
    assert face_attributes(without)[attribute] == -1
    difference = changed(worn, without)
    assert difference[top:bottom, left:right].max() > 15
    difference[top:bottom, left:right] = 0
    assert difference.max() <= 3


def _hair_brightness(face: Face) -> float:
    """Return the mean over the pixels of the hair, which are those that change when the head is bald."""
    hair = changed(face, replace(face, hair_style=HairStyle.BALD)) > 6
    hair[80:] = False  # the hair's shadow lies on the face below
    return float(render(face)[hair].mean())


def test_hair_colors_are_as_bright_as_their_names() -> None:
    faces = [sample_face(0, index) for index in range(200)]
    seen = {color: [f for f in faces if f.hair_color_name == color] for color in HairColor}

    def brightness(color: HairColor) -> list[float]:
        return [
            _hair_brightness(replace(PLAIN, hair_color=f.hair_color, hair_color_name=color)) for f in seen[color][:4]
        ]

    assert max(brightness(HairColor.BLACK)) < min(brightness(HairColor.BROWN))
    assert max(brightness(HairColor.BROWN)) < min(brightness(HairColor.BLOND))


def test_skin_tone_orders_brightness() -> None:
    cheeks = [
        float(render(replace(PLAIN, skin_color=f.skin_color))[125:140, 60:115].mean())
        for f in sorted((sample_face(2, index) for index in range(12)), key=lambda face: face.skin_tone)
    ]
    assert cheeks == sorted(cheeks, reverse=True)


def test_the_light_comes_from_its_side() -> None:
    from_right = render(replace(PLAIN, light_azimuth=0.9, light_contrast=1.0))[120:150]
    assert from_right[:, 100:125].mean() > from_right[:, 53:78].mean() + 10


def test_attributes_are_celebas_and_vary() -> None:
    said = [face_attributes(sample_face(0, index)) for index in range(300)]
    assert len(ATTRIBUTES) == len(set(ATTRIBUTES)) == 40
    unknown = {"Attractive", "Blurry", "Double_Chin"}
    for name in ATTRIBUTES:
        assert {labels[name] for labels in said} == ({-1} if name in unknown else {-1, 1}), name
    assert all(tuple(labels) == ATTRIBUTES for labels in said)


HIDDEN: dict[str, Callable[[Face], Face]] = {
    "a hat hides the forehead": lambda face: replace(face, hat=Hat.BEANIE),
    "a bald head has no hair color": lambda face: replace(face, hair_style=HairStyle.BALD),
}


@pytest.mark.parametrize("case", HIDDEN)
def test_what_is_hidden_is_not_claimed(case: str) -> None:
    face = HIDDEN[case](replace(PLAIN, hair_color_name=HairColor.BLACK, bangs=True))
    said = face_attributes(face)
    assert said["Black_Hair"] == said["Bangs"] == said["Receding_Hairline"] == -1


def test_long_hair_covers_earrings_and_sideburns() -> None:
    long = replace(PLAIN, hair_style=HairStyle.LONG, hair_sweep=1.0)
    assert changed(replace(long, earrings=True), long).max() <= 3
    said = face_attributes(replace(long, earrings=True, sideburns=True))
    assert said["Wearing_Earrings"] == said["Sideburns"] == -1


@pytest.mark.parametrize("clothes", Clothes)
def test_a_necklace_is_claimed_where_it_is_seen(clothes: Clothes) -> None:
    bare = replace(PLAIN, clothes=clothes, necklace=False)
    seen = changed(replace(bare, necklace=True), bare).max() > 40
    assert seen == (face_attributes(replace(bare, necklace=True))["Wearing_Necklace"] == 1)
