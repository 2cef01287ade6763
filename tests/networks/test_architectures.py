"""Residual and modern networks: against the papers' tables, torch, and DCGAN's cost."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from gan_lightning import DCGAN, InputError, invert, load_generator
from gan_lightning.degradations import SquareMask
from gan_lightning.networks import Discriminator, Generator
from gan_lightning.networks.architectures import ARCHITECTURES, make_discriminator, make_generator
from gan_lightning.networks.checkpoints import load_discriminator
from gan_lightning.networks.modern import ModernDiscriminator, ModernGenerator, double, halve, number_of_groups
from gan_lightning.networks.residual import ResidualDiscriminator, ResidualGenerator
from gan_lightning.objectives import Penalties

SIZES = {"image_size": 16, "channels": 3, "base_channels": 8}
NAMED = [
    (name, of_generator, of_discriminator)
    for name, found in ARCHITECTURES.items()
    for of_generator, of_discriminator in zip(
        (*found.generator.normalizations, found.generator.normalizations[0]),
        found.discriminator.normalizations,
        strict=False,
    )
]


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def conv(inputs, outputs, kernel=3):
    return inputs * outputs * kernel**2 + outputs


def up(inputs, outputs):
    return conv(inputs, outputs) + conv(outputs, outputs) + conv(inputs, outputs, 1) + 2 * inputs + 2 * outputs


def down(inputs, outputs, skip=True):
    return conv(inputs, outputs) + conv(outputs, outputs) + skip * conv(inputs, outputs, 1)


def test_sngan_has_the_parameters_of_the_papers_tables():
    """Tables 3 (CIFAR-10: 4,276,739 parameters in G) and 5 (ImageNet at 128 pixels) of Miyato et al. 2018."""
    cifar = ResidualGenerator(32, 3, 128, base_channels=256, max_width=1)
    assert parameters(cifar) == 4_276_739
    dense, last = 128 * 16 * 1024 + 16 * 1024, conv(64, 3) + 2 * 64
    blocks = up(1024, 1024) + up(1024, 512) + up(512, 256) + up(256, 128) + up(128, 64)
    with torch.device("meta"):
        generator, discriminator = ResidualGenerator(128, 3, 128), ResidualDiscriminator(128, normalization="none")
    assert parameters(generator) == dense + blocks + last
    blocks = down(3, 64) + down(64, 128) + down(128, 256) + down(256, 512) + down(512, 1024)
    assert parameters(discriminator) == blocks + down(1024, 1024, skip=False) + 1024 + 1


def test_modern_blocks_are_the_identity_at_first():
    torch.manual_seed(0)
    generator, discriminator = ModernGenerator(**SIZES, latent_dim=6), ModernDiscriminator(**SIZES)
    for network in (generator, discriminator):
        for stage in network.stages:
            width = stage[0].expand.in_channels
            features = torch.randn(2, width, 4, 4)
            assert stage(features).equal(features)
    latents = torch.randn(2, 6)
    features = generator.basis(latents)
    for transition in generator.transitions:  # resampled first, as in the paper
        features = transition(F.interpolate(features, scale_factor=2, mode="bilinear"))
    torch.testing.assert_close(generator(latents), generator.last(features))
    assert (
        generator.render(generator.stages[0](features[:, :0].new_zeros(1, generator.basis.maps.shape[0], 4, 4)))
        .eq(0)
        .all()
    )


def test_modern_signals_keep_their_scale():
    """The variance of features and logits is about one at the start, at any depth."""
    torch.manual_seed(0)
    images = ModernGenerator(64, latent_dim=64)(torch.randn(64, 64))
    assert 0.3 < images.std() < 2
    logits = ModernDiscriminator(64)(torch.randn(64, 3, 64, 64))
    assert 0.005 < logits.std() < 2  # means of 2x2 independent pixels are small


def test_resampling_is_torchs_bilinear():
    features = torch.randn(2, 3, 8, 8)
    assert double(features).shape == (2, 3, 16, 16)
    torch.testing.assert_close(halve(features), F.interpolate(features, scale_factor=0.5, mode="bilinear"))
    line = double(torch.tensor([[[[0.0, 4.0], [0.0, 4.0]]]]))[0, 0, 0]
    assert line.tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize("channels", [1, 8, 16, 24, 32, 88, 512])
def test_groups_have_at_least_sixteen_channels(channels):
    count = number_of_groups(channels)
    assert channels % count == 0
    assert channels // count >= min(16, channels)
    assert channels not in (32, 512) or channels // count == 16


@pytest.mark.parametrize("image_size", [32, 64, 128])
def test_modern_networks_cost_what_dcgans_do(image_size):
    def flops(network, *shape):
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            network(image_size).eval()(torch.randn(*shape))
        return counter.get_total_flops()

    images = (1, 3, image_size, image_size)
    assert 0.6 < flops(ModernGenerator, 1, 100) / flops(Generator, 1, 100) < 1.7
    assert 0.6 < flops(ModernDiscriminator, *images) / flops(Discriminator, *images) < 1.7


@pytest.mark.parametrize(("name", "of_generator", "of_discriminator"), NAMED)
def test_every_network_trains_once(name, of_generator, of_discriminator, tmp_path):
    """Shapes, channels-last, the penalties' second derivative, and a state dict read back."""
    torch.manual_seed(0)
    module = DCGAN(
        **SIZES,
        latent_dim=6,
        architecture=name,
        generator_normalization=of_generator,
        discriminator_normalization=of_discriminator,
    )
    generator, discriminator = module.generator, module.discriminator
    latents, real = torch.randn(4, 6), torch.rand(4, 3, 16, 16) * 2 - 1
    fake = generator(latents)
    assert fake.shape == real.shape
    loss = discriminator(fake).sum() + Penalties(1.0, 1.0)(discriminator, real, fake.detach(), torch.Generator())
    loss.backward()
    gradients = {n: p.grad for n, p in module.named_parameters() if "ema" not in n}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    generator.eval()
    discriminator.eval()
    plain = generator(latents.clone()).detach()
    torch.testing.assert_close(plain.contiguous(), generator.to(memory_format=torch.contiguous_format)(latents))
    torch.save({"generator": generator.state_dict()}, tmp_path / "G.pt")
    read = load_generator(tmp_path / "G.pt")
    assert type(read) is type(generator)
    torch.testing.assert_close(read(latents), plain)
    torch.save({"state_dict": module.state_dict()}, tmp_path / "both.ckpt")
    read = load_discriminator(tmp_path / "both.ckpt")
    torch.testing.assert_close(read(real), discriminator(real).detach())


