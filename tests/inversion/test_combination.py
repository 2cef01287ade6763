"""Several searches for each image: their mean, their spread, and images that none of them explains."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gan_lightning.degradations import (
    Compose,
    Degradation,
    Downsample,
    GaussianNoise,
    Grayscale,
    Identity,
    SaltAndPepperNoise,
    SquareMask,
)
from gan_lightning.degradations.base import unwrap
from gan_lightning.errors import InputError
from gan_lightning.inversion import InversionSettings, invert
from gan_lightning.inversion.combination import mean_and_spread, solution_weights
from gan_lightning.inversion.data_consistency import linear_estimate
from gan_lightning.networks.dcgan import Generator

FEW: dict[str, Any] = {"num_steps": 10, "refine_steps": 5}


def test_weights_are_inverse_squares_of_the_losses() -> None:
    weights = solution_weights(torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 1.0]]))
    torch.testing.assert_close(weights[0], torch.tensor([16.0, 4.0, 1.0]) / 21)
    torch.testing.assert_close(weights[1], torch.tensor([0.5, 0.5, 0.0]))


def test_mean_and_spread_are_weighted() -> None:
    solutions = torch.randn(2, 3, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    mean, spread = mean_and_spread(solutions, torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]]).double())
    copies = torch.stack([solutions[0, 0], solutions[0, 0], solutions[0, 1], solutions[0, 2]])
    torch.testing.assert_close(mean[0], copies.mean(0))
    torch.testing.assert_close(spread[0, 0], copies.var(0, correction=0).mean(0).sqrt() / 2)
    assert torch.equal(mean[1], solutions[1, 0])
    assert spread[1].abs().max() == 0


@pytest.mark.parametrize("degradation", [SquareMask(16, 6), Downsample(4), Grayscale()], ids=lambda a: type(a).__name__)
def test_the_mean_of_several_searches_is_closer(
    generator: Generator, own_images: Tensor, degradation: Degradation
) -> None:
    """By the parallelogram law the mean has at most the mean error of its parts."""
    found = invert(generator, degradation, degradation(own_images), num_searches=6, start="random", **FEW)
    parts = (found.solutions - own_images[:, None]).square().flatten(2).mean((0, 2))
    assert (found.image - own_images).square().mean() < parts.mean()
    assert found.solutions.shape == (6, 6, 3, 16, 16)
    assert found.spread.shape == (6, 1, 16, 16)


def test_one_search_has_no_spread_and_is_the_first_of_several(generator: Generator, own_images: Tensor) -> None:
    hole = SquareMask(16, 6)
    one, three = (invert(generator, hole, hole(own_images), num_searches=n, noise_level=0.0, **FEW) for n in (1, 3))
    assert one.spread.abs().max() == 0
    torch.testing.assert_close(three.solutions[:, 0], one.solutions[:, 0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("start", ["random", "best_of_k", "mean"])
def test_searches_of_an_image_start_apart(generator: Generator, own_images: Tensor, start: Any) -> None:
    small = Downsample(4)
    settings: dict[str, Any] = {"num_searches": 3, "num_steps": 0, "refine": "none", "composite": False}
    solutions = invert(generator, small, small(own_images), start=start, **settings).solutions
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (solutions[:, one] - solutions[:, other]).abs().amax((1, 2, 3)).min() > 1e-3


def test_several_searches_do_not_depend_on_the_batch(generator: Generator, own_images: Tensor) -> None:
    small = Downsample(2)
    whole = invert(generator, small, small(own_images), num_searches=3, **FEW)
    part = invert(generator, small, small(own_images[2:4]), num_searches=3, indices=[2, 3], **FEW)
    for name in ("image", "spread", "latent", "loss", "num_steps", "explained"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[2:4]), name


def test_what_nothing_explains_is_restored_without_the_generator(generator: Generator, own_images: Tensor) -> None:
    checkers = (torch.arange(16)[:, None] + torch.arange(16)) // 2 % 2 * 2.0 - 1
    images = torch.cat([own_images[:2], checkers.expand(1, 3, 16, 16)])
    hole = SquareMask(16, 4)
    found = invert(generator, hole, hole(images), noise_level=0.0, **FEW)
    assert found.explained.tolist() == [True, True, False]
    estimate = linear_estimate(hole, hole(images), torch.zeros(3))
    assert torch.equal(found.image[2], estimate[2])
    assert not torch.allclose(found.image[:2], estimate[:2], atol=1e-3)
    alone = invert(generator, hole, hole(images), noise_level=0.0, composite=False, **FEW)
    assert not alone.explained[2]
    assert not torch.allclose(alone.image[2], estimate[2], atol=0.1)  # what was asked for


def test_details_of_a_noisy_photograph_that_the_generator_lacks_are_kept(
    generator: Generator, own_images: Tensor
) -> None:
    photograph = own_images.clone()
    photograph[:, :, 6:10, 6:10] += 0.8  # nothing that the generator makes
    noisy = GaussianNoise(0.1)(photograph)
    with_details, without = (
        invert(generator, Identity(), noisy, noise_level=0.1, composite=c, refine="none") for c in (True, False)
    )
    errors = [(found.image - photograph).square().mean() for found in (with_details, without)]
    assert errors[0] < 0.7 * errors[1]
    assert errors[0] < (noisy - photograph).square().mean()


def test_a_robust_loss_is_not_judged_by_squares(generator: Generator, own_images: Tensor) -> None:
    """Salt and pepper is far from the generator's image in the mean square, and nothing that a filter should keep."""
    observed = SaltAndPepperNoise(0.2)(own_images)
    settings: dict[str, Any] = {"loss": "l1", "refine": "none", "num_steps": 100}
    found, rendered = (invert(generator, Identity(), observed, composite=c, **settings) for c in (True, False))
    assert found.explained.all()
    assert torch.equal(found.image, rendered.image)


