"""The networks against the tutorial's, layer by layer, and over all sizes."""

import pytest
import torch
from torch import nn

from gan_lightning import InputError
from gan_lightning.networks import Discriminator, Generator
from tests.networks.tutorial import tutorial_discriminator, tutorial_generator


@pytest.fixture(scope="module")
def tutorial_pair():
    torch.manual_seed(0)
    return tutorial_generator(), tutorial_discriminator()


def activations(layers, inputs):
    outputs = []
    for layer in layers:
        inputs = layer(inputs)
        outputs.append(inputs.clone())
    return outputs


def test_generator_is_the_tutorials_layer_by_layer(tutorial_pair):
    theirs, ours = tutorial_pair[0], Generator()
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]
    ours.load_state_dict(theirs.state_dict())
    latents = torch.randn(3, 100, 1, 1)
    for mine, yours in zip(activations(ours.main, latents), activations(theirs.main, latents), strict=True):
        torch.testing.assert_close(mine, yours)
    assert ours(latents[:, :, 0, 0]).equal(ours(latents))


def test_discriminator_is_the_tutorials_up_to_its_sigmoid(tutorial_pair):
    theirs, ours = tutorial_pair[1], Discriminator()
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]
    ours.load_state_dict(theirs.state_dict())
    images = torch.rand(3, 3, 64, 64) * 2 - 1
    for mine, yours in zip(activations(ours.main, images), activations(theirs.main[:-1], images), strict=True):
        torch.testing.assert_close(mine, yours)
    torch.testing.assert_close(ours(images).sigmoid(), theirs.main(images).flatten())


@pytest.mark.parametrize("image_size", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_size_fits_together(image_size, channels):
    generator = Generator(image_size, channels, latent_dim=7, base_channels=2)
    discriminator = Discriminator(image_size, channels, base_channels=2)
    images = generator(torch.randn(2, 7))
    assert images.shape == (2, channels, image_size, image_size)
    assert images.abs().max() <= 1
    assert discriminator(images).shape == (2,)


def test_logits_are_not_squashed():
    discriminator = Discriminator(16, base_channels=4)
    with torch.no_grad():
        discriminator.main[-1].weight.mul_(1e4)
    logits = discriminator(torch.randn(8, 3, 16, 16))
    assert logits.abs().max() > 1


def test_initialization_is_that_of_the_paper():
    torch.manual_seed(0)
    generator = Generator()
    for layer in generator.main:
        if isinstance(layer, nn.ConvTranspose2d):
            assert abs(layer.weight.mean()) < 1e-3
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.weight.mean().item() == pytest.approx(1, abs=0.01)
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.3)
            assert not layer.bias.any()


def test_spectral_normalization_bounds_every_layer():
    discriminator = Discriminator(16, base_channels=4, normalization="spectral")
    images = torch.randn(4, 3, 16, 16)
    for _ in range(30):  # each forward is one power iteration
        discriminator(images)
    for layer in discriminator.main:
        if isinstance(layer, nn.Conv2d):
            largest = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
            assert largest.item() == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("normalization", ["none", "spectral"])
def test_without_batch_norm_an_image_is_scored_alone(normalization):
    discriminator = Discriminator(16, base_channels=4, normalization=normalization)
    images = torch.randn(4, 3, 16, 16)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in discriminator.modules())
    discriminator.eval()
    torch.testing.assert_close(discriminator(images)[:1], discriminator(images[:1]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 48}, "choose one of 16, 32, 64, 128, 256"),
        ({"channels": 4}, "choose 1 .* or 3"),
        ({"base_channels": 0}, "base_channels must be at least 1"),
    ],
)
def test_unsupported_arguments_are_refused(arguments, message):
    for network in (Generator, Discriminator):
        with pytest.raises(InputError, match=message):
            network(**arguments)
