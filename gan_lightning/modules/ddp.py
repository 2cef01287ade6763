"""Settings of DDP for modules with several networks."""

from __future__ import annotations

import atexit

import torch
from lightning import LightningModule
from lightning.pytorch.strategies import DDPStrategy

from gan_lightning import distributed
from gan_lightning.errors import InputError
from gan_lightning.resume.lightning_internals import set_ddp_defaults, uses_sync_batchnorm


def prepare_ddp(module: LightningModule, second_derivative: bool) -> None:
    """Set the options that plain `ddp` needs for two networks, and check that SyncBatchNorm is possible.

    Args:
        module: The module, in its `setup`.
        second_derivative: Whether the losses contain gradients, as with gradient penalties.

    Raises:
        InputError: If SyncBatchNorm is used with a gradient penalty or without a GPU.
    """
    strategy = module.trainer.strategy
    if isinstance(strategy, DDPStrategy):
        leave_ranks_at_exit()
        # A backward pass reaches only one of the two networks; plain `ddp` would raise for the other. Buffers are equal
        # after each step already: see distributed.average_buffers.
        set_ddp_defaults(strategy, find_unused_parameters=True, broadcast_buffers=False)
    if not uses_sync_batchnorm(strategy):
        return
    if second_derivative:
        raise InputError(
            "sync_batchnorm has no second derivative, which r1, r2 and gradient_penalty need: leave one of them out"
        )
    if strategy.root_device.type != "cuda":
        raise InputError("sync_batchnorm needs GPUs: leave it out, or choose --trainer.accelerator gpu")


def leave_ranks_at_exit() -> None:
    """Destroy the process group when this process exits.

    Lightning does so only for nccl. If a gloo group lives until the interpreter shuts down, its threads may still be
    running, and a process that has finished its work ends with SIGABRT.
    """
    atexit.register(_leave_ranks)


def _leave_ranks() -> None:
    if distributed.is_distributed():
        torch.distributed.destroy_process_group()
