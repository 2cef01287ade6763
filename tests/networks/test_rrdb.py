"""The generator of ESRGAN: its names are the public ones, its receptive field is what it says."""

import pytest
import torch

from gan_lightning.errors import InputError
from gan_lightning.networks.rrdb import RRDBNet, build_rrdb


def make(scale=4, channels=3, blocks=1):
    torch.manual_seed(0)
    return RRDBNet(channels, scale, features=8, blocks=blocks).eval().requires_grad_(False)


@pytest.mark.parametrize(("scale", "channels"), [(4, 3), (2, 3), (1, 3), (4, 1)])
def test_spandrel_recognizes_it_and_computes_the_same_pixels(scale, channels):
    spandrel = pytest.importorskip("spandrel")
    network, images = make(scale, channels, blocks=2), torch.rand(2, channels, 16, 12)
    theirs = spandrel.ModelLoader().load_from_state_dict(dict(network.state_dict()))
    assert (theirs.architecture.id, theirs.scale, theirs.input_channels) == ("ESRGAN", scale, channels)
    assert torch.equal(theirs.model.eval()(images), network(images))


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_the_receptive_field_ends_at_its_radius(scale):
    network = make(scale).double()
    for parameter in network.parameters():  # each path counts, however long
        parameter.data = parameter.data.abs() + 0.1
    side = 2 * network.radius + 5
    side += -side % network.shuffle
    middle = scale * (side // 2)
    image = torch.rand(1, 3, side, 8, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(network(image)[..., middle, :].sum(), image)
    reached = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
    reach = max(side // 2 - int(reached.min()), int(reached.max()) - side // 2)
    assert network.radius - 2 * network.shuffle <= reach <= network.radius


def test_a_network_is_rebuilt_from_its_weights():
    for scale, channels in ((4, 3), (2, 3), (1, 1)):
        network = make(scale, channels, blocks=2)
        again = build_rrdb(network.state_dict())
        assert (again.scale, again.channels) == (scale, channels)
        images = torch.rand(1, channels, 8, 8)
        assert torch.equal(again(images), network(images))
    state = network.state_dict()
    state.pop("conv_hr.bias")
    assert build_rrdb(state) is None
    assert build_rrdb({"conv_first.weight": torch.zeros(2, 3, 3, 3)}) is None


def test_unsupported_sizes_are_refused():
    with pytest.raises(InputError, match="scale 3 is not supported: choose one of 1, 2, 4"):
        RRDBNet(scale=3)
    with pytest.raises(InputError, match="blocks must be at least 1"):
        RRDBNet(blocks=0)
