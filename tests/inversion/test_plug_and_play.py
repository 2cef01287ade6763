"""Restored images regularized by a denoiser."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from gan_lightning.degradations import Degradation, Downsample, GaussianBlur, SquareMask
from gan_lightning.inversion import plug_and_play as module
from gan_lightning.inversion.data_consistency import data_consistency
from gan_lightning.inversion.learned_prior import photographic
from gan_lightning.inversion.plug_and_play import regularize
from tests.rendered_faces import rendered_faces

OPERATORS = [GaussianBlur(1.5), Downsample(4), SquareMask(32, 8)]


def stripes() -> Tensor:
    """Gray images (2,1,32,32) that resemble themselves: diagonal stripes, and a step."""
    place = torch.arange(32)
    images = torch.stack([((place[:, None] + place) % 8 < 4) * 1.0, (place[:, None] + 0 * place < 16) * 1.0])
    return images[:, None] - 0.5


@pytest.mark.parametrize("operator", OPERATORS, ids=["blur", "4x", "hole"])
@pytest.mark.parametrize("clean", [stripes(), rendered_faces(32)], ids=["gray", "color"])
def test_images_are_restored_better(operator: Degradation, clean: Tensor) -> None:
    none = torch.zeros(2)
    wrong = clean + 0.2 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    consistent = data_consistency(wrong, operator, operator(clean), none)
    better = regularize(consistent, operator, operator(clean), none, torch.full((2,), 0.02))
    before, after = ((images - clean).square().mean((1, 2, 3)) for images in (consistent, better))
    assert after.mean() < 0.8 * before.mean()
    if clean.shape[1] == 1:  # an eye of one of the faces gets lost in the hole
        assert (after < 0.8 * before).all()
    assert (operator(better) - operator(clean)).abs().max() < 0.02


@pytest.mark.parametrize("channels", [1, 3])
def test_what_the_generator_explains_exactly_is_left_alone(channels: int) -> None:
    images = torch.rand(2, channels, 16, 16, generator=torch.Generator().manual_seed(0)) - 0.5
    small = Downsample(4)
    kept = regularize(images, small, small(images), torch.zeros(2), torch.tensor([0.0, 0.02]))
    assert torch.equal(kept[0], images[0])
    assert not torch.allclose(kept[1], images[1], atol=1e-2)


def test_images_unlike_photographs_are_regularized_by_their_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    speckled = 0.5 * torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert photographic(torch.cat([rendered_faces(32), speckled])).tolist() == [True, True, False, False]
    assert not photographic(stripes()).any()
    hole, none, residual = SquareMask(32, 8), torch.zeros(3), torch.full((3,), 0.02)
    both = torch.cat([rendered_faces(32), speckled[:1]])
    mixed = regularize(both, hole, hole(both), none, residual)
    for rows in (slice(0, 2), slice(2, 3)):
        alone = regularize(both[rows], hole, hole(both[rows]), none[rows], residual[rows])
        assert torch.equal(alone, mixed[rows])
    monkeypatch.setattr(module, "photographic", lambda images: torch.zeros(len(images), dtype=torch.bool))
    patches = regularize(both, hole, hole(both), none, residual)
    assert torch.equal(patches[2], mixed[2])
    assert not torch.equal(patches[:2], mixed[:2])


def test_the_network_regularizes_photographs_with_falling_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    levels: list[Tensor] = []

    def recorded(images: Tensor, noise_level: Tensor) -> Tensor:
        levels.append(noise_level)
        return images

    monkeypatch.setattr(module, "learned_denoiser", recorded)
    hole = SquareMask(32, 8)
    regularize(rendered_faces(32), hole, hole(rendered_faces(32)), torch.zeros(2), torch.tensor([0.01, 0.05]))
    assert len(levels) == 8
    torch.testing.assert_close(levels[0], torch.tensor([0.03, 0.12]))
    assert all((after < before).all() for before, after in pairwise(levels))