@pytest.mark.parametrize("name", ["residual", "modern"])
@pytest.mark.parametrize("image_size", [32, 64, 128, 256])
def test_every_size(name, image_size):
    sizes = {"image_size": image_size, "channels": 1, "base_channels": 4}
    generator, discriminator = make_generator(name, latent_dim=5, **sizes), make_discriminator(name, **sizes)
    images = generator(torch.randn(2, 5))
    assert images.shape == (2, 1, image_size, image_size)
    assert discriminator(images).shape == (2,)


@pytest.mark.parametrize("name", ["residual", "modern", "group"])
@pytest.mark.parametrize("refine", ["none", "features"])
def test_restoration_fits_what_it_can_make(name, refine):
    torch.manual_seed(0)
    given = {"architecture": "dcgan", "normalization": "group"} if name == "group" else {"architecture": name}
    generator = make_generator(**given, **SIZES, latent_dim=6).eval()
    for layer in generator.modules():  # as if trained: blocks that do something, images with contrast
        if isinstance(layer, nn.Conv2d) and not layer.weight.any():
            nn.init.normal_(layer.weight, 0, 0.1)
        if isinstance(layer, nn.ConvTranspose2d):
            layer.weight.data *= 8
    with torch.no_grad():
        truth = generator(torch.randn(3, 6)).clamp(-1, 1)
    hole = SquareMask(16, 4)
    found = invert(generator, hole, hole(truth), refine=refine, num_steps=60, latent_weight=0.0, noise_level=0.0)
    assert ((found.image - truth).square().mean() < 0.05 * truth.square().mean()).item()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "modern", "generator_normalization": "batch"}, "modern networks do not have: choose .* none"),
        (
            {"architecture": "modern", "discriminator_normalization": "spectral"},
            "discriminator_normalization is spectral",
        ),
        ({"architecture": "residual", "num_classes": 3}, "residual networks have no classes"),
        ({"architecture": "vit"}, "choose one of dcgan, residual, modern"),
        ({"generator_normalization": "group", "num_classes": 3}, "no group normalization"),
        ({"architecture": "residual", "image_size": 48}, "image_size 48 is not supported"),
    ],
)
def test_contradictions_are_refused(options, message):
    with pytest.raises(InputError, match=message) as caught:
        DCGAN(**{**SIZES, **options})
    assert "\n" not in str(caught.value)
