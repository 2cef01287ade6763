"""Transforms to the frames, resampling, and the way back."""

import numpy as np
import pytest
from skimage.transform import AffineTransform, estimate_transform
from skimage.transform import warp as skimage_warp

from gan_lightning.alignment import make_frame, paste, similarity, warp
from gan_lightning.alignment.frames import CELEBA_LANDMARKS, apply, ffhq_square, inverse, scale_of
from gan_lightning.errors import InputError
from gan_lightning.faces import render_face, sample_face
from tests.alignment.scenes import landmarks_of, placed

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)
IDENTITY = np.array([(1.0, 0, 0), (0, 1, 0)])


def turned(degrees, scale, shift):
    angle = np.deg2rad(degrees)
    turn = scale * np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    return np.column_stack([turn, shift])


def rounded(pixels):
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def psnr(one, other):
    return 10 * np.log10(255**2 / max(np.mean((one.astype(float) - other) ** 2), 1e-12))


def test_a_similarity_is_recovered_exactly():
    matrix, points = turned(37, 0.6, (12, -5)), RNG.normal(size=(5, 2)) * 30
    np.testing.assert_allclose(similarity(points, apply(matrix, points)), matrix, atol=1e-12)


def test_noisy_points_have_the_transform_of_scikit_image():
    source, target = RNG.normal(size=(5, 2)) * 30, RNG.normal(size=(5, 2)) * 40 + 7
    estimated = estimate_transform("similarity", source, target)
    np.testing.assert_allclose(similarity(source, target), estimated.params[:2], atol=1e-10)


def test_the_way_back_is_the_inverse():
    matrix, points = turned(-20, 1.7, (3, 4)), RNG.normal(size=(8, 2)) * 50
    np.testing.assert_allclose(apply(inverse(matrix), apply(matrix, points)), points, atol=1e-10)
    assert scale_of(matrix) == pytest.approx(1.7)


@pytest.mark.parametrize("points", [np.ones((5, 2)), np.full((5, 2), np.nan)])
def test_landmarks_that_determine_nothing_are_refused(points):
    with pytest.raises(InputError, match="landmarks coincide, or are not finite"):
        similarity(points, CELEBA_LANDMARKS)


def test_a_warp_by_identity_returns_the_pixels():
    np.testing.assert_array_equal(rounded(warp(PHOTO, IDENTITY, 50, 40)), PHOTO)
    part = warp(PHOTO, turned(0, 1, (-7, -9)), 20, 10)
    np.testing.assert_array_equal(rounded(part), PHOTO[9:19, 7:27])


def test_a_warp_agrees_with_scikit_image():
    smooth = render_face(sample_face(7, 3))
    matrix = turned(25, 1.4, (10, -40))
    theirs = skimage_warp(
        smooth / 255, AffineTransform(inverse_params(matrix)), output_shape=(90, 80), order=3, mode="reflect"
    )
    assert psnr(rounded(warp(smooth, matrix, 80, 90)), theirs * 255) > 40


def inverse_params(matrix):
    return np.vstack([inverse(matrix), (0, 0, 1)])


def test_a_smaller_result_has_no_aliases():
    """A checkerboard is gray from afar; without a blur, every pixel would be black or white."""
    board = np.indices((128, 128)).sum(axis=0)[..., None] % 2 * 255
    small = warp(board.astype(np.uint8), turned(10, 0.25, (5, 5)), 20, 20)
    np.testing.assert_allclose(small, 127.5, atol=4)


def test_beyond_its_borders_an_image_is_mirrored():
    wide = rounded(warp(PHOTO, turned(0, 1, (3, 0)), 56, 40))
    np.testing.assert_array_equal(wide, np.pad(PHOTO, ((0, 0), (3, 3), (0, 0)), mode="reflect"))


def test_celeba_square_is_what_data_modules_cut_out():
    """Aligned to a square of 64, landmarks lie where cropping (0, 20, 178, 198) and resizing puts them."""
    square, whole = make_frame("celeba_square", 64), make_frame("celeba")
    np.testing.assert_allclose(apply(whole.transform(CELEBA_LANDMARKS), CELEBA_LANDMARKS), CELEBA_LANDMARKS)
    expected = (CELEBA_LANDMARKS + 0.5 - (0, 20)) * 64 / 178 - 0.5
    np.testing.assert_allclose(apply(square.transform(CELEBA_LANDMARKS), CELEBA_LANDMARKS), expected, atol=1e-10)


