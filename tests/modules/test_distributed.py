"""DDP over two processes: the same step as one process, and the same networks on every rank."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning import Trainer

from gan_lightning import DCGAN, InputError

SCRIPT = Path(__file__).parent / "train_on_ranks.py"


def train(folder, ranks, normalization):
    folder.mkdir()
    arguments = [sys.executable, SCRIPT, folder, ranks, normalization]
    result = subprocess.run([str(a) for a in arguments], capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(ranks)]


@pytest.mark.slow
def test_two_ranks_take_the_step_of_one(tmp_path):
    (alone,) = train(tmp_path / "one", 1, "none")
    first, second = train(tmp_path / "two", 2, "none")
    for name, tensor in alone["state"].items():
        assert first["state"][name].equal(second["state"][name]), name
        torch.testing.assert_close(first["state"][name], tensor, rtol=0, atol=2e-6, msg=lambda t, n=name: f"{n}: {t}")


@pytest.mark.slow
def test_ranks_agree_on_everything_but_their_latents(tmp_path):
    first, second = train(tmp_path / "two", 2, "batch")
    for name, tensor in first["state"].items():
        assert tensor.equal(second["state"][name]), name
    assert not first["latent"].equal(second["latent"])


def test_synchronised_batch_norm_with_a_penalty_is_refused():
    module = DCGAN(image_size=16, base_channels=4, r1=1.0)
    trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", sync_batchnorm=True, logger=False)
    module.trainer = trainer
    with pytest.raises(InputError, match="sync_batchnorm has no second derivative"):
        module.setup("fit")
