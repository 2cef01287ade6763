"""Empirical Wiener filter."""

import numpy as np
import pytest
import scipy.fft  # type: ignore[import-untyped,unused-ignore]
import torch

from gan_lightning.inversion.empirical_wiener import empirical_wiener


def test_one_patch_is_the_textbook_filter() -> None:
    """Each coefficient of the cosine transform is multiplied by p / (p + variance), with the pilot's power p."""
    rng = np.random.default_rng(0)
    pilot, noisy = rng.normal(size=(2, 6, 6))
    power = scipy.fft.dctn(pilot, norm="ortho") ** 2
    expected = scipy.fft.idctn(power / (power + 0.2**2) * scipy.fft.dctn(noisy, norm="ortho"), norm="ortho")
    # One patch alone covers the image's center, however the others are weighted, if all of them are alike.
    images = [torch.from_numpy(image)[None, None] for image in (pilot, noisy)]
    filtered = empirical_wiener(*images, torch.tensor([0.1]).double(), patch=1)
    pointwise = pilot**2 / (pilot**2 + 0.2**2) * noisy
    np.testing.assert_allclose(filtered[0, 0], pointwise, rtol=1e-6)
    assert np.square(expected - pilot).mean() < np.square(noisy - pilot).mean()


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
