"""Non-local Bayes."""

import numpy as np
import pytest
import torch
from torch import Tensor

from gan_lightning.inversion import nonlocal_bayes as module
from gan_lightning.inversion.nonlocal_bayes import nonlocal_bayes


def written_out(pilot: np.ndarray, noisy: np.ndarray, variance: float) -> np.ndarray:
    """The second stage of NL-Bayes on one image (C,H,W), patch by patch."""
    size, (height, width) = 4, pilot.shape[1:]
    rows, columns = height - size + 1, width - size + 1
    total, count = np.zeros_like(noisy), np.zeros((height, width))

    def patch(image: np.ndarray, place: tuple[int, int]) -> np.ndarray:
        return image[:, place[0] : place[0] + size, place[1] : place[1] + size].flatten()

    for top in sorted({*range(0, rows, 2), rows - 1}):
        for left in sorted({*range(0, columns, 2), columns - 1}):
            starts = [np.clip(c - 10, 0, max(n - 21, 0)) for c, n in ((top, rows), (left, columns))]
            ends = [min(start + 21, n) for start, n in zip(starts, (rows, columns), strict=True)]
            near = [(r, c) for r in range(starts[0], ends[0]) for c in range(starts[1], ends[1])]
            near.sort(key=lambda place: ((patch(pilot, place) - patch(pilot, (top, left))) ** 2).sum())
            group = near[:60]
            clean, dirty = (np.stack([patch(image, place) for place in group]) for image in (pilot, noisy))
            covariance = np.cov(clean.T)
            gain = covariance @ np.linalg.inv(covariance + variance * np.eye(len(covariance)))
            for place, values in zip(group, clean.mean(0) + (dirty - clean.mean(0)) @ gain.T, strict=True):
                window = slice(place[0], place[0] + size), slice(place[1], place[1] + size)
                total[(slice(None), *window)] += values.reshape(-1, size, size)
                count[window] += 1
    return total / count


@pytest.mark.parametrize("shape", [(1, 15, 27), (2, 12, 30)])
def test_it_is_the_method_written_out_patch_by_patch(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    pilot, noisy = np.random.default_rng(0).normal(size=(2, *shape))
    expected = written_out(pilot, noisy, 0.8**2)
    ours = [torch.from_numpy(image)[None] for image in (pilot, noisy)]
    level = torch.tensor([0.4]).double()
    np.testing.assert_allclose(nonlocal_bayes(*ours, level)[0], expected, atol=1e-4)
    monkeypatch.setattr(module, "DISTANCES", 1)  # a row of groups at a time, as in large images
    np.testing.assert_allclose(nonlocal_bayes(*ours, level)[0], expected, atol=1e-4)


def stripes(size: int = 32) -> Tensor:
    """Images (2,3,H,W) that resemble themselves: diagonal stripes, and a step."""
    place = torch.arange(size)
    images = torch.stack([((place[:, None] + place) % 8 < 4) * 1.0, (place[:, None] + 0 * place < size // 2) * 1.0])
    return (images[:, None] - 0.5).expand(-1, 3, -1, -1) * torch.tensor([1.0, 0.8, 0.6]).view(3, 1, 1)


def test_most_of_the_noise_is_removed_and_edges_are_kept() -> None:
    clean, level = stripes(), torch.tensor([0.05, 0.1])
    rng = torch.Generator().manual_seed(0)
    errors, noise = (2 * level.view(2, 1, 1, 1) * torch.randn(clean.shape, generator=rng) for _ in range(2))
    denoised = nonlocal_bayes(clean + 0.3 * errors, clean + noise, level)
    before, after = (error.square().mean((1, 2, 3)) for error in (noise, denoised - clean))
    assert (after < 0.1 * before).all()


def test_without_noise_the_image_is_kept_and_flat_regions_are_covered() -> None:
    flat = torch.full((1, 3, 16, 40), 0.5)
    torch.testing.assert_close(nonlocal_bayes(flat, flat, torch.tensor([0.1])), flat)
    noisy = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(nonlocal_bayes(noisy, noisy, torch.tensor([0.0])), noisy, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", [(2, 1, 3, 9), (3, 3, 16, 24)])
def test_any_size_and_each_image_for_itself(shape: tuple[int, ...]) -> None:
    pilot, noisy = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    level = torch.linspace(0.05, 0.2, len(pilot))
    together = nonlocal_bayes(pilot, noisy, level)
    assert together.shape == shape
    assert together.isfinite().all()
    assert torch.equal(nonlocal_bayes(pilot[-1:], noisy[-1:], level[-1:]), together[-1:])
