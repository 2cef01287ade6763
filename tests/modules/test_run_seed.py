"""`seed_everything` changes all that is drawn in training, and nothing that runs are compared by."""

import pytest
import torch
from lightning import Callback, Trainer, seed_everything

from gan_lightning import DCGAN, LatentEncoder, SampleGrid, SyntheticFaces
from gan_lightning.networks.dcgan import Generator
from gan_lightning.resume.last_checkpoint import LastCheckpoint
from gan_lightning.seeding import global_seed
from tests.conftest import FACES
from tests.modules.test_dcgan import TINY


class Drawn(Callback):
    """What each batch was made of."""

    def __init__(self):
        self.index, self.images, self.latents = [], [], []

    def on_train_start(self, trainer, module):
        module.generator.register_forward_hook(lambda _, inputs, __: self.latents.append(inputs[0].clone()))

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.index += batch["index"].tolist()
        self.images.append(batch["image"].clone())


def drawn(faces_root, folder, everything, steps=4, ckpt_path=None, **options):
    seed_everything(everything, verbose=False)
    module, seen = DCGAN(**TINY), Drawn()
    data = SyntheticFaces(str(faces_root), count=FACES, image_size=16, batch_size=16, **options)
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, limit_val_batches=0, logger=False, default_root_dir=folder,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[seen, LastCheckpoint()],
    )  # fmt: skip
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return seen


def test_the_order_of_the_images_flips_and_latents_follow_the_seed(faces_root, tmp_path):
    first, same, other = (drawn(faces_root, tmp_path / str(n), seed) for n, seed in enumerate((1, 1, 2)))
    assert first.index == same.index != other.index
    assert all(map(torch.equal, first.images, same.images))
    assert all(map(torch.equal, first.latents, same.latents))
    assert not any(map(torch.equal, first.latents, other.latents))


def test_a_seed_of_the_data_is_theirs_alone(faces_root, tmp_path):
    first, other = (drawn(faces_root, tmp_path / str(seed), seed, seed=5) for seed in (1, 2))
    assert all(map(torch.equal, first.images, other.images))
    assert not any(map(torch.equal, first.latents, other.latents))


def test_a_resumed_run_keeps_the_order_it_began_with(faces_root, tmp_path):
    whole = drawn(faces_root, tmp_path / "whole", 1, steps=12)  # more than an epoch
    first = drawn(faces_root, tmp_path / "cut", 1, steps=5)
    rest = drawn(faces_root, tmp_path / "on", 2, steps=12, ckpt_path=tmp_path / "cut" / "last.ckpt")
    assert first.index + rest.index == whole.index


def test_without_seed_everything_it_is_zero(monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    assert global_seed() == 0
    assert SyntheticFaces("nowhere").seed == 0
    seed_everything(3, verbose=False)
    assert SyntheticFaces("nowhere").seed == 3
    assert SyntheticFaces("nowhere", seed=1).seed == 1


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("generator") / "generator.pt"
    torch.manual_seed(0)
    torch.save(Generator(16, latent_dim=4, base_channels=4).state_dict(), path)
    return str(path)


def test_an_encoder_is_trained_by_the_seed_and_validated_on_the_same_images(checkpoint, tmp_path):
    def fit(everything, **options):
        seed_everything(everything, verbose=False)
        module = LatentEncoder(
            checkpoint, base_channels=4, hidden_dim=8, batch_size=4, batches_per_epoch=2, validation_images=4, **options
        )
        calls = []
        module.encoder.register_forward_pre_hook(lambda network, given: calls.append((network.training, given[0])))
        Trainer(
            accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=tmp_path,
        ).fit(module)  # fmt: skip
        return [[images for training, images in calls if training is mode] for mode in (True, False)]

    inputs = [fit(1), fit(1), fit(2), fit(2, seed=1), fit(3, seed=1)]
    trained, validated = zip(*inputs, strict=True)
    assert all(map(torch.equal, trained[0], trained[1]))
    assert not any(map(torch.equal, trained[0], trained[2]))
    assert all(map(torch.equal, validated[0], validated[2]))
    assert all(map(torch.equal, trained[3], trained[4]))


def test_grids_show_the_same_latents_whatever_the_seed():
    assert SampleGrid().seed == 0
