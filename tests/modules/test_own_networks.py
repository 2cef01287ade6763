"""Networks and objectives of a subclass: trained, averaged, saved and loaded as DCGAN's own are."""

import pytest
import torch
from torch import nn

from gan_lightning import DCGAN, Generator, InputError, Objective, load_generator
from gan_lightning.modules.restoration import LatentRestoration
from tests.modules.test_dcgan import TINY, train


class Leaky(Generator):
    """Computes something else than a DCGAN's generator, with weights of the same names and shapes."""

    def __init__(self, *args):
        super().__init__(*args)
        self.main[2] = nn.LeakyReLU(0.3, inplace=True)


class Flat(nn.Module):
    def __init__(self, pixels):
        super().__init__()
        self.linear = nn.Linear(pixels, 1)

    def forward(self, images):
        return self.linear(images.flatten(1)).flatten()


class Mine(DCGAN):
    def __init__(self, weight: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        self.objective = Objective(
            lambda real, fake, target=1.0: weight * (fake.mean() - real.mean()),
            lambda fake, real: -weight * fake.mean(),
            probability=False,
        )

    def build_generator(self):
        return Leaky(self.image_size, self.channels, self.latent_dim, self.hparams.base_channels)

    def build_discriminator(self):
        return Flat(self.channels * self.image_size**2)


@pytest.fixture
def trained(tmp_path):
    module = Mine(weight=0.5, **TINY)
    before = module.discriminator.linear.weight.clone()
    train(module, 3, tmp_path).save_checkpoint(tmp_path / "mine.ckpt")
    assert not torch.equal(before, module.discriminator.linear.weight)
    return module, tmp_path / "mine.ckpt"


def test_a_subclass_is_loaded_with_its_networks(trained):
    module, path = trained
    loaded = Mine.load_from_checkpoint(path, map_location="cpu")
    assert loaded.hparams.weight == 0.5
    assert isinstance(loaded.generator_ema, Leaky)
    rngs = [torch.Generator().manual_seed(0) for _ in range(2)]
    assert torch.equal(loaded.sample(4, rngs[0]), module.sample(4, rngs[1]))


def test_shapes_alone_make_no_generator(trained):
    """`load_generator` would build a network that computes something else."""
    _, path = trained
    for load in (load_generator, LatentRestoration):
        with pytest.raises(
            InputError, match=r"is a .*Leaky, not a DCGAN's.*load_from_checkpoint\(path\).generator_ema"
        ):
            load(path)


def test_a_checkpoint_of_an_earlier_version_is_loaded(tmp_path):
    """It does not name the class of its generator."""
    train(DCGAN(**TINY), 1, tmp_path).save_checkpoint(tmp_path / "new.ckpt")
    content = torch.load(tmp_path / "new.ckpt", weights_only=True)
    assert content.pop("generator_class") == "gan_lightning.networks.dcgan.Generator"
    torch.save(content, tmp_path / "old.ckpt")
    for name in ("new", "old"):
        assert load_generator(tmp_path / f"{name}.ckpt").latent_dim == TINY["latent_dim"]


def test_images_of_any_size_with_networks_of_ones_own(tmp_path):
    class Any(Mine):
        def build_generator(self):
            pixels = self.channels * self.image_size**2
            shape = self.channels, self.image_size, self.image_size
            return nn.Sequential(nn.Linear(self.latent_dim, pixels), nn.Tanh(), nn.Unflatten(1, shape))

    from tests.modules.test_image_batches import items

    module = Any(image_size=20, latent_dim=4)
    train(module, 2, tmp_path, items(torch.rand(16, 3, 20, 20) * 2 - 1))
    assert module.sample(3).shape == (3, 3, 20, 20)
