"""The StyleGAN2 discriminator and the path length of a generator, against formulas written out."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gan_lightning.errors import InputError
from gan_lightning.inversion.losses import make_loss
from gan_lightning.networks.checkpoints import load_discriminator
from gan_lightning.networks.stylegan2_discriminator import (
    EqualizedConv,
    StyleGAN2Discriminator,
    batch_deviation,
    path_lengths,
)
from gan_lightning.networks.stylegan2_layers import low_pass


@pytest.mark.parametrize("size", [16, 32, 256, 1024])
def test_every_size_fits_together(size):
    with torch.device("meta"):
        assert StyleGAN2Discriminator(size, channels=1)(torch.empty(3, 1, size, size)).shape == (3,)


def test_the_network_is_laid_out_as_the_public_one():
    names = StyleGAN2Discriminator(16, base_channels=4, max_channels=8).state_dict()
    shapes = {name: tuple(value.shape) for name, value in names.items() if "resample" not in name}
    assert shapes == {
        "b16.fromrgb.weight": (4, 3, 1, 1),
        "b16.fromrgb.bias": (4,),
        "b16.conv0.weight": (4, 4, 3, 3),
        "b16.conv0.bias": (4,),
        "b16.conv1.weight": (8, 4, 3, 3),
        "b16.conv1.bias": (8,),
        "b16.skip.weight": (8, 4, 1, 1),
        "b8.conv0.weight": (8, 8, 3, 3),
        "b8.conv0.bias": (8,),
        "b8.conv1.weight": (8, 8, 3, 3),
        "b8.conv1.bias": (8,),
        "b8.skip.weight": (8, 8, 1, 1),
        "b4.conv.weight": (8, 9, 3, 3),
        "b4.conv.bias": (8,),
        "b4.fc.weight": (8, 128),
        "b4.fc.bias": (8,),
        "b4.out.weight": (1, 8),
        "b4.out.bias": (1,),
    }


@pytest.mark.parametrize("kernel", [1, 3])
def test_halving_filters_and_keeps_every_other_pixel(kernel):
    layer = EqualizedConv(2, 3, kernel, down=True, activation=False)
    features = torch.randn(2, 2, 8, 8)
    padded = F.pad(features, [1 + kernel // 2] * 4)
    filtered = F.conv2d(padded, low_pass().expand(2, 1, 4, 4), groups=2)
    expected = F.conv2d(filtered, layer.weight / (2 * kernel**2) ** 0.5)[..., ::2, ::2]
    torch.testing.assert_close(layer(features), expected)
    assert expected.shape == (2, 3, 4, 4)


@pytest.mark.parametrize(("batch", "group"), [(8, 4), (4, 4), (6, 3), (7, 1), (1, 1)])
def test_the_deviation_is_that_of_a_group(batch, group):
    features = torch.randn(batch, 5, 4, 4)
    deviation = batch_deviation(features)
    assert deviation.shape == (batch, 1, 4, 4)
    step = batch // group
    for row in range(batch):
        mean = features[row % step :: step].std(0, correction=0).mean()
        torch.testing.assert_close(deviation[row], mean.expand(1, 4, 4), atol=2e-4, rtol=1e-3)


def test_equal_images_are_told_from_different_ones():
    torch.manual_seed(0)
    discriminator = StyleGAN2Discriminator(16, base_channels=4, max_channels=8)
    images = torch.randn(4, 3, 16, 16)
    alone = discriminator(images[:1].expand(4, -1, -1, -1))
    torch.testing.assert_close(alone, alone[:1].expand(4))
    assert not torch.isclose(discriminator(images)[0], alone[0])


def test_the_perceptual_loss_is_the_sum_of_relative_distances_of_the_blocks():
    torch.manual_seed(0)
    discriminator = StyleGAN2Discriminator(16, base_channels=4, max_channels=8)
    ours, theirs = torch.randn(2, 3, 3, 16, 16)
    loss = make_loss("perceptual", discriminator, torch.device("cpu"))
    expected = ((ours - theirs) / 2).square().mean((1, 2, 3))
    both = ours, theirs
    for size in (16, 8):
        both = [discriminator.get_submodule(f"b{size}")(images) for images in both]
        expected = expected + (both[0] - both[1]).square().sum((1, 2, 3)) / both[1].square().sum((1, 2, 3))
    torch.testing.assert_close(loss(ours, theirs), expected)
    torch.testing.assert_close(loss(ours[:1], theirs[:1]), expected[:1])  # no other image has a part in it
    gray = [images[:, :1] for images in (ours, theirs)]
    torch.testing.assert_close(loss(*gray), loss(*(images.expand(-1, 3, -1, -1) for images in gray)))
    assert discriminator.training


@pytest.mark.parametrize("sizes", [(16, 3, 4, 8), (32, 1, 2, 4)])
def test_the_discriminator_of_a_checkpoint_is_the_one_that_was_trained(tmp_path, sizes):
    torch.manual_seed(0)
    discriminator = StyleGAN2Discriminator(*sizes)
    state = {f"discriminator.{name}": value for name, value in discriminator.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "stylegan2.ckpt")
    loaded = load_discriminator(tmp_path / "stylegan2.ckpt")
    images = torch.randn(4, sizes[1], sizes[0], sizes[0])
    torch.testing.assert_close(loaded(images), discriminator(images))
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    for name, value in (("b4.conv.weight", torch.zeros(8)), ("b4.other", torch.zeros(1)), ("b8.skip.weight", None)):
        other = {**state, f"discriminator.{name}": value}
        torch.save({name: value for name, value in other.items() if value is not None}, tmp_path / "other.ckpt")
        with pytest.raises(InputError, match=r"other\.ckpt holds no discriminator"):
            load_discriminator(tmp_path / "other.ckpt")


def test_path_lengths_are_those_of_the_jacobian():
    """For a linear map, the lengths have a closed form in the noise that was drawn, and a derivative in the weights."""
    torch.manual_seed(0)
    layer = nn.Linear(6, 12, bias=False).double()  # (num_ws, w_dim) = (2, 3) to images (3,2,2)
    ws = torch.randn(5, 2, 3).double()
    lengths = path_lengths(lambda w: layer(w.flatten(1)).view(-1, 3, 2, 2), ws, torch.Generator().manual_seed(4))
    noise = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64) / 2
    product = (noise.flatten(1) @ layer.weight).view(5, 2, 3)
    expected = product.square().sum(2).mean(1).sqrt()
    torch.testing.assert_close(lengths, expected)
    ours, theirs = (torch.autograd.grad(x.sum(), layer.weight)[0] for x in (lengths, expected))
    torch.testing.assert_close(ours, theirs)


def test_unsupported_arguments_are_refused():
    with pytest.raises(InputError, match="image_size 20 is not supported"):
        StyleGAN2Discriminator(20)
