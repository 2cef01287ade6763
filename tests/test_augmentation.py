"""Augmentation against the paper's steps for single images, and as an option of a model."""

import pytest
import torch

from gan_lightning import InputError
from gan_lightning.augmentation import Augmentation, change_color, cut_out, translate
from tests.augmented import augmented

KINDS = [("color",), ("translation",), ("cutout",), ("color", "translation", "cutout")]


def some_images(count=24, channels=3, side=16):
    rng = torch.Generator().manual_seed(3)
    return torch.rand(count, channels, side, side, generator=rng, dtype=torch.float64).float() * 2 - 1


@pytest.mark.parametrize("probability", [1.0, 0.4])
@pytest.mark.parametrize("kinds", KINDS, ids="-".join)
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_it_is_the_papers(kinds, probability, memory):
    images, settings = some_images().to(memory_format=memory), Augmentation(kinds, probability)
    ours = settings(images, torch.Generator().manual_seed(0))
    theirs = augmented(images, settings, torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    unchanged = (ours - images).flatten(1).abs().amax(1) < 1e-6
    expected = (1 - probability) ** len(kinds)  # a translation by nothing changes nothing, either
    assert abs(unchanged.float().mean() - expected) < 0.25


@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_are_those_of_the_papers(channels):
    images, weights = some_images(8, channels), some_images(8, channels).flip(0)
    gradients = []
    for function in (Augmentation(), lambda x, rng: augmented(x, Augmentation(), rng)):
        given = images.clone().requires_grad_()
        (function(given, torch.Generator().manual_seed(1)) * weights).sum().backward()
        gradients.append(given.grad)
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


def test_a_second_derivative_is_right():
    images, shift = some_images(2, side=6).double(), torch.tensor([1, -2])
    gray = torch.tensor([0.3, -0.2]).double()

    def change(x):
        return cut_out(translate(change_color(x, gray, gray + 1, gray + 2), shift, -shift), shift, shift).square()

    assert torch.autograd.gradgradcheck(change, (images.requires_grad_(),))


def test_draws_cover_their_ranges():
    """Pixels of a white image tell where it has been moved, and what has been cut out."""
    side, count = 16, 4000
    white = torch.ones(count, 1, side, side)
    moved = Augmentation(("translation",))(white, torch.Generator().manual_seed(0))
    top = (moved.amax((1, 3)) == 0).long()
    shifts = top[:, : side // 2].sum(1) - top[:, side // 2 :].sum(1)
    assert shifts.unique().tolist() == [-2, -1, 0, 1, 2]
    cut = Augmentation(("cutout",))(white, torch.Generator().manual_seed(0)) == 0
    areas = cut.flatten(1).sum(1)
    assert areas.min() == (side // 4) ** 2  # a corner
    assert areas.max() == (side // 2) ** 2
    assert abs(float(cut.float().mean(0)[0, 0, 0]) - (5 / 17) ** 2) < 0.02  # centers from 0 to 4 of 0 to 16


def test_a_number_of_draws_that_does_not_depend_on_the_kinds():
    """What comes after it in a step is the same for all kinds."""
    after = []
    for kinds in KINDS:
        rng = torch.Generator().manual_seed(0)
        Augmentation(kinds, 0.5)(some_images(), rng)
        after.append(torch.rand(1, generator=rng))
    assert len(set(map(float, after))) == 1


def test_half_precision_is_augmented_in_float32():
    images = some_images().bfloat16()
    ours = Augmentation()(images, torch.Generator().manual_seed(0))
    assert ours.dtype == torch.float32
    assert torch.equal(ours, Augmentation()(images.float(), torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ()}, "augmentation.kinds is"),
        ({"kinds": ("color", "blur")}, "give one or more of color, translation, cutout"),
        ({"kinds": ("color", "color")}, "augmentation.kinds is"),
        ({"probability": 0.0}, "augmentation.probability must lie in"),
        ({"probability": 1.5}, "augmentation.probability must lie in"),
        ({"adaptive_target": 1.0}, "augmentation.adaptive_target must lie in"),
        ({"adaptive_images": 0}, "augmentation.adaptive_images must be at least 1"),
        ({"probability": float("nan")}, "augmentation.probability must lie in"),
    ],
)
def test_a_wrong_setting_is_one_line(options, message):
    with pytest.raises(InputError, match=message):
        Augmentation(**options)


def test_settings_of_a_checkpoint():
    assert Augmentation.of({"kinds": ["cutout"], "probability": 0.5}) == Augmentation(("cutout",), 0.5)
    assert Augmentation.of(None) is None
    with pytest.raises(InputError, match="no option strength"):
        Augmentation.of({"strength": 1})