def test_the_square_of_ffhq():
    """An upright face: eyes 40 apart, mouth 50 below them; half of the side is the larger of 80 and 90."""
    face = np.array([(80.0, 100), (120, 100), (100, 125), (85, 150), (115, 150)])
    np.testing.assert_allclose(ffhq_square(face), [(10, 15), (10, 195), (190, 195), (190, 15)])
    turn = turned(30, 1.5, (4, 9))
    np.testing.assert_allclose(ffhq_square(apply(turn, face)), apply(turn, ffhq_square(face)))
    frame = make_frame("ffhq", 256)
    np.testing.assert_allclose(apply(frame.transform(face), ffhq_square(face)), frame.corners(), atol=1e-9)


@pytest.mark.parametrize("name", ["celeba", "ffhq"])
def test_a_turned_face_becomes_upright(name):
    """The same face, turned and scaled, is aligned to the same picture."""
    frame = make_frame(name, 128 if name == "ffhq" else None)
    (one, first), (other, second) = placed(3), placed(3, degrees=25, scale=1.4, size=(400, 400), center=(200, 200))
    aligned = [warp(p, frame.transform(t), frame.width, frame.height) for p, t in ((one, first), (other, second))]
    inner = np.s_[frame.height // 4 : -frame.height // 4, frame.width // 4 : -frame.width // 4]
    assert psnr(aligned[0][inner], aligned[1][inner]) > 32


@pytest.mark.parametrize("name", ["celeba", "ffhq"])
def test_an_unchanged_face_leaves_the_photograph(name):
    photo, landmarks = placed(3, 20, 1.1)
    frame = make_frame(name)
    matrix = frame.transform(landmarks)
    face = rounded(warp(photo, matrix, frame.width, frame.height))
    np.testing.assert_array_equal(paste(photo, face, matrix, frame, aligned=face), photo)
    assert psnr(paste(photo, face, matrix, frame), photo) > 40  # interpolated twice


def test_only_the_frame_changes_and_it_fades_in():
    photo = np.full((200, 200, 3), 100, np.uint8)
    frame = make_frame("celeba_square", 64)
    matrix = turned(20, 0.8, (-40, -30))
    result = paste(photo, np.full((64, 64, 3), 200, np.uint8), matrix, frame)
    y, x = np.indices((200, 200))
    points = apply(matrix, np.stack([x.ravel(), y.ravel()], axis=1).astype(float))
    outside = ((points < 0) | (points > 63)).any(axis=1).reshape(200, 200)
    deep = ((points > 8) & (points < 55)).all(axis=1).reshape(200, 200)
    assert (result[outside] == 100).all()
    assert (result[deep] == 200).all()
    assert np.abs(np.diff(result[..., 0].astype(int), axis=1)).max() < 40  # no edge


def test_pixels_that_were_not_restored_keep_their_details():
    """A 4 times reduced face of noise: the filled hole is pasted, the details around it stay."""
    photo = RNG.integers(0, 256, (256, 256, 3), dtype=np.uint8)
    frame = make_frame("celeba_square", 64)
    matrix = np.array([(0.25, 0, -0.375), (0, 0.25, -0.375)])
    aligned = rounded(warp(photo, matrix, 64, 64))
    face = aligned.copy()
    face[28:36, 28:36] = 255 - face[28:36, 28:36] // 2
    result = paste(photo, face, matrix, frame, aligned)
    np.testing.assert_array_equal(result[:100], photo[:100])
    assert (result[116:140, 116:140] != photo[116:140, 116:140]).mean() > 0.9


def test_a_face_may_come_back_enlarged():
    photo, landmarks = placed(3, 10, 1.0)
    frame = make_frame("celeba_square", 64)
    matrix = frame.transform(landmarks)
    larger = make_frame("celeba_square", 256)
    face = rounded(warp(photo, larger.transform(landmarks), 256, 256))
    assert psnr(paste(photo, face, matrix, frame), photo) > 40


def test_the_landmarks_of_rendered_faces_lie_near_those_of_celeba():
    mean = np.mean([landmarks_of(sample_face(0, index)) for index in range(50)], axis=0)
    assert np.abs(mean - CELEBA_LANDMARKS).max() < 4


@pytest.mark.parametrize(("name", "size", "message"), [("celeba", 64, "178x218"), ("other", None, "unsupported")])
def test_wrong_frames(name, size, message):
    with pytest.raises(InputError, match=message):
        make_frame(name, size)
