"""Train a small DCGAN for ten steps with W&B, against the server of a test: run by test_wandb.py.

Usage: train_with_wandb.py FOLDER [PID|service]

The second argument is a process to kill after the fifth step; "service" is W&B's own.
"""

import os
import signal
import sys
import time

import torch
from lightning import Callback, Trainer, seed_everything
from torch.utils.data import DataLoader

from gan_lightning import DCGAN
from gan_lightning.loggers.metrics_file import MetricsFile
from gan_lightning.loggers.wandb import SteadyWandbLogger


class Kill(Callback):
    """Kills a process after the fifth step."""

    def __init__(self, victim):
        self.victim = victim

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step == 5:
            for pid in own_children("wandb-core") if self.victim == "service" else [int(self.victim)]:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.5)


def own_children(name):
    """Yield the ids of the child processes with a name."""
    with open(f"/proc/{os.getpid()}/task/{os.getpid()}/children") as file:
        for pid in map(int, file.read().split()):
            with open(f"/proc/{pid}/cmdline") as command:
                if name in command.read():
                    yield pid


def main(folder, *victims):
    seed_everything(0)
    logger = SteadyWandbLogger(project="test", save_dir=folder)
    begun = time.monotonic()
    logger.log_hyperparams({"setting": 1})
    print("start took", time.monotonic() - begun)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=10,
        logger=[MetricsFile(folder), logger],
        callbacks=[Kill(victim) for victim in victims],
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    images = [{"image": image} for image in torch.rand(20, 3, 16, 16)]
    trainer.fit(DCGAN(image_size=16, latent_dim=6, base_channels=4), DataLoader(images, batch_size=4))
    begun = time.monotonic()
    logger.finish()
    print("finish took", time.monotonic() - begun)


if __name__ == "__main__":
    main(*sys.argv[1:])
