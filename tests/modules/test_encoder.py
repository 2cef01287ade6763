"""The encoder's training: endless data that are the same in every run, and what it learns."""

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from gan_lightning.degradations import Downsample, Grayscale, Identity
from gan_lightning.degradations.random_operators import KINDS, degrade_at_random, random_degradation
from gan_lightning.errors import InputError
from gan_lightning.modules.encoder import LatentEncoder
from gan_lightning.modules.restoration import LatentRestoration
from gan_lightning.networks.dcgan import Generator
from gan_lightning.networks.encoder import Encoder
from gan_lightning.networks.encoder_checkpoint import load_encoder

SIZE, LATENT = 16, 4
TINY = {"base_channels": 8, "hidden_dim": 32, "batch_size": 16, "batches_per_epoch": 20, "validation_images": 24}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    generator = Generator(SIZE, latent_dim=LATENT, base_channels=4)
    for parameter in generator.parameters():  # as drawn, its images are all but gray
        parameter.data *= 6
    path = tmp_path_factory.mktemp("generator") / "generator.pt"
    torch.save(generator.state_dict(), path)
    return str(path)


def fit(module, folder, epochs=1, ckpt_path=None, **options):
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        callbacks=[ModelCheckpoint(folder, "best", *LatentEncoder.monitor, enable_version_counter=False)],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        **options,
    )
    trainer.fit(module, ckpt_path=ckpt_path)
    return trainer


@pytest.fixture(scope="module")
def trained(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    module = LatentEncoder(checkpoint, **TINY)
    before = {name: value.clone() for name, value in module.generator.state_dict().items()}
    trainer = fit(module, folder, epochs=6)
    return module, trainer, before, folder / "best.ckpt"


def test_it_learns_to_guess_latents(trained):
    _, trainer, _, _ = trained
    assert float(trainer.callback_metrics["val/latent_mse"]) < 0.9  # a guess of zero has 1
    assert trainer.callback_metrics["val/psnr"] > 0


def test_it_learns_in_mixed_precision_too(checkpoint, tmp_path):
    torch.manual_seed(0)
    trainer = fit(LatentEncoder(checkpoint, **TINY), tmp_path, epochs=6, precision="bf16-mixed")
    assert float(trainer.callback_metrics["val/latent_mse"]) < 0.9


def test_the_generator_is_neither_trained_nor_saved(trained):
    module, _, before, path = trained
    assert all(torch.equal(value, before[name]) for name, value in module.generator.state_dict().items())
    assert not any(parameter.requires_grad for parameter in module.generator.parameters())
    assert all(name.startswith("encoder.") for name in torch.load(path, weights_only=True)["state_dict"])


def test_the_encoder_is_read_from_its_checkpoint(trained, checkpoint):
    module, _, _, path = trained
    images = module.generator(torch.randn(3, LATENT))
    encoder = load_encoder(path, module.generator)
    assert not encoder.training
    again = LatentEncoder.load_from_checkpoint(path, weights_only=True).eval()
    assert torch.equal(encoder(images), again(images))
    assert (encoder(images) - module.eval()(images)).abs().mean() < 0.5  # the best epoch may not be the last


def test_restoration_starts_from_the_guess(trained, checkpoint):
    module, _, _, path = trained
    restoration = LatentRestoration(checkpoint, encoder_ckpt=path)
    images = module.generator(torch.randn(2, LATENT))
    assert torch.equal(restoration.encoder(images), load_encoder(path, module.generator)(images))


def test_data_are_a_function_of_seed_epoch_and_number(checkpoint):
    module, same, other = (LatentEncoder(checkpoint, seed=seed, **TINY) for seed in (0, 0, 1))
    drawn = module._draw(0, 3, 16)
    assert all(torch.equal(a, b) for a, b in zip(drawn, same._draw(0, 3, 16), strict=True))
    for latents, _, _ in (module._draw(1, 3, 16), module._draw(0, 4, 16), other._draw(0, 3, 16)):
        assert not torch.equal(latents, drawn[0])


def test_validation_is_on_the_same_images_every_time(checkpoint, tmp_path):
    module = LatentEncoder(checkpoint, **TINY)
    trainer = fit(module, tmp_path, limit_train_batches=1)
    metrics = [trainer.validate(module, verbose=False)[0] for _ in range(2)]
    assert metrics[0] == metrics[1]


def test_degradations_are_of_all_kinds_and_leave_the_shape():
    images = torch.rand(96, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    degraded = degrade_at_random(images, torch.Generator().manual_seed(1))
    assert degraded.shape == images.shape
    assert degraded.isfinite().all()
    unchanged = (degraded == images).flatten(1).all(1)
    assert 0 < unchanged.sum() < len(images)
    rng = torch.Generator().manual_seed(0)
    kinds = [type(random_degradation(kind, 3, 32, rng)) for kind in KINDS]
    assert len(set(kinds)) == len(KINDS)


def test_small_and_gray_images_are_taken():
    torch.manual_seed(0)
    encoder = Encoder(32, 3, 5, base_channels=4, hidden_dim=8).eval()
    images = torch.rand(2, 3, 32, 32)
    gray = Grayscale()(images)
    assert torch.equal(encoder(gray), encoder(gray.expand(-1, 3, -1, -1)))
    assert encoder(Downsample(4)(images)).shape == (2, 5)
    assert torch.equal(encoder(Identity()(images)), encoder(images))
    assert not torch.allclose(encoder(images), encoder(images.flip(0)))


@pytest.mark.parametrize(
    ("options", "said"), [({"batch_size": 0}, "batch_size"), ({"lr": 0.0}, "lr"), ({"hidden_dim": 0}, "hidden_dim")]
)
def test_invalid_settings_are_refused(options, said, checkpoint):
    with pytest.raises(InputError, match=said):
        LatentEncoder(checkpoint, **options)


def test_files_without_a_fitting_encoder_are_refused(trained, checkpoint, tmp_path):
    module, _, _, path = trained
    with pytest.raises(InputError, match="no encoder"):
        load_encoder(checkpoint, module.generator)
    with pytest.raises(InputError, match="another generator"):
        load_encoder(path, Generator(SIZE, latent_dim=LATENT + 1, base_channels=4))
    with pytest.raises(InputError, match="does not exist"):
        load_encoder(tmp_path / "missing.ckpt", module.generator)


def test_a_resumed_training_refuses_another_learning_rate(trained, checkpoint, tmp_path):
    """Its schedule goes on from the first one, and would leave the new one out without a word."""
    _, _, _, path = trained
    with pytest.raises(InputError, match=r"lr is 0.1, but the schedule of the checkpoint began at 0.001"):
        fit(LatentEncoder(checkpoint, **TINY, lr=0.1), tmp_path, epochs=8, ckpt_path=path)
    fit(LatentEncoder(checkpoint, **TINY), tmp_path, epochs=7, ckpt_path=path)
