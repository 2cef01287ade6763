"""Refusals of Lightning are one line; what may be a bug keeps its traceback."""

import pytest
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from gan_lightning import DCGAN
from gan_lightning.__main__ import main

pytestmark = pytest.mark.usefixtures("own_folder")

WORDS = "--model.image_size 16 --model.base_channels 4 --model.latent_dim 4 --trainer.accelerator cpu "
WORDS += "--trainer.max_steps 2 --trainer.enable_progress_bar false --evaluation.extractor random --name run"


class Batches(LightningDataModule):
    """Two batches a split."""

    def train_dataloader(self):
        return DataLoader([{"image": image} for image in torch.rand(8, 3, 16, 16) * 2 - 1], batch_size=4)

    def val_dataloader(self):
        return self.train_dataloader()


class Buggy(DCGAN):
    """Model with a mistake in a hook, which Lightning notices."""

    def on_train_batch_start(self, batch, batch_idx):
        self.log("x", [1, 2])


class Wrong(DCGAN):
    """Model with a mistake of its own."""

    def on_train_batch_start(self, batch, batch_idx):
        raise ValueError("a bug")


class Failing(torch.nn.Module):
    def forward(self, latents):
        raise RuntimeError("a bug in a network")


class FailingNetwork(DCGAN):
    """Model whose network fails."""

    def on_train_start(self):
        super().on_train_start()
        self._networks = Failing(), self.discriminator


def fit(*words, model="DCGAN"):
    return main(["fit", "--model", model, "--data", f"{__name__}.Batches", *WORDS.split(), *words])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--trainer.val_check_interval 100", "`val_check_interval` (100) must be less than or equal to"),
        ("--trainer.callbacks EarlyStopping --trainer.callbacks.monitor val_loss", "`val_loss` which is not available"),
        (
            "--trainer.callbacks EarlyStopping --trainer.callbacks.monitor x --trainer.callbacks.mode up",
            "`mode` can be",
        ),
        ("--trainer.barebones true", "leave trainer.barebones out"),
        ("--trainer.devices 0", "`Trainer(devices='0')` value is not a valid input"),
        ("--trainer.accelerator gpus", "invalid accelerator name"),
        ("--trainer.strategy dpp", "invalid strategy name"),
        ("--trainer.num_nodes 0", "`num_nodes` must be a positive integer"),
        ("--trainer.profiler simplest", "can only be one of"),
        ("--trainer.max_time tomorrow", "is not a valid duration"),
        ("--trainer.limit_train_batches 1.5", "invalid value 1.5 for limit_train_batches"),
        ("--trainer.gradient_clip_val 1", "of a DCGAN, set model.gradient_clip instead"),
        ("--trainer.accumulate_grad_batches 2", "of a DCGAN, set model.accumulate instead"),
    ],
)
def test_what_lightning_refuses_is_one_line(capsys, words, said):
    assert fit(*words.split()) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1
    assert lines[0].startswith("gan-lightning: error: ")
    assert said in lines[0]


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("Buggy", ValueError, "x"),
        ("Wrong", ValueError, "a bug"),
        ("FailingNetwork", RuntimeError, "a bug in a network"),
    ],
)
def test_what_may_be_a_bug_keeps_its_traceback(model, error, message):
    with pytest.raises(error, match=message):
        fit(model=f"{__name__}.{model}")
