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


class Dense(nn.Module):
    """A generator that is given by its class on the command line."""

    def __init__(self, width: int = 8, latent_dim: int = 6, size: int = 16):
        super().__init__()
        self.latent_dim = latent_dim
        self.layers = nn.Sequential(nn.Linear(latent_dim, width), nn.BatchNorm1d(width), nn.ReLU())
        self.last = nn.Linear(width, 3 * size * size)
        self.size = size

    def forward(self, latents):
        return self.last(self.layers(latents)).tanh().view(-1, 3, self.size, self.size)


class Sized(Flat):
    def __init__(self, size: int = 16):
        super().__init__(3 * size * size)


def test_networks_are_given_in_python(tmp_path):
    given = Dense(), Sized()
    state = {name: value.clone() for name, value in given[0].state_dict().items()}
    module = DCGAN(**TINY, generator=given[0], discriminator=given[1])
    assert all(value.equal(state[name]) for name, value in given[0].state_dict().items())  # tried without a trace
    assert module.generator is given[0]
    train(module, 3, tmp_path).save_checkpoint(tmp_path / "own.ckpt")
    content = torch.load(tmp_path / "own.ckpt", weights_only=True)
    assert not {"generator", "discriminator"} & content["hyper_parameters"].keys()
    loaded = DCGAN.load_from_checkpoint(tmp_path / "own.ckpt", generator=Dense(), discriminator=Sized())
    latents = torch.randn(3, 6)
    assert loaded(latents).equal(module(latents))
    with pytest.raises(InputError, match=r"the generator of the checkpoint is a .*Dense.*generator=Dense\(\.\.\.\)"):
        DCGAN.load_from_checkpoint(tmp_path / "own.ckpt")
    with pytest.raises(InputError, match=r"discriminator=Sized"):
        DCGAN.load_from_checkpoint(tmp_path / "own.ckpt", generator=Dense())
    again = DCGAN(**TINY, generator=Dense(), discriminator=Sized())
    train(again, 5, tmp_path, ckpt_path=tmp_path / "own.ckpt")
    assert again.global_step == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"generator": Dense(size=8)}, r"generator Dense returns \(2, 3, 8, 8\).*\(2, 6\) to \(2, 3, 16, 16\)"),
        ({"generator": Dense(latent_dim=7)}, r"generator Dense fails \(.*it must map latents \(2, 6\)"),
        ({"discriminator": nn.Flatten()}, r"discriminator Flatten returns \(2, 768\).*to \(2,\)"),
        ({"discriminator": Sized(), "num_classes": 3}, r"images \(2, 3, 16, 16\) and labels \(2,\)"),
        ({"generator": Dense(), "generator_normalization": "batch"}, "a generator was given: leave one"),
    ],
)
def test_networks_of_the_wrong_shape_are_refused(options, message):
    with pytest.raises(InputError, match=message) as caught:
        DCGAN(**{**TINY, **options})
    assert "\n" not in str(caught.value)


def test_networks_are_given_on_the_command_line(tmp_path, monkeypatch):
    from gan_lightning.cli import run

    monkeypatch.chdir(tmp_path)
    name = f"{__name__}.Dense"
    words = ["fit", "--model", "DCGAN", "--model.image_size", "16", "--model.latent_dim", "6"]
    words += ["--model.base_channels", "4", "--model.generator", name, "--model.generator.width", "5"]
    words += ["--data", "SyntheticFaces", "--data.count", "32", "--data.image_size", "16", "--data.batch_size", "8"]
    words += ["--data.root", str(tmp_path / "data"), "--trainer.accelerator", "cpu", "--name", "own"]
    words += ["--evaluation.extractor", "random"]
    words += ["--trainer.limit_val_batches", "0", "--trainer.enable_progress_bar", "false"]
    run([*words, "--trainer.max_steps", "2"])
    path = tmp_path / "runs" / "own" / "checkpoints" / "last.ckpt"
    saved = torch.load(path, weights_only=True)["hyper_parameters"]
    assert saved["generator"]["class_path"] == name
    assert saved["generator"]["init_args"]["width"] == 5
    loaded = DCGAN.load_from_checkpoint(path, map_location="cpu")
    assert loaded.generator.last.in_features == 5
    run([*words, "--trainer.max_steps", "4", "--ckpt_path", "last"])
    assert torch.load(path, weights_only=True)["global_step"] == 4
