"""The denoising network of the package, and noise removed with it."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gan_lightning.degradations import GaussianNoise, Identity
from gan_lightning.inversion import invert, learned_prior
from gan_lightning.inversion.learned_prior import WEIGHTS, learned_denoiser, relative_error, remove_noise
from gan_lightning.inversion.nonlocal_bayes import nonlocal_bayes
from gan_lightning.networks.dcgan import Generator
from gan_lightning.pretrained import shipped_weights
from tests.rendered_faces import rendered_faces


@pytest.fixture(scope="module")
def faces() -> Tensor:
    return rendered_faces(48)


def error(images: Tensor, targets: Tensor) -> Tensor:
    return (images - targets).square().mean((1, 2, 3))


@pytest.mark.parametrize("sigma", [0.05, 0.1, 0.2])
def test_the_network_removes_most_of_the_noise(faces: Tensor, sigma: float) -> None:
    noisy, level = GaussianNoise(sigma)(faces), torch.full((2,), sigma)
    assert (error(learned_denoiser(noisy, level), faces) < 0.25 * error(noisy, faces)).all()


def test_both_estimates_are_better_than_one(faces: Tensor) -> None:
    noisy, level = GaussianNoise(0.1)(faces), torch.full((2,), 0.1)
    pilot = torch.nn.functional.avg_pool2d(noisy, 3, 1, 1, count_include_pad=False)
    similar = nonlocal_bayes(nonlocal_bayes(pilot, noisy, level), noisy, level)
    both = error(remove_noise(pilot, noisy, level), faces)
    assert (both < error(similar, faces)).all()


@pytest.mark.parametrize("size", [(16, 24), (13, 30), (3, 5)])
def test_any_size_and_the_same_bits_in_any_batch(size: tuple[int, int]) -> None:
    noisy = torch.randn(5, 3, *size, generator=torch.Generator().manual_seed(0)) / 2
    levels = torch.linspace(0.02, 0.2, 5)
    together = remove_noise(noisy / 2, noisy, levels)
    assert together.shape == noisy.shape
    assert together.isfinite().all()
    for rows in (slice(4, 5), slice(1, 4)):
        assert torch.equal(remove_noise(noisy[rows] / 2, noisy[rows], levels[rows]), together[rows])
    assert torch.equal(remove_noise(noisy / 2, noisy, levels), together)


def test_images_that_are_not_in_color_are_denoised_by_their_patches() -> None:
    gray, level = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0.1])
    similar = nonlocal_bayes(nonlocal_bayes(gray, gray, level), gray, level)
    assert torch.equal(remove_noise(gray, gray, level), similar)


def test_the_error_is_estimated_without_the_targets(faces: Tensor) -> None:
    level = torch.tensor([0.05, 0.15])
    noise = 2 * level.view(2, 1, 1, 1) * torch.randn(faces.shape, generator=torch.Generator().manual_seed(0))
    denoised = learned_denoiser(faces + noise, level)
    measured = error(denoised, faces) / (2 * level).square()
    torch.testing.assert_close(relative_error(faces + noise, denoised, level), measured, atol=0.08, rtol=0)


def test_images_that_resemble_no_photograph_are_denoised_by_their_patches() -> None:
    rng = torch.Generator().manual_seed(0)
    speckled, level = 0.5 * torch.randn(2, 3, 16, 16, generator=rng), torch.full((2,), 0.1)
    noisy = GaussianNoise(0.1)(speckled)
    similar = nonlocal_bayes(nonlocal_bayes(speckled, noisy, level), noisy, level)
    assert torch.equal(remove_noise(speckled, noisy, level), similar)


def test_a_photograph_without_noise_is_left_as_it_was(
    generator: Generator, own_images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    few: dict[str, Any] = {"num_steps": 5, "refine": "none"}
    smooth = torch.nn.functional.interpolate(own_images[:4, :, :3, :3], 16, mode="bilinear")
    observed = torch.cat([smooth[:2], GaussianNoise(0.1)(smooth[2:])])
    found = invert(generator, Identity(), observed, **few)
    assert (found.noise_level > 0).tolist() == [False, False, True, True]
    monkeypatch.setattr(learned_prior, "learned_denoiser", lambda noisy, level: torch.zeros_like(noisy))
    without = invert(generator, Identity(), observed, **few)
    assert torch.equal(found.image[:2], without.image[:2])
    assert not torch.equal(found.image[2:], without.image[2:])


def test_the_weights_are_small_have_a_card_and_are_no_gan() -> None:
    assert WEIGHTS.stat().st_size <= 2_300_000
    card = (WEIGHTS.parent / "README.md").read_text()
    for heading in ("Data", "Recipe", "Metrics", "Limits", "License"):
        assert f"\n## {heading}\n" in card
    assert "denoiser" not in shipped_weights()
