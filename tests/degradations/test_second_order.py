"""Random degradations: a function of the random generator, with kernels and noise of the stated strength."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import signal

from gan_lightning.degradations.second_order import (
    LARGEST_RADIUS,
    Round,
    add_noise,
    blur,
    compress,
    degrade,
    delta,
    filter_each,
    gaussian,
    sinc,
)
from gan_lightning.images import to_float, to_uint8


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth(count=4, side=32, channels=3):
    coarse = torch.rand(count, channels, 5, 5, generator=rng(1)) * 1.6 - 0.8
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(-1, 1)


@pytest.mark.parametrize("kind", ["bicubic", "first_order", "second_order"])
@pytest.mark.parametrize(("scale", "channels"), [(4, 3), (2, 1), (1, 3)])
def test_results_are_pixels_of_files_and_follow_the_generator(kind, scale, channels):
    images = smooth(channels=channels)
    small = degrade(images, scale, kind, rng())
    assert small.shape == (4, channels, 32 // scale, 32 // scale)
    assert torch.equal(small, to_float(to_uint8(small)))
    assert torch.equal(small, degrade(images, scale, kind, rng()))
    assert torch.equal(small, degrade(images, scale, kind, rng(1))) == (kind == "bicubic")
    for seed in range(8):  # both orders of the last steps, and all kinds of resizing
        assert degrade(images, scale, kind, rng(seed)).isfinite().all()


def test_bicubic_is_pillows():
    images = to_float(to_uint8(smooth()))
    expected = [
        np.asarray(Image.fromarray(x.permute(1, 2, 0).numpy()).resize((8, 8), Image.Resampling.BICUBIC))
        for x in to_uint8(images)
    ]
    ours = to_uint8(degrade(images, 4, "bicubic", rng())).permute(0, 2, 3, 1).numpy()
    assert np.abs(ours.astype(int) - np.stack(expected)).max() <= 1


def test_kernels_have_their_widths():
    kernel = gaussian(3.0, 1.0, angle=0.3)
    places = torch.arange(-LARGEST_RADIUS, LARGEST_RADIUS + 1.0)
    y, x = torch.meshgrid(places, places, indexing="ij")
    covariance = torch.tensor([[(kernel * x * x).sum(), (kernel * x * y).sum()], [0, (kernel * y * y).sum()]])
    covariance[1, 0] = covariance[0, 1]
    values, vectors = torch.linalg.eigh(covariance)
    assert values.sqrt().tolist() == pytest.approx([1.0, 3.0], rel=0.02)
    assert abs(float(vectors[1, 1] / vectors[0, 1])) == pytest.approx(math.tan(0.3), rel=0.05)
    low_pass = torch.fft.fft2(sinc(math.pi / 2)).abs()
    assert low_pass[0, 2] > 0.9  # of pi / 5
    assert low_pass[0, 10] < 0.1  # of nearly pi
    plateau, center = gaussian(3.0, 3.0, exponent=4.0), (LARGEST_RADIUS, LARGEST_RADIUS)
    assert plateau[LARGEST_RADIUS, LARGEST_RADIUS + 2] > 0.95 * plateau[center]


def test_each_image_is_filtered_by_its_own_kernel():
    images = smooth(3)
    kernels = torch.stack([delta(), gaussian(2.0, 1.0, 0.4), sinc(2.0)])
    found = filter_each(images, kernels)
    torch.testing.assert_close(found[0], images[0])
    for image, kernel, result in zip(images, kernels, found, strict=True):
        padded = np.pad(image[1].numpy(), LARGEST_RADIUS, mode="reflect")
        expected = signal.correlate2d(padded, kernel.numpy(), mode="valid")
        np.testing.assert_allclose(result[1].numpy(), expected, atol=1e-5)
    tiny = torch.rand(2, 1, 4, 4)
    assert filter_each(tiny, kernels[:2]).shape == tiny.shape
    assert blur(images, Round(blur=0), rng()).equal(filter_each(images, torch.stack([delta()] * 3)))


def test_noise_has_the_stated_strength():
    images = torch.full((400, 3, 16, 16), 0.2)
    same = Round(noise=(10, 10), photons=(2, 2))
    noise = (add_noise(images, same, rng(), rng(5)) - images) * 127.5
    deviations = noise.flatten(1).std(1)
    photon = 2 * math.sqrt(0.6 * 255)
    near = [(deviations - value).abs() / value < 0.15 for value in (10, photon)]
    assert (near[0] | near[1]).all()
    assert 0.35 < near[1].float().mean() < 0.65
    gray = (noise - noise[:, :1]).abs().amax((1, 2, 3)) < 1e-3
    assert 0.3 < gray.float().mean() < 0.5


def test_compression_is_that_of_jpeg_files():
    images = smooth(2)
    found = to_uint8(compress(images, Round(quality=(40, 40)), rng()))
    for image, result in zip(to_uint8(images), found, strict=True):
        saved = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(saved, "JPEG", quality=40)
        assert np.array_equal(np.asarray(Image.open(saved)), result.permute(1, 2, 0).numpy())


def test_the_second_order_loses_more_than_the_first():
    images = smooth(16, 64)

    def error(kind):
        return float((degrade(images, 4, kind, rng()) - degrade(images, 4, "bicubic", rng())).square().mean())

    assert error("second_order") > 0.5 * error("first_order") > 1e-5
