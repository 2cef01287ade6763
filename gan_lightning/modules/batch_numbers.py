"""A sampler of numbered batches for modules that generate their own data."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import DistributedSampler

from gan_lightning import distributed


class BatchNumbers(DistributedSampler[int]):
    """Numbers of batches that a module generates: rank r of W takes r, r + W, ...

    All ranks get the same number of batches, because they wait for each other: if `count` is not divisible by W, some
    numbers are `count` or greater. These are ordinary batches in training, and empty ones in evaluation.

    Lightning does not replace a DistributedSampler by its own sampler, which would repeat some numbers.
    """

    def __init__(self, count: int) -> None:
        """Split the numbers among the ranks.

        Args:
            count: Number of batches over all ranks.
        """
        super().__init__(range(count), distributed.world_size(), distributed.rank(), shuffle=False)  # type: ignore[arg-type]
        self._resumed = (-1, 0)  # epoch, finished batches

    def resume(self, epoch: int, batches_done: int) -> None:
        """Skip the batches of an epoch that a resumed run has trained on, counted per rank."""
        self._resumed = (epoch, batches_done)
        self.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        epoch, done = self._resumed
        first = done if epoch == self.epoch else 0
        return iter(range(self.rank + first * self.num_replicas, len(self) * self.num_replicas, self.num_replicas))
