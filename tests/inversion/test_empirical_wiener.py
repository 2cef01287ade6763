"""Empirical Wiener filter."""

import numpy as np
import pytest
import scipy.fft  # type: ignore[import-untyped,unused-ignore]
import torch

from gan_lightning.inversion.empirical_wiener import empirical_wiener


def test_it_is_the_filter_written_out_patch_by_patch() -> None:
    """Each coefficient of a patch is multiplied by p / (p + variance), with the pilot's power p."""
    rng = np.random.default_rng(0)
    pilot, noisy = rng.normal(size=(2, 7, 9))
    size, margin = 4, 3
    padded = [np.pad(image, margin, mode="reflect") for image in (pilot, noisy)]
    total, weights = np.zeros_like(padded[0]), np.zeros_like(padded[0])
    for top in range(padded[0].shape[0] - size + 1):
        for left in range(padded[0].shape[1] - size + 1):
            window = slice(top, top + size), slice(left, left + size)
            power, coefficients = (scipy.fft.dctn(image[window], norm="ortho") for image in padded)
            gain = power**2 / (power**2 + 0.2**2)
            confidence = 1 / (gain**2).sum()
            total[window] += confidence * scipy.fft.idctn(gain * coefficients, norm="ortho")
            weights[window] += confidence
    expected = (total / weights)[margin:-margin, margin:-margin]
    images = [torch.from_numpy(image)[None, None] for image in (pilot, noisy)]
    filtered = empirical_wiener(*images, torch.tensor([0.1]).double(), patch=size)
    np.testing.assert_allclose(filtered[0, 0], expected, atol=1e-5)


def test_brightness_and_colors_are_filtered_apart() -> None:
    """Where the pilot is gray, no color of the noisy image is kept."""
    rng = torch.Generator().manual_seed(0)
    gray = torch.randn(1, 1, 12, 12, generator=rng).expand(1, 3, 12, 12)
    noisy = gray + torch.randn(1, 3, 12, 12, generator=rng)
    filtered = empirical_wiener(gray, noisy, torch.tensor([0.1]))
    assert (filtered - filtered.mean(1, keepdim=True)).abs().max() < 1e-3
    assert filtered.std() > 0.5


def test_a_perfect_pilot_removes_most_of_the_noise() -> None:
    rows = torch.linspace(-1, 1, 32)
    clean = 0.5 * torch.stack([rows[:, None] * rows, rows[:, None].sin() + 0 * rows]).repeat_interleave(3, 0)
    clean = clean.view(2, 3, 32, 32)
    level = torch.tensor([0.05, 0.1])
    noise = 2 * level.view(2, 1, 1, 1) * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    filtered = empirical_wiener(clean, clean + noise, level)
    before, after = (error.square().mean((1, 2, 3)) for error in (noise, filtered - clean))
    assert (after < 0.1 * before).all()


def test_without_noise_the_image_is_kept_and_with_much_of_it_the_pilot_decides() -> None:
    rng = torch.Generator().manual_seed(0)
    pilot, noisy = torch.randn(2, 1, 3, 16, 16, generator=rng)
    torch.testing.assert_close(empirical_wiener(pilot, noisy, torch.tensor([0.0])), noisy, atol=1e-4, rtol=0)
    assert empirical_wiener(pilot, noisy, torch.tensor([1e3])).abs().max() < 1e-3
    torch.testing.assert_close(empirical_wiener(0 * pilot, noisy, torch.tensor([0.1])), 0 * pilot)


@pytest.mark.parametrize("shape", [(1, 1, 5, 9), (2, 3, 16, 24)])
def test_any_size_and_each_image_for_itself(shape: tuple[int, ...]) -> None:
    rng = torch.Generator().manual_seed(0)
    pilot, noisy = torch.randn(2, *shape, generator=rng)
    level = torch.full((shape[0],), 0.1)
    together = empirical_wiener(pilot, noisy, level)
    assert together.shape == shape
    assert together.isfinite().all()
    torch.testing.assert_close(empirical_wiener(pilot[-1:], noisy[-1:], level[-1:]), together[-1:])
