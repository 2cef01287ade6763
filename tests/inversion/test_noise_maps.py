"""Noise maps of StyleGAN2 as variables: white, normalized, the same in any batch, and refused by other priors."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gan_lightning.degradations import GaussianBlur, Identity, SquareMask
from gan_lightning.errors import InputError
from gan_lightning.inversion import InversionSettings, invert
from gan_lightning.inversion.noise_maps import autocorrelation, normalize_maps
from gan_lightning.networks.dcgan import Generator
from gan_lightning.networks.stylegan2 import StyleGAN2Generator
from gan_lightning.networks.stylegan2_prior import StyleGAN2Prior

PLAIN: dict[str, Any] = {"noise_level": 0.0, "latent_weight": 0.0, "composite": False, "start": "mean"}
QUICK: dict[str, Any] = {"noise_maps": "optimized", "noise_level": 0.0, "num_steps": 6, "refine_steps": 3}


@pytest.fixture(scope="module")
def generator() -> StyleGAN2Generator:
    """One of 16 px in which noise is clearly visible."""
    torch.manual_seed(4)
    sizes = {"latent_dim": 16, "w_dim": 16, "base_channels": 8, "max_channels": 16, "mapping_layers": 2}
    generator = StyleGAN2Generator(16, **sizes).eval().requires_grad_(False)
    for layer in generator.synthesis.layers():
        layer.noise_strength.fill_(0.3)
    return generator


@pytest.fixture(scope="module")
def images(generator: StyleGAN2Generator) -> Tensor:
    """Images with noise of their own, about [-1, 1]."""
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        ws = generator.mapping(torch.randn(3, 16, generator=rng))
        images: Tensor = generator.synthesis(ws, noise_mode="random", rng=rng)
    return images / images.abs().amax()


def test_noise_maps_are_those_of_the_buffers_until_others_are_given(generator: StyleGAN2Generator) -> None:
    prior = StyleGAN2Prior(generator)
    latents = prior.draw(2, torch.Generator().manual_seed(0))
    features, noise = prior.features(latents), prior.noise()
    assert len(noise) == 4**2 + 2 * 8**2 + 2 * 16**2
    torch.testing.assert_close(prior.render(features, noise.expand(2, -1)), prior(latents))
    random = torch.randn(2, len(noise), generator=torch.Generator().manual_seed(1))
    together = prior.render(features, random)
    assert (together - prior(latents)).abs().max() > 0.1
    torch.testing.assert_close(prior.render(features[1:], random[1:]), together[1:])


def test_maps_have_mean_zero_and_variance_one() -> None:
    noise = normalize_maps(3 + 2 * torch.randn(2, 16 + 64, generator=torch.Generator().manual_seed(0)), [4, 8])
    for values in torch.split(noise, [16, 64], 1):
        torch.testing.assert_close(values.mean(1), torch.zeros(2), atol=1e-6, rtol=0)
        torch.testing.assert_close(values.var(1, correction=0), torch.ones(2))


def test_the_regularizer_measures_correlations_at_all_scales() -> None:
    rng = torch.Generator().manual_seed(0)
    white = normalize_maps(torch.randn(1, 64**2, generator=rng), [64])
    assert autocorrelation(white, [64]) < 0.1
    sign = 1 - 2 * (torch.arange(16) % 2).float()
    checkers = (sign[:, None] * sign).flatten()[None]  # neighbors differ, and their means are zero
    assert autocorrelation(checkers, [16]).item() == pytest.approx(2)
    rows = sign.repeat_interleave(2)[:16, None].expand(16, 16).flatten()[None]  # pairs of rows, at the next scale +-2
    assert autocorrelation(rows, [16]).item() == pytest.approx(1 + 2 * 16)
    assert autocorrelation(torch.cat([rows, checkers], 1), [16, 16]).item() == pytest.approx(2 + 33)


@pytest.mark.parametrize("refine", ["none", "features"])
def test_optimized_noise_fits_images_better_than_held_noise(
    generator: StyleGAN2Generator, images: Tensor, refine: Any
) -> None:
    prior = StyleGAN2Prior(generator)
    settings = {**PLAIN, "num_steps": 40, "refine": refine, "refine_steps": 20}
    held = invert(prior, Identity(), images, **settings)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    found = invert(prior, Identity(), images, noise_maps="optimized", **settings)
    assert held.noise_maps is None
    assert found.noise_maps is not None
    errors = [(result.image - images).square().mean() for result in (held, found)]
    assert errors[1] < 0.8 * errors[0]
    assert all(before[name].equal(value) for name, value in generator.state_dict().items())
    sizes = prior.noise_sizes
    torch.testing.assert_close(normalize_maps(found.noise_maps, sizes), found.noise_maps, atol=1e-5, rtol=1e-5)
    assert autocorrelation(found.noise_maps, sizes).max() < 2 * autocorrelation(prior.noise()[None], sizes).max()
    if refine == "none":
        image = prior.render(prior.features(found.latent), found.noise_maps)
        torch.testing.assert_close(image, found.image, atol=1e-5, rtol=0)


@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
@pytest.mark.parametrize("space", ["w", "w+"])
def test_an_image_is_the_same_in_any_batch(
    generator: StyleGAN2Generator, images: Tensor, solver: Any, space: Any
) -> None:
    prior = StyleGAN2Prior(generator, space)
    settings = {**QUICK, "solver": solver, "num_searches": 2, "start": "random"}
    whole = invert(prior, GaussianBlur(1.0), images, **settings)
    alone = invert(prior, GaussianBlur(1.0), images[2:], indices=[2], **settings)
    assert alone.image.equal(whole.image[2:])
    again = invert(prior, GaussianBlur(1.0), images[2:], indices=[2], **settings)
    assert again.image.equal(alone.image)
    other = invert(prior, GaussianBlur(1.0), images[2:], indices=[2], rng=torch.Generator().manual_seed(1), **settings)
    assert not other.latent.equal(alone.latent)


def test_weights_are_tuned_around_the_maps_that_were_found(generator: StyleGAN2Generator, images: Tensor) -> None:
    hole = SquareMask(16, 4)
    found = invert(StyleGAN2Prior(generator), hole, hole(images[:1]), refine="weights", restarts=1, **QUICK)
    assert found.image.isfinite().all()
    assert found.latent.shape == (1, 16)


def test_priors_without_noise_maps_refuse_to_optimize_them(generator: StyleGAN2Generator, images: Tensor) -> None:
    for prior in (Generator(16, latent_dim=8, base_channels=4), StyleGAN2Prior(generator, noise_mode="none")):
        with pytest.raises(InputError, match="set noise_maps to held"):
            invert(prior, Identity(), images, noise_maps="optimized")
    with pytest.raises(InputError, match="choose the solver adam or lbfgs"):
        InversionSettings(solver="levenberg_marquardt", noise_maps="optimized")
