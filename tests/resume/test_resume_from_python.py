"""A run resumed by `Trainer.fit` alone, with no command line, reads checkpoints as safely as with one."""

import pickle

import pytest
import torch
from lightning import Trainer
from torch.utils.data import DataLoader

from gan_lightning import DCGAN
from gan_lightning.resume.last_checkpoint import LastCheckpoint
from tests.test_safety import MakesAFolder, served

TINY = {"image_size": 16, "latent_dim": 6, "base_channels": 4}


def fit(folder, steps, ckpt_path=None, **options):
    torch.manual_seed(0)
    module = DCGAN(**TINY, **options)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, callbacks=[LastCheckpoint()], default_root_dir=folder, **quiet
    )
    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    trainer.fit(module, DataLoader([{"image": image} for image in images], batch_size=4), ckpt_path=ckpt_path)
    return trainer


def test_no_code_of_a_checkpoint_runs_wherever_it_comes_from(tmp_path, monkeypatch):
    """Lightning alone would run that of a checkpoint on a server."""
    fit(tmp_path, 2)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    trace = tmp_path / "the code has run"
    torch.save(checkpoint | {"more": MakesAFolder(trace)}, tmp_path / "evil.ckpt")
    with served(tmp_path, monkeypatch) as address:
        assert fit(tmp_path / "good", 4, f"{address}/last.ckpt").global_step == 4
        for place in (str(tmp_path / "evil.ckpt"), f"{address}/evil.ckpt"):
            with pytest.raises(pickle.UnpicklingError):
                fit(tmp_path / "bad", 4, place)
    assert not trace.exists()


def test_a_resumed_run_takes_its_own_learning_rates(tmp_path):
    """Not those of the run that it resumes, whose optimizers are in the checkpoint."""
    fit(tmp_path, 2)
    resumed = fit(tmp_path / "on", 4, tmp_path / "last.ckpt", lr_g=5e-3, lr_d=1e-3, betas=(0.0, 0.9))
    groups = [optimizer.param_groups[0] for optimizer in resumed.optimizers]
    assert [group["lr"] for group in groups] == [5e-3, 1e-3]
    assert [tuple(group["betas"]) for group in groups] == [(0.0, 0.9)] * 2
    saved = torch.load(tmp_path / "on" / "last.ckpt", weights_only=True)["optimizer_states"]
    assert [optimizer["param_groups"][0]["lr"] for optimizer in saved] == [5e-3, 1e-3]
    assert all(float(state["step"]) == 4 for optimizer in saved for state in optimizer["state"].values())
