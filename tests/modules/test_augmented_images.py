"""Augmentation as an option of DCGAN and StyleGAN2. tests/modules/test_training_step.py checks the step itself."""

import dataclasses

import pytest
import torch
from lightning import Callback

from gan_lightning import DCGAN, InputError, StyleGAN2
from gan_lightning.augmentation import Augmentation
from gan_lightning.loggers.metrics_file import MetricsFile
from tests.modules.test_dcgan import BATCH, TINY, train

SETTINGS = Augmentation(("color", "translation"), 0.7)


def test_checkpoints_hold_plain_values(tmp_path):
    module = DCGAN(**TINY, augmentation=SETTINGS)
    trainer = train(module, 2, tmp_path)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)["hyper_parameters"]
    assert saved["augmentation"] == dataclasses.asdict(SETTINGS)
    assert DCGAN.load_from_checkpoint(tmp_path / "a.ckpt").augmentation == SETTINGS
    assert DCGAN.load_from_checkpoint(tmp_path / "a.ckpt", augmentation=None).augmentation is None


def test_four_channels_have_no_saturation():
    with pytest.raises(InputError, match="leave color out of augmentation"):
        SETTINGS.check_channels(4)
    Augmentation(("cutout",)).check_channels(4)
    DCGAN(**TINY, channels=1, augmentation=SETTINGS)


class Probabilities(Callback):
    """Notes the adaptive probability after each step."""

    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, module, *_):
        self.values.append(float(module._adaptive[0].probability))


@pytest.mark.parametrize(("objective", "target"), [("non_saturating", 0.6), ("relativistic", 0.01), ("hinge", 0.99)])
def test_the_probability_follows_the_signs(tmp_path, objective, target):
    """Every four batches, from zero, by a fixed step in the direction of the sign's mean."""
    seen = []

    class Watched(DCGAN):
        def adapt_augmentation(self, logits_real, logits_fake, images):
            seen.append((logits_real - logits_fake if objective == "relativistic" else logits_real).sign().mean())
            return super().adapt_augmentation(logits_real, logits_fake, images)

    torch.manual_seed(0)
    adaptive = Augmentation(probability=0.5, adaptive_target=target, adaptive_images=16 * BATCH)
    module, watch, logger = (
        Watched(**TINY, objective=objective, augmentation=adaptive),
        Probabilities(),
        MetricsFile(tmp_path),
    )
    trainer = train(module, 20, tmp_path, callbacks=[watch], logger=logger, log_every_n_steps=1)
    expected, value = [], 0.0
    for step in range(20):
        if step % 4 == 3:
            rises = torch.stack(seen[step - 3 : step + 1]).mean() > target
            value = min(max(value + (4 / 16 if rises else -4 / 16), 0), 0.5)
        expected.append(value)
    assert watch.values == pytest.approx(expected)
    assert trainer.callback_metrics["train/augment_probability"] == pytest.approx(expected[-1])
    if target < 0.9:
        assert max(expected) > 0


def test_checkpoints_hold_the_adaptive_probability(tmp_path):
    """Also what has been counted since its last change: the seventh step is in the middle of four."""
    adaptive = Augmentation(adaptive_target=0.01, adaptive_images=20 * BATCH)
    module = DCGAN(**TINY, objective="relativistic", augmentation=adaptive)
    path, after = tmp_path / "7.ckpt", Probabilities()
    train(module, 7, tmp_path).save_checkpoint(path)
    expected = module._adaptive[0].state_dict()
    assert expected["probability"] > 0
    assert expected["batches"] == 3
    assert DCGAN.load_from_checkpoint(path)._adaptive[0].state_dict() == expected
    train(DCGAN(**TINY, objective="relativistic", augmentation=adaptive), 8, tmp_path, None, path, callbacks=[after])
    assert after.values != [float(expected["probability"])]  # the eighth step changes it
    without = DCGAN.load_from_checkpoint(path, augmentation=Augmentation())
    assert without.augmentation == Augmentation()


@pytest.mark.parametrize("objective", ["wasserstein", "least_squares"])
def test_logits_without_a_sign_are_refused(objective):
    with pytest.raises(InputError, match="adaptive_target needs an objective"):
        DCGAN(**TINY, objective=objective, augmentation=Augmentation(adaptive_target=0.6))


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
