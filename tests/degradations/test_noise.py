"""Moments of the noise, and its dependence on the index of the image alone."""

from collections.abc import Callable

import pytest
import torch

from gan_lightning.degradations import GaussianNoise, PoissonNoise, SaltAndPepperNoise
from gan_lightning.degradations.noise import Noise
from gan_lightning.errors import InputError

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
