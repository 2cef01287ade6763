"""StyleGAN2 as a module: DCGAN's training with other networks and two lazy regularizers."""

import pytest
import torch

from gan_lightning import InputError, StyleGAN2, load_generator
from gan_lightning.degradations import SquareMask
from gan_lightning.inversion import InversionSettings, invert, whitening
from gan_lightning.modules.restoration import LatentRestoration
from gan_lightning.networks.checkpoints import load_discriminator
from gan_lightning.networks.stylegan2 import StyleGAN2Generator
from gan_lightning.networks.stylegan2_discriminator import StyleGAN2Discriminator
from gan_lightning.networks.stylegan2_prior import StyleGAN2Prior
from tests.modules.test_dcgan import TINY, train
from tests.modules.test_labels import shades
from tests.modules.test_step_graphs import assert_same

SMALL = {**TINY, "max_channels": 8, "w_dim": 5, "mapping_layers": 2}


def test_a_run_is_regularized_lazily_and_its_generator_restores(tmp_path, monkeypatch):
    monkeypatch.setattr(whitening, "PROBES", 64)
    module, lengths = StyleGAN2(path_interval=3, penalty_interval=2, **SMALL), []
    step = module._path_length_step

    def counted(latents):
        before = [parameter.clone() for parameter in module.generator.parameters()]
        step(latents)
        changed = [not p.equal(b) for p, b in zip(module.generator.parameters(), before, strict=True)]
        lengths.append((module.global_step, len(latents), any(changed), float(module.path_mean)))

    monkeypatch.setattr(module, "_path_length_step", counted)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    train(module, 7, tmp_path).save_checkpoint(tmp_path / "stylegan2.ckpt")
    assert module.global_step == 7  # steps of the regularizer are not counted
    assert [(at, count, changed) for at, count, changed, _ in lengths] == [(3, 4, True), (6, 4, True)]
    assert 0 < lengths[0][3] < lengths[1][3]
    trained = [name for name, _ in module.named_parameters() if "ema" not in name]
    assert all(not module.state_dict()[name].equal(before[name]) for name in trained)
    assert module.generator.mapping.w_avg.any()

    loaded = StyleGAN2.load_from_checkpoint(tmp_path / "stylegan2.ckpt", map_location="cpu")
    assert loaded.path_mean == module.path_mean
    generator = load_generator(tmp_path / "stylegan2.ckpt")
    assert isinstance(generator, StyleGAN2Generator)
    latents = torch.randn(2, 6)
    torch.testing.assert_close(generator(latents), loaded(latents), atol=1e-4, rtol=1e-3)
    settings = InversionSettings(num_steps=2, refine_steps=2, num_searches=1)
    assert LatentRestoration(tmp_path / "stylegan2.ckpt", inversion=settings).generator.latent_dim == 5
    perceptual = InversionSettings(loss="perceptual")
    assert LatentRestoration(tmp_path / "stylegan2.ckpt", inversion=perceptual).discriminator.sizes == [16, 8, 4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path_length": -1.0}, "path_length must not be negative"),
        ({"path_interval": 0}, "path_interval at least 1"),
        ({"image_size": 24}, "image_size 24 is not supported"),
        ({"r1": -1.0}, "r1 must not be negative"),
    ],
)
def test_unsupported_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        StyleGAN2(**{**SMALL, **options})


def conditional(**options):
    torch.manual_seed(0)
    return StyleGAN2(**{**SMALL, "num_classes": 2, "path_interval": 3, "penalty_interval": 2, **options})


def test_samples_are_of_the_class_that_is_asked_for_and_a_search_is_for_one_class(tmp_path):
    sizes = {"latent_dim": 16, "w_dim": 16, "base_channels": 8, "max_channels": 16}
    module = conditional(lr_g=1e-2, lr_d=1e-2, r1=0.01, path_length=0.0, ema_decay=0.9, **sizes)
    train(module, 80, tmp_path, shades()).save_checkpoint(tmp_path / "G.ckpt")
    bright, dark = (module.sample(32, torch.Generator().manual_seed(1), labels=label) for label in (1, 0))
    assert bright.mean() - dark.mean() > 0.1

    loaded = StyleGAN2.load_from_checkpoint(tmp_path / "G.ckpt", map_location="cpu")
    assert_same(loaded.state_dict(), module.state_dict())
    torch.testing.assert_close(loaded.sample(32, torch.Generator().manual_seed(1), labels=1), bright)
    prior = StyleGAN2Prior(load_generator(tmp_path / "G.ckpt"), "z", label=1)
    latents = torch.randn(4, 16, generator=torch.Generator().manual_seed(2))
    expected = loaded(latents, torch.ones(4, dtype=torch.long))
    torch.testing.assert_close(prior(latents), expected, atol=1e-4, rtol=1e-3)
    perceptual = InversionSettings(loss="perceptual")
    restoration = LatentRestoration(tmp_path / "G.ckpt", inversion=perceptual, label=0)
    assert restoration.generator.label == 0
    assert restoration.discriminator.num_classes == 2
    with pytest.raises(InputError, match="this generator has 2 classes: set label to a number from 0 to 1"):
        LatentRestoration(tmp_path / "G.ckpt")


def test_labels_are_drawn_as_often_as_they_occur():
    module = conditional()
    module.class_counts.copy_(torch.tensor([900, 100]))
    (labels,) = module.draw_labels(2000, torch.Generator().manual_seed(0))
    assert labels.float().mean().item() == pytest.approx(0.1, abs=0.02)


def test_the_discriminator_projects_on_a_vector_of_the_class():
    """Against the sum written out; the mapping learns at a hundredth of the rate."""
    torch.manual_seed(0)
    network = StyleGAN2Discriminator(16, base_channels=4, max_channels=8, label_dim=3, mapping_layers=2)
    images, labels = torch.rand(3, 3, 16, 16) * 2 - 1, torch.tensor([2, 0, 2])
    features, mapping = network.b4(network.features(images)[-1]), network.mapping
    for row, label in enumerate(labels.tolist()):
        vector = mapping.embed.weight[:, label] / 3**0.5 + mapping.embed.bias
        vector = vector / vector.square().mean().sqrt()
        for layer in (mapping.fc0, mapping.fc1):
            vector = 2**0.5 * torch.nn.functional.leaky_relu(0.01 * (layer.weight @ vector / 8**0.5 + layer.bias), 0.2)
        expected = features[row] @ vector / 8**0.5
        torch.testing.assert_close(network(images, labels)[row], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="has 3 classes: pass labels as the second argument"):
        network(images)


def test_losses_by_the_features_of_the_discriminator_restore(tmp_path):
    torch.manual_seed(0)
    module = StyleGAN2(**SMALL)
    train(module, 2, tmp_path).save_checkpoint(tmp_path / "G.ckpt")
    prior, discriminator = StyleGAN2Prior(load_generator(tmp_path / "G.ckpt")), load_discriminator(tmp_path / "G.ckpt")
    with torch.no_grad():
        images = prior(prior.draw(3, torch.Generator().manual_seed(1)))
    settings = InversionSettings(
        loss="perceptual", num_steps=20, refine="none", latent_weight=0.0, start="mean", composite=False
    )
    hole = SquareMask(16, 4)
    found = invert(prior, hole, hole(images), settings, discriminator=discriminator, num_searches=1)
    assert (found.loss < 0.2 * found.history[0]).all()
    alone = invert(prior, hole, hole(images[1:2]), settings, discriminator=discriminator, num_searches=1, indices=[1])
    assert alone.image.equal(found.image[1:2])
