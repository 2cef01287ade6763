"""Train a small DCGAN on two CPU ranks, one of which is stopped or fails: run by test_last_checkpoint.py.

Usage: stop_on_ranks.py FACES FOLDER TROUBLE RANK, where TROUBLE is none, SIGTERM, SIGINT or error.
"""

import os
import signal
import sys
from pathlib import Path

import torch
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from gan_lightning import DCGAN, SyntheticFaces
from gan_lightning.loggers.metrics_file import MetricsFile
from gan_lightning.resume.last_checkpoint import LastCheckpoint
from tests.conftest import FACES

STEPS, STOP = 9, 4


class Trouble(Callback):
    """Stops the run or raises an error in the middle of step STOP + 1."""

    def __init__(self, trouble):
        self.trouble = trouble

    def on_before_optimizer_step(self, trainer, *_):
        if trainer.global_step != STOP or self.trouble == "none":
            return
        trouble, self.trouble = self.trouble, "none"
        if trouble == "error":
            raise RuntimeError("a failure of one rank")
        os.kill(os.getpid(), getattr(signal, trouble))


def main(faces, folder, trouble, rank):
    seed_everything(0)
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_steps=STEPS,
        log_every_n_steps=1,
        val_check_interval=3,
        check_val_every_n_epoch=None,
        logger=MetricsFile(folder),
        callbacks=[ModelCheckpoint(folder, "best"), LastCheckpoint()],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )
    if trainer.global_rank == rank:
        trainer.callbacks.insert(0, Trouble(trouble))
    module = DCGAN(image_size=16, latent_dim=6, base_channels=4)
    data = SyntheticFaces(faces, count=FACES, image_size=16, batch_size=8, eval_batch_size=4)
    last = Path(folder, "last.ckpt")
    trainer.fit(module, datamodule=data, ckpt_path=last if last.exists() else None)
    optimizers = [optimizer.state_dict()["state"] for optimizer in trainer.optimizers]
    state = {"module": module.state_dict(), "optimizers": optimizers}
    torch.save(state, Path(folder) / f"rank-{trainer.global_rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
