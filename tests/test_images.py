"""The pixel range and pictures, against definitions and Pillow."""

import math

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from gan_lightning.images import make_grid, to_float, to_uint8, write_png


def test_every_pixel_value_survives_the_round_trip():
    pixels = torch.arange(256, dtype=torch.uint8)
    floats = to_float(pixels)
    assert floats.min() == -1
    assert floats.max() == 1
    assert to_uint8(floats).equal(pixels)


def test_rounds_to_the_nearest_and_clamps():
    values = torch.tensor([-7.0, -1 + 0.4 * 2 / 255, -1 + 0.6 * 2 / 255, 7.0])
    assert to_uint8(values).tolist() == [0, 0, 1, 255]


def test_grid_puts_each_image_in_its_place():
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 4, 6)
    grid = make_grid(images, columns=3, padding=1)
    assert grid.shape == (3, 2 * 5 + 1, 3 * 7 + 1)
    for index in range(5):
        top, left = 1 + index // 3 * 5, 1 + index % 3 * 7
        assert (grid[:, top : top + 4, left : left + 6] == index).all()
    assert (grid[:, 6:, 15:] == 255).all()  # the place of the sixth is empty


@pytest.mark.parametrize(("count", "columns"), [(5, 3), (4, None), (7, 7), (3, 1)])
def test_grid_of_color_images_is_that_of_torchvision(count, columns):
    """Of gray images torchvision's would have three channels, and of a single one no border."""
    images = torch.randint(0, 256, (count, 3, 4, 6), dtype=torch.uint8)
    expected = torchvision.utils.make_grid(images, columns or math.isqrt(count), padding=2, pad_value=255)
    assert make_grid(images, columns).equal(expected)


def test_png_holds_the_pixels(tmp_path):
    for channels in (1, 3):
        image = torch.randint(0, 256, (channels, 5, 7), dtype=torch.uint8)
        write_png(tmp_path / "made" / "image.png", image)
        read = np.atleast_3d(np.asarray(Image.open(tmp_path / "made" / "image.png")))
        assert np.array_equal(read, image.permute(1, 2, 0).numpy())
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["image.png"]


def test_float_images_of_any_precision_are_laid_out_and_written(tmp_path):
    images = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    grid = make_grid(images)
    assert grid.dtype == torch.uint8
    assert grid.shape == (3, 2 * 6 + 2, 2 * 6 + 2)  # the nearest to a square, two pixels apart
    for index, image in enumerate(to_uint8(images)):
        top, left = 2 + index // 2 * 6, 2 + index % 2 * 6
        assert grid[:, top : top + 4, left : left + 4].equal(image)
    assert make_grid(images, columns=9).shape == (3, 8, 3 * 6 + 2)  # no empty places beside a short row
    write_png(tmp_path / "image.png", images[0])
    read = np.asarray(Image.open(tmp_path / "image.png"))
    assert np.array_equal(read, to_uint8(images[0]).permute(1, 2, 0).numpy())


def test_halves_are_computed_in_float32():
    values = torch.linspace(-1, 1, 256).bfloat16()
    assert to_uint8(values).equal(((values.float() + 1) * 127.5).round().to(torch.uint8))
