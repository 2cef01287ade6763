"""From strokes to masks."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_lightning.app.holes import painted_pixels, write_mask
from gan_lightning.errors import InputError
from tests.app.photos import draw

pytestmark = pytest.mark.usefixtures("own_folder")

NUMBERS = itertools.count()


def layer(where, side=32, mode="RGBA"):
    image = np.zeros((side, side, 4), dtype=np.uint8)
    image[where] = (225, 29, 72, 100)  # half transparent, as the brush is
    path = Path(f"layer-{next(NUMBERS)}.png").absolute()
    Image.fromarray(image).convert(mode).save(path)
    return path


def test_strokes_of_all_layers_count():
    first, second = (slice(0, 4), slice(0, 4)), (slice(20, 32), slice(8, 9))
    painted = painted_pixels([layer(first), layer(second)], 32)
    expected = np.zeros((32, 32), dtype=bool)
    expected[first] = expected[second] = True
    assert np.array_equal(painted, expected)
    assert not painted_pixels([], 32).any()
    assert not painted_pixels([layer(first, mode="RGB")], 32).any()  # nothing is transparent: no strokes


def test_other_drawings_are_refused():
    with pytest.raises(InputError, match="does not belong to this photograph: reload the page"):
        painted_pixels([layer(..., 31)], 32)
    Path("text.png").write_text("no image")
    for name in ("text.png", "missing.png"):
        with pytest.raises(InputError, match="cannot be read: reload the page"):
            painted_pixels([Path(name)], 32)


def test_the_mask_has_the_size_of_the_photograph():
    painted = np.zeros((32, 32), dtype=bool)
    painted[8:16, 16:24] = True
    write_mask(Path("mask.npy"), draw(Path("wide.png"), (128, 64)), painted, 16)
    expected = np.ones((64, 128), dtype=bool)
    expected[16:32, 32 + 32 : 32 + 48] = False
    assert np.array_equal(np.load("mask.npy"), expected)


def test_a_thin_stroke_is_not_lost_in_a_small_photograph():
    painted = np.zeros((128, 128), dtype=bool)
    painted[3, 50:90] = True
    write_mask(Path("mask.npy"), draw(Path("small.png"), (16, 16)), painted, 16)
    assert np.argwhere(~np.load("mask.npy")).tolist() == [[0, column] for column in range(6, 12)]


def test_nothing_and_everything_are_refused():
    photo = draw(Path("photo.png"))
    for painted in (None, np.zeros((32, 32), dtype=bool)):
        with pytest.raises(InputError, match="nothing is painted: paint over"):
            write_mask(Path("mask.npy"), photo, painted, 16)
    with pytest.raises(InputError, match="covers all of the photograph: leave something"):
        write_mask(Path("mask.npy"), photo, np.ones((32, 32), dtype=bool), 16)
    assert not Path("mask.npy").exists()