@pytest.mark.parametrize("wrapped", [Compose([SquareMask(16, 6)]), Compose([Identity(), Compose([SquareMask(16, 6)])])])
def test_a_composition_of_one_is_that_one(generator: Generator, own_images: Tensor, wrapped: Degradation) -> None:
    hole = SquareMask(16, 6)
    plain, composed = (invert(generator, each, hole(own_images), **FEW).image for each in (hole, wrapped))
    assert torch.equal(plain, composed)
    assert isinstance(unwrap(Compose([])), Identity)


def test_images_with_one_index_start_each_for_itself(generator: Generator, own_images: Tensor) -> None:
    settings: dict[str, Any] = {"num_steps": 0, "refine": "none"}
    small = Downsample(4)
    alike = invert(generator, small, small(own_images), indices=[0] * 6, **settings)
    apart = invert(generator, small, small(own_images), **settings)
    assert torch.equal(alike.latent, apart.latent)


def test_the_callback_is_told_of_the_best_search(generator: Generator, own_images: Tensor) -> None:
    hole, told = SquareMask(16, 6), []
    found = invert(
        generator,
        hole,
        hole(own_images),
        num_searches=3,
        noise_level=0.0,
        callback=lambda stage, step, losses, render: told.append((losses, render().shape)),
        **FEW,
    )
    losses, shape = told[-1]
    assert shape == own_images.shape
    torch.testing.assert_close(losses, found.loss)
    torch.testing.assert_close(found.history.amin(0), found.loss)


def test_the_default_number_of_searches_follows_from_what_is_observed() -> None:
    settings = InversionSettings()
    assert settings.counts(True).num_searches == 1
    assert settings.counts(False).num_searches == 8
    assert InversionSettings(refine="weights").counts(False).num_searches == 1
    several = InversionSettings(num_searches=2, refine_steps=7).counts(True)
    assert (several.num_searches, several.num_steps, several.refine_steps) == (2, 25, 7)


@pytest.mark.parametrize("count", [0, -1, 2.5, float("nan")])
def test_no_whole_search_is_refused(count: Any) -> None:
    with pytest.raises(InputError, match=f"num_searches is {count}: give a whole number of 1 or more"):
        InversionSettings(num_searches=count)
