"""Trains a small DCGAN on some CPU ranks and saves what each of them ends with: run by test_distributed.py.

Usage: train_on_ranks.py FOLDER RANKS NORMALIZATION
"""

import sys
from pathlib import Path

import torch
from lightning import Trainer, seed_everything
from torch.utils.data import DataLoader, DistributedSampler

from gan_lightning import DCGAN
from gan_lightning.modules.records import batch_rng

BATCH, STEPS, SIZE = 8, 5, 16


class SharedLatents(DCGAN):
    """Draws the latents of the whole batch on every rank, and takes its share: the ranks together see one batch."""

    def _draw_latents(self, count):
        ranks, rank = self.trainer.world_size, self.global_rank
        rng = batch_rng(self._seed, 0, self.trainer.fit_loop.total_batch_idx)
        return torch.randn(count * ranks, self.latent_dim, generator=rng)[rank::ranks]


def main(folder, ranks, normalization):
    seed_everything(0)
    images = torch.rand(BATCH * STEPS, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    module_class = SharedLatents if normalization == "none" else DCGAN
    module = module_class(
        image_size=SIZE,
        latent_dim=6,
        base_channels=4,
        generator_normalization=normalization,
        discriminator_normalization=normalization,
        r1=1.0 if normalization == "none" else 0.0,
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        max_steps=STEPS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    data = [{"image": image} for image in images]
    sampler = DistributedSampler(data, ranks, trainer.global_rank, shuffle=False)
    trainer.fit(module, DataLoader(data, batch_size=BATCH // ranks, sampler=sampler))
    first = module._draw_latents(2)[0]
    torch.save({"state": module.state_dict(), "latent": first}, Path(folder) / f"rank-{trainer.global_rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
