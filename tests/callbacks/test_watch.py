"""Runs that are made to fail in each way are noticed within 200 steps; runs that learn are not."""

import json
import logging
import time

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from gan_lightning import DCGAN, InputError, SyntheticFaces
from gan_lightning.callbacks.summary import RunSummary
from gan_lightning.callbacks.watch import Lasting, Watch, diversity, nearest_distance, scores
from gan_lightning.loggers.metrics_file import MetricsFile
from gan_lightning.modules.step_metrics import log_metrics
from tests.conftest import FACES
from tests.modules.test_dcgan import BATCH, SIZE, TINY, Noise, train

WITHIN = 200  # steps after a failure was planted


def watched(module, steps, folder, *callbacks, watch=None, data=None, **options):
    """Train a module; return the names of the alarms and their steps, and the trainer."""
    watch = watch or Watch()
    options = {"log_every_n_steps": 25, "limit_val_batches": 0} | options
    trainer = train(module, steps, folder, data, callbacks=[*callbacks, watch], **options)
    return {alarm.name: alarm.step for alarm in watch.alarms}, trainer


@pytest.fixture
def faces(faces_root):
    """Return a loader of faces for training, and one for validation."""
    data = SyntheticFaces(str(faces_root), count=FACES, image_size=SIZE, batch_size=16)
    data.prepare_data()
    data.setup("fit")
    images = data.real_images("all").read(torch.arange(FACES).numpy()).float()
    batches = [{"image": image / 127.5 - 1} for image in images]
    return DataLoader(batches[:96], batch_size=16), DataLoader(batches[96:], batch_size=8)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_run_that_learns_gives_no_alarm(tmp_path, faces, seed):
    torch.manual_seed(seed)
    module = DCGAN(image_size=SIZE, latent_dim=16, base_channels=8)
    alarms, trainer = watched(
        module, 300, tmp_path, data=faces, limit_val_batches=1.0, val_check_interval=50, check_val_every_n_epoch=None
    )
    assert trainer.global_step == 300
    assert alarms == {}


class Planted(Callback):
    """Changes a module before a step."""

    def __init__(self, step, change):
        self.step, self.change = step, change

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == self.step:
            self.change(module)


def forget_latents(module):
    """Let G make the same image of every latent, and learn nothing more."""
    with torch.no_grad():
        next(module.generator.parameters()).zero_()
    for group in module.optimizers()[0].param_groups:
        group["lr"] = 0.0


def test_a_discriminator_that_wins_is_noticed(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="gan_lightning"):
        module = DCGAN(**TINY, objective="saturating", lr_d=5e-3, lr_g=1e-6)
        alarms, _ = watched(module, 300, tmp_path, watch=Watch(stop=True))
    assert 100 <= alarms["discriminator_won"] <= WITHIN + 100, "100 steps are needed to win"
    (said,) = [record.getMessage() for record in caplog.records if "won" in record.getMessage()]
    assert said.startswith(f"Discriminator won at step {alarms['discriminator_won']}: D's loss is 0.0")
    assert "Try the objective non_saturating" in said


def test_a_generator_that_collapses_is_noticed(tmp_path):
    alarms, _ = watched(DCGAN(**TINY), 300, tmp_path, Planted(75, forget_latents), watch=Watch(stop=True))
    assert 75 < alarms["generator_collapsed"] <= 75 + WITHIN


def test_a_discriminator_at_chance_from_the_start_is_noticed(tmp_path):
    alarms, _ = watched(DCGAN(**TINY, lr_d=1e-12), WITHIN, tmp_path)
    assert list(alarms) == ["discriminator_at_chance"]


