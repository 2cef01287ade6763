"""StyleGAN2 as a module: DCGAN's training with other networks and two lazy regularizers."""

import pytest
import torch

from gan_lightning import InputError, StyleGAN2, load_generator
from gan_lightning.inversion import InversionSettings, whitening
from gan_lightning.modules.restoration import LatentRestoration
from gan_lightning.networks.stylegan2 import StyleGAN2Generator
from tests.modules.test_dcgan import TINY, train

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
