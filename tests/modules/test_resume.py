"""A run that is cut off in the middle of an epoch and resumed ends as the run that never was."""

import pytest
import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from gan_lightning import DCGAN, SyntheticFaces
from tests.conftest import FACES


def train(faces_root, folder, steps, ckpt_path=None, d_steps=1):
    seed_everything(3)
    module = DCGAN(image_size=16, base_channels=4, latent_dim=6, d_steps=d_steps)
    data = SyntheticFaces(str(faces_root), count=FACES, image_size=16, batch_size=16)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        callbacks=[ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        default_root_dir=folder,
    )
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return module


@pytest.mark.parametrize(("cut", "d_steps"), [(2, 1), (8, 1), (3, 3)])
def test_resumed_in_mid_epoch_is_as_never_stopped(faces_root, tmp_path, cut, d_steps):
    """An epoch has six batches here, so that the cuts fall within the first and the second."""
    whole = train(faces_root, tmp_path / "whole", 11, d_steps=d_steps)
    resumed = train(faces_root, tmp_path, 11, tmp_path / "whole" / f"step={cut}.ckpt", d_steps=d_steps)
    for name, tensor in whole.state_dict().items():
        assert tensor.equal(resumed.state_dict()[name]), name
    adam, adam_resumed = (module.trainer.optimizers[1].state_dict()["state"] for module in (whole, resumed))
    for index, state in adam.items():
        torch.testing.assert_close(state, adam_resumed[index], rtol=0, atol=0)