class Perfect(DCGAN):
    """A GAN whose generator makes noise like that of the data: D can only learn the training images by heart."""

    def build_generator(self):
        class NoiseOfLatents(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(torch.ones(1))

            def forward(self, latents):
                uniform = torch.erf(latents / 2**0.5)
                return uniform.reshape(-1, 3, SIZE, SIZE) * self.weight

        return NoiseOfLatents()


def test_a_discriminator_that_memorizes_is_noticed(tmp_path):
    """Eight images of noise, seen again and again, against others."""
    training, held_out = Noise(BATCH), Noise(BATCH * 5)
    held_out.images = held_out.images[BATCH:]
    data = DataLoader(training, batch_size=BATCH), DataLoader(held_out, batch_size=BATCH)
    options = {"image_size": SIZE, "latent_dim": 3 * SIZE * SIZE, "base_channels": 16, "lr_g": 1e-9, "lr_d": 1e-3}
    module = Perfect(**options, discriminator_normalization="none")
    alarms, _ = watched(module, WITHIN, tmp_path, data=data, limit_val_batches=1.0, check_val_every_n_epoch=50)
    assert list(alarms) == ["discriminator_memorizes"]


class OtherInEvaluation(DCGAN):
    """A GAN whose D answers otherwise in evaluation, as batch norm makes it do early in training."""

    def build_discriminator(self):
        class Lower(torch.nn.Module):
            def __init__(self, network):
                super().__init__()
                self.network = network

            def forward(self, images):
                return self.network(images) - (0 if self.training else 8)

        return Lower(super().build_discriminator())


def test_low_scores_of_held_out_images_are_no_alarm_where_training_images_score_as_low(tmp_path):
    data = DataLoader(Noise(), batch_size=BATCH), DataLoader(Noise(), batch_size=BATCH)
    options = {"limit_val_batches": 1.0, "check_val_every_n_epoch": 5}
    alarms, trainer = watched(OtherInEvaluation(**TINY, lr_d=1e-3), 200, tmp_path, data=data, **options)
    assert trainer.callback_metrics["train/d_x"] > 0.5 > 0.1 > trainer.callback_metrics["val/d_x"]
    assert "discriminator_memorizes" not in alarms


class Worsens(DCGAN):
    """A module whose metric is best at the second validation."""

    def on_validation_epoch_end(self):
        super().on_validation_epoch_end()
        log_metrics(self, {"val/own": abs(self.global_step - 40) + 1.0})


def test_a_best_value_long_past_is_noticed(tmp_path):
    options = {"limit_val_batches": 1.0, "val_check_interval": 2, "check_val_every_n_epoch": 1}
    options |= {"enable_checkpointing": True}
    best = ModelCheckpoint(tmp_path, monitor="val/own", mode="min")
    data = (DataLoader(Noise(), batch_size=BATCH), DataLoader(Noise(), batch_size=BATCH))
    alarms, _ = watched(Worsens(**TINY), 100, tmp_path, best, data=data, **options)
    assert 40 < alarms["best_is_past"] <= 40 + 2 * 6


def test_an_alarm_is_in_the_summary_and_stops_the_run_if_asked(tmp_path):
    watch = Watch(stop=True)
    options = {"watch": watch, "logger": MetricsFile(tmp_path)}
    alarms, trainer = watched(DCGAN(**TINY, lr_d=1e-12), 1000, tmp_path, RunSummary(), **options)
    assert trainer.global_step == alarms["discriminator_at_chance"] < WITHIN
    (stated,) = json.loads((tmp_path / "summary.json").read_text())["alarms"]
    assert (stated["name"], stated["step"]) == ("discriminator_at_chance", trainer.global_step)
    assert "D tells nothing apart since the start" in stated["reason"]


def test_an_alarm_is_kept_when_the_run_is_resumed_and_not_given_twice(tmp_path, caplog):
    first = Watch()
    _, trainer = watched(DCGAN(**TINY, lr_d=1e-12), 150, tmp_path, watch=first)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    second = Watch()
    caplog.clear()
    watched(DCGAN(**TINY, lr_d=1e-12), 300, tmp_path, watch=second, ckpt_path=tmp_path / "last.ckpt")
    assert second.alarms == first.alarms != []
    assert not [record for record in caplog.records if "at chance" in record.getMessage()]


def test_watching_changes_no_weights_and_costs_little(tmp_path):
    def weights(*callbacks):
        module = DCGAN(**TINY)
        train(module, 60, tmp_path, callbacks=list(callbacks))
        return module.state_dict()

    torch.manual_seed(0)
    plain = weights()
    torch.manual_seed(0)
    watched_too = weights(Watch(every_n_steps=5))
    assert all(torch.equal(plain[name], watched_too[name]) for name in plain)


def test_the_diversity_of_copies_is_zero_and_that_of_real_images_one():
    images = torch.rand(32, 3, 16, 16)
    assert nearest_distance(images[:1].expand(32, -1, -1, -1)) == 0
    module = DCGAN(**TINY)
    module.generator.forward = lambda latents: images
    assert diversity(module, images) == pytest.approx(1.0)


def test_a_sign_counts_only_if_it_lasts():
    lasting = Lasting(steps=100, points=3)
    assert [lasting.update(step, True) for step in (25, 50, 75, 100, 125)] == [False] * 4 + [True]
    assert not lasting.update(150, False)
    assert [lasting.update(step, True) for step in (200, 400)] == [False, False], "too few measurements"
    assert lasting.update(600, True)


def test_a_negative_interval_is_refused():
    with pytest.raises(InputError, match=r"watch\.every_n_steps must be 0 or more"):
        Watch(every_n_steps=-1)


@pytest.mark.slow
def test_watching_costs_less_than_a_hundredth_of_a_step(tmp_path):
    watch, spent = Watch(), []

    class Timed(Watch):
        def on_train_batch_end(self, *given):
            started = time.perf_counter()
            watch.on_train_batch_end(*given)
            spent.append(time.perf_counter() - started)

    images = DataLoader([{"image": torch.rand(3, 32, 32) * 2 - 1} for _ in range(64)], batch_size=32)
    started = time.perf_counter()
    train(DCGAN(image_size=32, base_channels=32), 100, tmp_path, images, callbacks=[Timed()], log_every_n_steps=50)
    assert sum(spent) < 0.01 * (time.perf_counter() - started)


def test_the_scores_of_a_conditional_gan_are_those_of_its_classes() -> None:
    """D scores each image, and each fake, as one of its class."""
    torch.manual_seed(0)
    module = DCGAN(image_size=16, base_channels=4, num_classes=2, discriminator_normalization="none")
    images, labels = torch.rand(4, 3, 16, 16) * 2 - 1, torch.tensor([0, 1, 1, 0])
    seen, fakes = scores(module, images, labels)
    logits = module.discriminator(images, labels)
    assert seen == pytest.approx(float(module.objective.score(logits).mean()))
    latents = torch.randn(4, module.latent_dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        of_fakes = module.objective.score(module.discriminator(module.generator(latents, labels), labels))
    assert fakes == pytest.approx(float(of_fakes.mean()), abs=1e-5)
    assert scores(module, images, 1 - labels)[0] != seen
