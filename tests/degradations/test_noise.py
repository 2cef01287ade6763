"""Moments of the noise, and its dependence on the index of the image alone."""

from collections.abc import Callable

import pytest
import torch

from gan_lightning.degradations import GaussianNoise, PoissonNoise, SaltAndPepperNoise
from gan_lightning.degradations.noise import Noise
from gan_lightning.errors import InputError
from gan_lightning.seeding import image_rng

GRAY = torch.zeros(4, 3, 64, 64)  # 0.5 on the [0, 1] scale


@pytest.mark.parametrize("noise", [GaussianNoise(0.1), PoissonNoise(30.0), SaltAndPepperNoise(0.2)])
def test_depends_on_the_index_alone(noise: Noise) -> None:
    whole = noise(GRAY, [7, 8, 9, 10])
    assert torch.equal(noise(GRAY[:2], [9, 7]), whole[[2, 0]])
    assert not torch.equal(whole[0], whole[1])
    assert torch.equal(noise(GRAY[:1]), noise(GRAY[:1], [0]))


def test_moments_on_the_unit_scale() -> None:
    gaussian = (GaussianNoise(0.1)(GRAY) + 1) / 2
    assert gaussian.mean().item() == pytest.approx(0.5, abs=2e-3)
    assert gaussian.std().item() == pytest.approx(0.1, rel=0.02)
    photons = (PoissonNoise(50.0)(GRAY) + 1) / 2
    assert photons.mean().item() == pytest.approx(0.5, abs=3e-3)
    assert photons.var().item() == pytest.approx(0.5 / 50, rel=0.03)  # variance of a count of mean 25, over 50 squared
    salted = SaltAndPepperNoise(0.2)(GRAY)
    assert (salted == 1).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert (salted == -1).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert ((salted != 0).float().std(1) == 0).all()  # whole pixels


def test_seed_and_clip() -> None:
    assert not torch.equal(GaussianNoise(0.1, seed=1)(GRAY), GaussianNoise(0.1)(GRAY))
    assert GaussianNoise(2.0, clip=True)(GRAY).abs().max() <= 1


@pytest.mark.parametrize("make", [lambda: GaussianNoise(-1), lambda: PoissonNoise(0), lambda: SaltAndPepperNoise(1.5)])
def test_levels_out_of_range(make: Callable[[], object]) -> None:
    with pytest.raises(InputError, match="above 0"):
        make()


@pytest.mark.parametrize("index", [0, 7])
def test_noise_is_what_it_says_of_each_image(index: int) -> None:
    """Pixel by pixel, from the generator of the image; in the image's own precision."""
    image = torch.rand(3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) * 2 - 1
    rng = image_rng(4, index, "noise")
    expected = image + 0.2 * torch.randn(3, 8, 8, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(GaussianNoise(0.1, seed=4)(image[None], [index])[0], expected)

    rng = image_rng(4, index, "noise")
    expected = torch.poisson(20 * (image + 1) / 2, generator=rng) / 20 * 2 - 1
    torch.testing.assert_close(PoissonNoise(20.0, seed=4)(image[None], [index])[0], expected)

    chance = torch.rand(1, 8, 8, generator=image_rng(4, index, "noise"), dtype=torch.float64).expand(3, 8, 8)
    expected = torch.where(chance < 0.2, -1.0, torch.where(chance < 0.4, 1.0, image))
    torch.testing.assert_close(SaltAndPepperNoise(0.4, seed=4)(image[None], [index])[0], expected)


def test_each_noise_has_its_seed_and_nothing_is_cut_unless_asked() -> None:
    dark = torch.full((2, 3, 16, 16), -0.95)
    for make in (GaussianNoise, PoissonNoise, SaltAndPepperNoise):
        level = 30.0 if make is PoissonNoise else 0.3
        assert torch.equal(make(level)(dark), make(level, seed=0)(dark))
        assert not torch.equal(make(level)(dark), make(level, seed=1)(dark))
    assert GaussianNoise(0.3)(dark).min() < -1.2
    bright = -dark
    assert PoissonNoise(30.0)(bright).max() > 1.2
    assert PoissonNoise(30.0, clip=True)(bright).max() == 1
    assert PoissonNoise(30.0, clip=True, seed=1)(bright).min() < 1


def test_no_photon_comes_from_below_black() -> None:
    assert (PoissonNoise(1.0)(torch.full((1, 3, 4, 4), -1.5)) == -1).all()


def test_levels_at_the_ends_of_their_range() -> None:
    assert (SaltAndPepperNoise(1.0)(GRAY).abs() == 1).all()
    for make in (lambda: GaussianNoise(0.0), lambda: SaltAndPepperNoise(0.0)):
        with pytest.raises(InputError, match="above 0"):
            make()


def test_every_image_needs_its_index() -> None:
    with pytest.raises(ValueError, match="zip"):
        GaussianNoise(0.1)(GRAY, [1, 2])
