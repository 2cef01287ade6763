"""Images are reduced before they are degraded and compared."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gan_lightning.degradations import Compose, Degradation, Downsample, GaussianBlur, Grayscale, Identity, SquareMask
from gan_lightning.errors import InputError
from gan_lightning.inversion import InversionSettings, estimate_blur, invert
from gan_lightning.inversion.loss_size import ReducedPrior, after_reduction, reduction
from gan_lightning.networks.dcgan import Generator

SETTINGS: dict[str, Any] = {"noise_level": 0.0, "num_steps": 15, "refine_steps": 5, "num_searches": 1}


@pytest.mark.parametrize("degradation", [SquareMask(8, 2), GaussianBlur(1.0), Grayscale(3), Downsample(2)])
def test_it_is_the_inversion_of_the_composition(
    generator: Generator, other_images: Tensor, degradation: Degradation
) -> None:
    observed = degradation(F.avg_pool2d(other_images, 2))
    settings = {**SETTINGS, "latent_weight": 0.003}
    found = invert(generator, degradation, observed, loss_size=8, **settings)
    expected = invert(generator, Compose([Downsample(2), degradation]), observed, **settings)
    assert found.image.equal(expected.image)
    assert found.image.shape == other_images.shape
    if not isinstance(degradation, SquareMask):  # a function does not tell what it hides
        plain = invert(generator, lambda images: degradation(images), observed, loss_size=8, **settings)
        torch.testing.assert_close(plain.latent, expected.latent)


def test_results_agree_with_the_reduced_photograph_and_are_the_same_in_any_batch(
    generator: Generator, other_images: Tensor
) -> None:
    small = F.avg_pool2d(other_images, 2).clamp(-1, 1)
    found = invert(generator, Identity(), small, loss_size=8, **SETTINGS)
    before = invert(generator, Identity(), small, loss_size=8, composite=False, **SETTINGS)
    errors = [(F.avg_pool2d(result.image, 2) - small).square().mean() for result in (found, before)]
    assert errors[0] < 0.1 * errors[1]
    alone = invert(generator, Identity(), small[2:3], loss_size=8, indices=[2], **SETTINGS)
    assert alone.image.equal(found.image[2:3])


def test_noise_is_estimated_at_the_size_of_the_photograph(generator: Generator) -> None:
    x = (2 * torch.pi * torch.arange(8) / 8).cos()
    noisy = 0.3 * (x + x[:, None]).expand(2, 3, 8, 8) + 0.3 * torch.randn(
        2, 3, 8, 8, generator=torch.Generator().manual_seed(0)
    )
    found = invert(generator, Identity(), noisy, loss_size=8, num_steps=2, refine="none")
    assert (found.noise_level > 0.05).all()


def test_an_unknown_blur_is_estimated_in_reduced_images(generator: Generator, other_images: Tensor) -> None:
    prior = ReducedPrior(generator, reduction(16, 8))
    blurred = GaussianBlur(1.0)(F.avg_pool2d(other_images, 2))
    estimate = estimate_blur(prior, blurred, sigmas=(0.5, 1.0, 2.0))
    assert estimate.sigma.isfinite().all()
    assert estimate.latent.shape == (6, 8)


def test_images_may_have_blurs_of_their_own(generator: Generator, other_images: Tensor) -> None:
    sigmas = [0.6, 1.0, 1.6]
    blurred = GaussianBlur(sigmas)(F.avg_pool2d(other_images[:3], 2))
    whole = invert(generator, GaussianBlur(sigmas), blurred, loss_size=8, **{**SETTINGS, "num_searches": 2})
    for row, sigma in enumerate(sigmas):
        one, settings = blurred[row : row + 1], {**SETTINGS, "num_searches": 2, "indices": [row]}
        alone = invert(generator, GaussianBlur([sigma]), one, loss_size=8, **settings)
        torch.testing.assert_close(alone.image[0], whole.image[row], atol=1e-4, rtol=0)


def test_the_size_of_the_generator_changes_nothing(generator: Generator, other_images: Tensor) -> None:
    whole = invert(generator, SquareMask(16, 4), other_images, **SETTINGS)
    assert invert(generator, SquareMask(16, 4), other_images, loss_size=16, **SETTINGS).image.equal(whole.image)
    blur = GaussianBlur(1.0)
    assert after_reduction(reduction(16, 16), blur) is blur


def test_what_does_not_fit_is_refused(generator: Generator, other_images: Tensor) -> None:
    for size, message in ((10, "loss_size is 10, but .* have 16 pixels: choose 2, 4, 8, 16"), (32, "loss_size is 32")):
        with pytest.raises(InputError, match=message):
            invert(generator, Identity(), other_images, loss_size=size)
    with pytest.raises(InputError, match="give a whole number of 1 or more"):
        InversionSettings(loss_size=0)
    with pytest.raises(InputError, match=r"mask\(s\) of 16x16 pixels for 6 image\(s\) of 8x8"):
        invert(generator, SquareMask(16, 4), other_images, loss_size=8)
    with pytest.raises(InputError, match="16x16 pixels, but the degraded generator's of 8x8"):
        invert(generator, Identity(), other_images, loss_size=8)
