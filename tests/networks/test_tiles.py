"""Tiles agree with the whole image: exactly with enough border, within a bound with the usual one."""

import pytest
import torch

from gan_lightning.errors import InputError
from gan_lightning.images import to_uint8
from gan_lightning.networks.rrdb import RRDBNet
from gan_lightning.networks.tiles import BORDER, SMALLEST_TILE, enlarge_in_tiles, spans
from gan_lightning.upscaler import Upscaler


@pytest.mark.parametrize("side", [1, 95, 96, 97, 130, 161, 200, 391])
@pytest.mark.parametrize(("tile", "multiple"), [(96, 1), (96, 4), (128, 2), (0, 1)])
def test_weights_of_tiles_add_up_to_one(side, tile, multiple):
    found, total = spans(side, tile, BORDER, 2, multiple), torch.zeros(2 * side)
    for span in found:
        total[2 * span.start : 2 * span.stop] += span.weight
        assert span.start % multiple == 0
        assert tile == 0 or span.stop - span.start <= tile + multiple
        inner = (torch.arange(2 * span.start, 2 * span.stop) + 0.5) / 2
        near_cut = (inner - span.start < BORDER / 2 - multiple) & (span.start > 0)
        assert not span.weight[near_cut].any()
    torch.testing.assert_close(total, torch.ones(2 * side))
    assert (found[0].start, found[-1].stop) == (0, side)
    assert len(found) == 1 or tile


def make(scale):
    torch.manual_seed(0)
    network = RRDBNet(3, scale, features=4, blocks=1).eval().requires_grad_(False)
    return network, Upscaler(network, "RRDBNet", 3, scale, "", network.shuffle)


@pytest.mark.parametrize("scale", [4, 2])
def test_tiles_with_enough_border_are_the_whole_image(scale):
    network, upscaler = make(scale)
    border = 2 * network.radius + -2 * network.radius % network.shuffle
    image = torch.rand(3, 3 * border + 21, 4 * border + 7) * 2 - 1
    strips = list(enlarge_in_tiles(upscaler, image, scale, 3 * border, border, upscaler.multiple))
    assert len(strips) > 1
    whole = to_uint8(upscaler(image[None])[0])
    assert (torch.cat(strips, 1).int() - whole.int()).abs().max() <= 1  # rounding of a blend of equal values
    assert (torch.cat(strips, 1) != whole).float().mean() < 1e-3


def test_memory_is_that_of_a_tile():
    seen = []

    def network(images):
        seen.append(tuple(images.shape[-2:]))
        return images.repeat_interleave(2, 2).repeat_interleave(2, 3)

    image = torch.rand(1, 301, 203) * 2 - 1
    strips = list(enlarge_in_tiles(network, image, 2, SMALLEST_TILE))
    assert torch.equal(torch.cat(strips, 1), to_uint8(image.repeat_interleave(2, 1).repeat_interleave(2, 2)))
    assert max(max(size) for size in seen) <= SMALLEST_TILE
    assert max(strip.shape[1] for strip in strips) <= 2 * SMALLEST_TILE


def test_a_tile_smaller_than_its_border_is_refused():
    with pytest.raises(InputError, match="a tile of 64 pixels is too small for its border of 32"):
        next(enlarge_in_tiles(lambda x: x, torch.zeros(3, 10, 10), 1, 64))
