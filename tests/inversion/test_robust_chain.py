"""The robust chain: normalized steps, one latent for each filter, the same result in any batch."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gan_lightning.degradations import Downsample, Identity, SquareMask
from gan_lightning.errors import InputError
from gan_lightning.inversion import InversionSettings, invert
from gan_lightning.inversion.losses import mse
from gan_lightning.inversion.problem import Problem, Stopping
from gan_lightning.inversion.robust_chain import LENGTHS, STEPS, normalized_descent
from gan_lightning.networks.dcgan import Generator
from gan_lightning.networks.stylegan2 import StyleGAN2Generator
from gan_lightning.networks.stylegan2_prior import StyleGAN2Prior

ROBUST: dict[str, Any] = {"solver": "robust", "noise_level": 0.0, "composite": False}


@pytest.fixture(scope="module")
def prior() -> StyleGAN2Prior:
    torch.manual_seed(4)
    sizes = {"latent_dim": 16, "w_dim": 16, "base_channels": 8, "max_channels": 16, "mapping_layers": 2}
    return StyleGAN2Prior(StyleGAN2Generator(16, **sizes).eval().requires_grad_(False))


@pytest.fixture(scope="module")
def photos(prior: StyleGAN2Prior) -> Tensor:
    """Images outside the range of the generator."""
    with torch.no_grad():
        images: Tensor = prior(prior.draw(4, torch.Generator().manual_seed(1)))
    return (images[:3] + 0.3 * images[1:].roll(4, 3)) / images.abs().amax()


@torch.no_grad()
def test_filters_have_latents_of_their_own(prior: StyleGAN2Prior) -> None:
    """Against w for each filter written out, as the paper has it."""
    synthesis = prior.generator.synthesis
    features = prior.features(prior.draw(2, torch.Generator().manual_seed(2)))
    assert prior.num_filters == 16 + 16 + 16 + 16 + 16 + 16 + 8 + 8
    nothing = torch.zeros(2, prior.num_filters)
    torch.testing.assert_close(prior.render_filters(features, nothing), prior.render(features))
    shifts = torch.randn(2, prior.num_filters, generator=torch.Generator().manual_seed(3))
    ws, styles, first, place = prior.ws(features[:, :16]).clone(), [], 0, 0
    ws[:] = prior.mean + prior.spread * features.view(2, prior.num_ws, 16)
    for block in synthesis.blocks():
        for index, layer in enumerate([*block.layers(), block.torgb]):
            vectors = layer.affine.weight / layer.affine.weight.norm(dim=1, keepdim=True)
            moves = prior.spread * shifts[:, place : place + len(vectors), None] * vectors
            own = (ws[:, first + index, None] + moves).flatten(0, 1)  # w of each filter
            all_styles = layer.styles(own).unflatten(0, (2, -1))
            styles.append(all_styles.diagonal(dim1=1, dim2=2))
            place += len(vectors)
        first += len(block.layers())
    expected = synthesis.from_styles(styles, noise_mode="const")
    torch.testing.assert_close(prior.render_filters(features, shifts), expected, atol=1e-4, rtol=1e-4)


def test_steps_are_normalized_for_each_vector_whatever_the_scale_of_the_loss() -> None:
    def bowl(scale: float) -> Problem:
        target = torch.zeros(2, 1, 2, 3)
        return Problem(
            lambda v: v.view(2, 1, 2, 3),
            Identity(),
            target,
            lambda a, b: scale * mse(a, b),
            torch.ones(2),
            torch.zeros(2, 6),
            torch.zeros(2, 1),
        )

    start = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    steps = Stopping(1, 0.0, torch.zeros(2))
    found = [normalized_descent(bowl(scale), start, steps, 3, 0.1).variables for scale in (1.0, 1e4)]
    torch.testing.assert_close(found[0], found[1])
    moves = (found[0] - start).view(2, 2, 3)
    torch.testing.assert_close(moves.norm(dim=2), torch.full((2, 2), 0.1 * 3**0.5))
    torch.testing.assert_close(torch.cosine_similarity(moves, -start.view(2, 2, 3), dim=2), torch.ones(2, 2))


def test_each_phase_goes_on_from_the_one_before(prior: StyleGAN2Prior, photos: Tensor) -> None:
    before = {name: value.clone() for name, value in prior.state_dict().items()}
    first = invert(prior, Identity(), photos, refine="none", **ROBUST)
    found = invert(prior, Identity(), photos, **ROBUST)
    assert len(found.history) == 3 * STEPS + 1
    assert found.latent_steps == STEPS
    assert found.latent.equal(first.latent)
    assert found.history[: STEPS + 1].equal(first.history)
    ends = torch.stack([found.history[:end].min(0).values for end in (1, STEPS + 1, 2 * STEPS + 1, 3 * STEPS + 1)])
    assert (ends.diff(dim=0) < 0).all()
    assert all(before[name].equal(value) for name, value in prior.state_dict().items())
    # From the mean of w, no latent is further away than its steps reach.
    assert (found.latent.norm(dim=1) <= STEPS * LENGTHS["w"] * 16**0.5 + 1e-4).all()
    at_mean = invert(prior, Identity(), photos, start="mean", num_steps=0, refine="none", **ROBUST)
    torch.testing.assert_close(found.history[0], at_mean.loss)


@pytest.mark.parametrize("degradation", [SquareMask(16, 4), Downsample(2)])
def test_an_image_is_the_same_in_any_batch(prior: StyleGAN2Prior, photos: Tensor, degradation: Any) -> None:
    observed = degradation(photos)
    settings = {**ROBUST, "composite": True, "num_steps": 8, "refine_steps": 8, "num_searches": 2}
    whole = invert(prior, degradation, observed, **settings)
    alone = invert(prior, degradation, observed[2:], indices=[2], **{**settings, "num_searches": 2})
    assert alone.image.equal(whole.image[2:])
    single = {**settings, "num_searches": 1}
    alone = invert(prior, degradation, observed[2:], indices=[2], **single)
    assert alone.image.equal(invert(prior, degradation, observed, **single).image[2:])


def test_nothing_is_chosen_by_the_degradation() -> None:
    for every_pixel in (True, False):
        assert InversionSettings(solver="robust").counts(every_pixel) == (1, STEPS, STEPS)
        assert InversionSettings(solver="robust", num_searches=3).counts(every_pixel) == (3, STEPS, STEPS)
    assert InversionSettings(solver="robust").chosen_start == "mean"
    assert InversionSettings().chosen_start == "best_of_k"


def test_what_it_cannot_search_is_refused(prior: StyleGAN2Prior, photos: Tensor) -> None:
    for other in (Generator(16, latent_dim=8, base_channels=4), StyleGAN2Prior(prior.generator, "z")):
        with pytest.raises(InputError, match="StyleGAN2 in space w"):
            invert(other, Identity(), photos, solver="robust")
    for options in ({"noise_maps": "optimized"}, {"refine": "weights"}):
        with pytest.raises(InputError, match="neither optimizes noise maps nor tunes weights"):
            InversionSettings(solver="robust", **options)  # type: ignore[arg-type]
