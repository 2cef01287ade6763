"""Trains a small module on CPU ranks and saves what each of them saw and its final state: run by test_distributed.py.

Usage: train_on_ranks.py FOLDER RANKS KIND [CHECKPOINT], KIND one of none, labels, batch, messages, d_steps, float16,
encoder.
"""

import atexit
import json
import os
import sys
from pathlib import Path

import torch
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.plugins import MixedPrecision
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.utils.data import DataLoader, DistributedSampler

from gan_lightning import DCGAN
from gan_lightning.modules.encoder import LatentEncoder
from gan_lightning.seeding import batch_rng

BATCH, STEPS, SIZE = 8, 5, 16
OVERFLOW = 2  # at this step of float16, on the second rank alone


class SharedLatents(DCGAN):
    """Draws the latents of the whole batch on every rank and uses its own part, so that the ranks see one batch."""

    def _draw_latents(self, count):
        ranks, rank = self.trainer.world_size, self.global_rank
        rng = batch_rng(self._seed, 0, self.trainer.fit_loop.total_batch_idx)
        return torch.randn(count * ranks, self.latent_dim, generator=rng)[rank::ranks]


def overflow_once(weight):
    """Make the next gradient of a weight infinite, before DDP averages it over the ranks."""

    def spoil(gradient):
        handle.remove()
        return torch.full_like(gradient, torch.inf)

    handle = weight.register_hook(spoil)


class Messages(Callback):
    """Records how many numbers each message between the ranks has, and the messages that DDP sends itself."""

    def __init__(self):
        self.sent, self.of_ddp = [], 0
        send = torch.distributed.all_reduce

        def counted(tensor, *args, **kwargs):
            self.sent.append(tensor.numel())
            return send(tensor, *args, **kwargs)

        torch.distributed.all_reduce = counted

    def on_train_start(self, trainer, pl_module):
        def count(state, bucket):
            self.of_ddp += 1
            return allreduce_hook(None, bucket)

        if trainer.world_size > 1 and not pl_module.automatic_optimization:
            trainer.model.register_comm_hook(None, count)
        self.sent.clear()


class Recorder(Callback):
    """Compares the whole state of all ranks after every batch, where checkpoints are written and validation begins."""

    def __init__(self):
        self.unequal, self.compared, self.scales = [], 0, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if hasattr(trainer.precision_plugin, "scalers") and (batch_idx, trainer.global_rank) == (OVERFLOW, 1):
            overflow_once(next(pl_module.discriminator.parameters()))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        state = pl_module.state_dict()
        flat = torch.cat([tensor.double().flatten() for tensor in state.values()])
        others = [torch.empty_like(flat) for _ in range(trainer.world_size)]
        if trainer.world_size > 1:
            torch.distributed.all_gather(others, flat)
            self.unequal += [batch_idx for other in others if not torch.equal(other, flat)]
        self.compared += 1
        if (scalers := getattr(trainer.precision_plugin, "scalers", None)) is not None:
            self.scales.append([scalers[network].get_scale() for network in ("generator", "discriminator")])


class Rows(DummyLogger):
    """Records what is logged."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append({name: value for name, value in metrics.items() if "per_second" not in name})


def make_module(kind, checkpoint):
    if kind == "encoder":
        sizes = {"batch_size": 4, "batches_per_epoch": 2 * STEPS, "validation_images": 13}
        return LatentEncoder(checkpoint, base_channels=4, hidden_dim=8, **sizes)
    equal = kind in ("none", "labels")  # to one rank: each image counts on its own
    normalization = "none" if equal else "batch"
    return (SharedLatents if equal else DCGAN)(
        image_size=SIZE,
        latent_dim=6,
        base_channels=4,
        generator_normalization=normalization,
        discriminator_normalization=normalization,
        r1=1.0 if equal else 0.0,
        d_steps=2 if kind == "d_steps" else 1,
        num_classes=3 if kind == "labels" else 0,
    )


def tell_whether_it_left(folder):
    """Write whether this process has left the process group: registered first, it is called last."""
    path = Path(folder) / f"left-{os.environ.get('LOCAL_RANK', 0)}.json"
    path.write_text(json.dumps(not torch.distributed.is_initialized()))


def main(folder, ranks, kind, checkpoint=None):
    atexit.register(tell_whether_it_left, folder)
    seed_everything(0)
    images = torch.rand(BATCH * STEPS, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    module, recorder, logger, messages = make_module(kind, checkpoint), Recorder(), Rows(), Messages()
    scaler = torch.amp.GradScaler("cpu", 2.0**10)  # 16-mixed on a CPU: asked for by name, it would be bfloat16
    plugins = MixedPrecision("16-mixed", "cpu", scaler) if kind == "float16" else None
    trainer = Trainer(
        accelerator="cpu",
        plugins=plugins,
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        max_steps=STEPS,
        max_epochs=1,
        logger=logger,
        log_every_n_steps=STEPS if kind == "messages" else 1,
        callbacks=[recorder, messages],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=kind == "encoder",
    )
    if kind == "encoder":
        trainer.fit(module)
        latent = torch.zeros(1)
    else:
        data = [{"image": image, "label": number * number % 3} for number, image in enumerate(images)]
        sampler = DistributedSampler(data, ranks, trainer.global_rank, shuffle=False)
        trainer.fit(module, DataLoader(data, batch_size=BATCH // ranks, sampler=sampler))
        latent = module._draw_latents(2)[0]
    rank = trainer.global_rank
    torch.save({"state": module.state_dict(), "latent": latent}, Path(folder) / f"rank-{rank}.pt")
    told = {"unequal": recorder.unequal, "compared": recorder.compared, "scales": recorder.scales, "rows": logger.rows}
    told |= {"sent": messages.sent, "of_ddp": messages.of_ddp}
    (Path(folder) / f"rank-{rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
