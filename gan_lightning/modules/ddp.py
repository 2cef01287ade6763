"""What it takes for several ranks to train as one: DDP's settings, shares of the work, means over all."""

from __future__ import annotations

import atexit
from collections.abc import Iterator

import torch
from lightning import LightningModule
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DistributedSampler

from gan_lightning import distributed
from gan_lightning.errors import InputError


def prepare_ddp(module: LightningModule, second_derivative: bool) -> None:
    """Choose what plain `ddp` needs for two networks, and refuse SyncBatchNorm where it cannot work.

    Args:
        module: In its `setup`.
        second_derivative: Whether its losses hold gradients.

    Raises:
        InputError: SyncBatchNorm together with a gradient penalty, or without a GPU.
    """
    strategy = module.trainer.strategy
    if isinstance(strategy, DDPStrategy):
        leave_ranks_at_exit()
        # A backward pass reaches one of the two networks; plain `ddp` would stop at the other.
        strategy._ddp_kwargs.setdefault("find_unused_parameters", True)
        # They are equal after each step already: see average_buffers_over_ranks.
        strategy._ddp_kwargs.setdefault("broadcast_buffers", False)
    if getattr(strategy, "_layer_sync", None) is None:
        return
    if second_derivative:
        raise InputError(
            "sync_batchnorm has no second derivative, which r1, r2 and gradient_penalty need: leave one of them out"
        )
    if strategy.root_device.type != "cuda":
        raise InputError("sync_batchnorm needs GPUs: leave it out, or choose --trainer.accelerator gpu")


def leave_ranks_at_exit() -> None:
    """Have this process leave its process group when it ends.

    Lightning sees to that for nccl alone. A gloo group that is left to the interpreter's end may take its threads down
    while they work, and the process, whose work is done, then ends with SIGABRT.
    """
    atexit.register(_leave_ranks)


def _leave_ranks() -> None:
    if distributed.is_distributed():
        torch.distributed.destroy_process_group()


class RankNumbers(DistributedSampler[int]):
    """The numbers of batches that a module makes by itself: rank r of W takes r, r + W, ...

    All ranks get equally many, for they wait for each other: where `count` is not divisible by W, some of the numbers
    are `count` or above. In training they are batches like any other, in evaluation they stand for none.

    It is a DistributedSampler so that Lightning leaves it in place, whose own would give some numbers twice.
    """

    def __init__(self, count: int) -> None:
        """Share out the numbers from 0 to count - 1."""
        super().__init__(range(count), distributed.world_size(), distributed.rank(), shuffle=False)  # type: ignore[arg-type]
        self._resumed = (-1, 0)  # epoch, and its batches that were trained on before

    def resume(self, epoch: int, batches_done: int) -> None:
        """Leave out the first batches of one epoch, which a run that is resumed in the middle of it has seen."""
        self._resumed = (epoch, batches_done)
        self.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        epoch, done = self._resumed
        first = done if epoch == self.epoch else 0
        return iter(range(self.rank + first * self.num_replicas, len(self) * self.num_replicas, self.num_replicas))
