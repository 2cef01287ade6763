"""Augmentation as an option of DCGAN and StyleGAN2. tests/modules/test_training_step.py checks the step itself."""

import pytest
import torch

from gan_lightning import DCGAN, InputError, StyleGAN2
from gan_lightning.augmentation import Augmentation
from tests.modules.test_dcgan import TINY, train

SETTINGS = Augmentation(("color", "translation"), 0.7)


def test_checkpoints_hold_plain_values(tmp_path):
    module = DCGAN(**TINY, augmentation=SETTINGS)
    trainer = train(module, 2, tmp_path)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)["hyper_parameters"]
    assert saved["augmentation"] == {"kinds": ("color", "translation"), "probability": 0.7}
    assert DCGAN.load_from_checkpoint(tmp_path / "a.ckpt").augmentation == SETTINGS
    assert DCGAN.load_from_checkpoint(tmp_path / "a.ckpt", augmentation=None).augmentation is None


def test_four_channels_have_no_saturation():
    with pytest.raises(InputError, match="leave color out of augmentation"):
        SETTINGS.check_channels(4)
    Augmentation(("cutout",)).check_channels(4)
    DCGAN(**TINY, channels=1, augmentation=SETTINGS)


def test_stylegan2_is_trained_with_it(tmp_path):
    size = {"image_size": 16, "latent_dim": 6, "base_channels": 4, "max_channels": 8, "w_dim": 8, "mapping_layers": 1}
    weights = []
    for augmentation in (None, SETTINGS):
        torch.manual_seed(0)
        module = StyleGAN2(**size, augmentation=augmentation)
        trainer = train(module, 5, tmp_path)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in module.discriminator.parameters()]))
    assert weights[1].isfinite().all()
    assert not torch.equal(*weights)
    trainer.save_checkpoint(tmp_path / "s.ckpt")
    assert StyleGAN2.load_from_checkpoint(tmp_path / "s.ckpt").augmentation == SETTINGS
