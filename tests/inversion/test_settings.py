"""Settings of an inversion: what they refuse, and how `invert` takes them."""

import re
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest
import torch
from torch import Tensor

from gan_lightning.degradations import Identity
from gan_lightning.errors import InputError
from gan_lightning.inversion import InversionSettings, invert
from gan_lightning.networks.dcgan import Generator


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "newton"}, "solver 'newton' is unknown: choose one of auto"),
        ({"num_steps": 2.5}, "num_steps is 2.5: give a whole number of 0 or more"),
        ({"num_searches": True}, "num_searches is True: give a whole number of 1 or more"),
        ({"noise_level": "low"}, "noise_level is low: give a number of 0 or more"),
        ({"loss": "l3"}, "loss 'l3'"),
        ({"start": "zeros"}, "start 'zeros'"),
        ({"refine": "all"}, "refine 'all'"),
        ({"num_steps": -1}, "num_steps is -1"),
        ({"latent_weight": float("nan")}, "latent_weight is nan"),
        ({"start_scale": -1.0}, "start_scale is -1"),
        ({"restarts": -1}, "restarts is -1"),
        ({"tolerance": float("inf")}, "tolerance is inf"),
        ({"noise_level": -0.1}, "noise_level is -0.1"),
        ({"refine_steps": -1}, "refine_steps is -1"),
        ({"refine_weight": -1.0}, "refine_weight is -1"),
        ({"solver": "levenberg_marquardt", "loss": "l1"}, "not l1"),
    ],
)
def test_invalid_settings_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        InversionSettings(**options)


def test_settings_are_frozen_plain_values_that_are_all_explained() -> None:
    settings = InversionSettings()
    with pytest.raises(FrozenInstanceError):
        settings.num_steps = 3  # type: ignore[misc]
    for field in fields(settings):
        assert isinstance(getattr(settings, field.name), str | int | float | bool | None)
        assert re.search(rf"^ +{field.name}: \w+|^ +{field.name}: \"", InversionSettings.__doc__ or "", re.MULTILINE)


def test_settings_and_keywords_are_the_same(generator: Generator, other_images: Tensor) -> None:
    options: dict[str, Any] = {"num_steps": 4, "start": "random", "refine_steps": 2, "latent_weight": 0.1}
    settings = InversionSettings(**options)
    expected = invert(generator, Identity(), other_images, settings).image
    assert torch.equal(invert(generator, Identity(), other_images, **options).image, expected)
    other = InversionSettings(**{**options, "num_steps": 9, "start": "mean"})
    changed = invert(generator, Identity(), other_images, other, num_steps=4, start="random").image
    assert torch.equal(changed, expected)
    assert not torch.equal(invert(generator, Identity(), other_images, other).image, expected)


def test_a_keyword_that_is_no_setting_is_named(generator: Generator, other_images: Tensor) -> None:
    with pytest.raises(TypeError, match="num_stops"):
        invert(generator, Identity(), other_images, num_stops=3)
