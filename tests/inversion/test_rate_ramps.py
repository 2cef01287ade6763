"""The schedule of the projector: ramps of the rate, noise that decays, the same result in any batch."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gan_lightning.degradations import Identity, SquareMask
from gan_lightning.errors import InputError
from gan_lightning.inversion import InversionSettings, invert
from gan_lightning.inversion.rate_ramps import NOISE, RateRamps, rate_factor
from gan_lightning.networks.dcgan import Generator

PROJECTOR: dict[str, Any] = {"solver": "adam", "schedule": "projector", "noise_level": 0.0, "latent_weight": 0.0}


def test_the_rate_rises_over_a_twentieth_and_falls_over_the_last_quarter() -> None:
    assert [rate_factor(progress) for progress in (0.0, 0.025, 0.05, 0.5, 0.75)] == pytest.approx([0, 0.5, 1, 1, 1])
    assert rate_factor(0.875) == pytest.approx(0.5)
    assert rate_factor(1.0) == pytest.approx(0, abs=1e-12)


def test_noise_decays_to_nothing_and_leaves_other_variables_alone() -> None:
    ramps = RateRamps(4000, 3, [(7, 0), (8, 0)], 0)
    variables = torch.ones(2, 4005)
    for progress, strength in ((0.0, NOISE), (0.375, NOISE / 4)):
        noise = ramps.explore(variables, progress) - variables
        assert noise[:, :4000].std(1).tolist() == pytest.approx([strength] * 2, rel=0.05)
        assert not noise[:, 4000:].any()
    assert ramps.explore(variables, 0.75) is variables


def test_an_image_is_the_same_in_any_batch(generator: Generator, other_images: Tensor) -> None:
    hole = SquareMask(16, 4)
    settings = {**PROJECTOR, "num_searches": 2, "num_steps": 30, "restarts": 1, "refine_steps": 2}
    whole = invert(generator, hole, hole(other_images), **settings)
    alone = invert(generator, hole, hole(other_images[3:4]), indices=[3], **settings)
    assert alone.image.equal(whole.image[3:4])
    other = invert(
        generator, hole, hole(other_images[3:4]), indices=[3], rng=torch.Generator().manual_seed(1), **settings
    )
    assert not other.latent.equal(alone.latent)


def test_all_steps_are_taken_and_the_best_latent_is_kept(generator: Generator, other_images: Tensor) -> None:
    settings = {**PROJECTOR, "num_steps": 60, "start": "mean", "refine": "none", "composite": False, "tolerance": 0.5}
    found = invert(generator, Identity(), other_images, **settings)
    assert (found.num_steps == 60).all()
    assert found.loss.equal(found.history.min(0).values)
    # At first the latents are far from where the search is; in the end nothing moves.
    assert (found.history[1:10].diff(dim=0).abs().mean(0) > 30 * found.history[-3:].diff(dim=0).abs().mean(0)).all()
    assert (found.loss < 0.5 * found.history[0]).all()


def test_other_solvers_have_no_schedule() -> None:
    with pytest.raises(InputError, match="set solver to adam"):
        InversionSettings(schedule="projector")
    with pytest.raises(InputError, match="schedule 'linear' is unknown"):
        InversionSettings(schedule="linear")  # type: ignore[arg-type]
    assert InversionSettings(loss="l1", schedule="projector").chosen_solver == "adam"
