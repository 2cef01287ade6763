"""The images of a split in the memory of the device: an epoch then reads nothing from the host but their positions."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gan_lightning.data.batches import BatchIndex, PackedDataset, split_batch_index
from gan_lightning.data.packing import describe_size
from gan_lightning.errors import InputError

logger = logging.getLogger(__name__)

CHUNK = 8192  # images copied in one go, so that the host never holds a second copy of all


class ResidentImages:
    """All images of a split on one device, uint8.

    Args:
        dataset: The split.
        device: Where the images are to lie.
        announce: Say how many bytes that takes, and where, before the first of them moves.

    Raises:
        InputError: If the device has not so much memory free.
    """

    def __init__(self, dataset: PackedDataset, device: torch.device, announce: bool = True) -> None:
        shape = dataset.images.framing.shape
        needed, free = len(dataset) * int(np.prod(shape)), free_memory(device)
        size = describe_size(len(dataset), dataset.images.framing)
        if free is not None and needed > free:
            raise InputError(
                f"{size} ({needed:,} bytes) on {device}, {free:,} are free: set resident: false, or use a smaller "
                "image_size or a device with more memory."
            )
        if announce:
            logger.info("Resident: %s (%s bytes) on %s", size, f"{needed:,}", device)
        self._pixels = torch.empty((len(dataset), *shape), dtype=torch.uint8, device=device)
        for start in range(0, len(dataset), CHUNK):
            positions = np.arange(start, min(start + CHUNK, len(dataset)))
            self._pixels[start : start + CHUNK] = dataset.read(positions).permute(0, 2, 3, 1).to(device)

    def read(self, positions: Tensor) -> Tensor:
        """Read a batch by one index operation on the device.

        Args:
            positions: (B) int64 positions in the split, on the device.

        Returns:
            (B,C,H,W) uint8 in channels_last memory.
        """
        return self._pixels.index_select(0, positions).permute(0, 3, 1, 2)


class ResidentDataset(Dataset[dict[str, Tensor]]):
    """What the loader still brings of a split whose images are resident: positions in place of pixels.

    Args:
        dataset: The split.
    """

    def __init__(self, dataset: PackedDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, batch: BatchIndex) -> dict[str, Tensor]:
        """Describe a batch.

        Args:
            batch: Positions and flips, as `EpochBatches` yields them.

        Returns:
            As `PackedDataset`, with "position" (B) int64, in the split, in place of "image".
        """
        positions, _ = split_batch_index(batch)
        return {"position": torch.from_numpy(positions), **self.dataset.describe(batch)}


def free_memory(device: torch.device) -> int | None:
    """Free bytes of a device, or None where the system does not tell.

    Args:
        device: A CUDA device; for any other the host's memory counts, which it shares.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    table = Path("/proc/meminfo")
    lines = table.read_text().splitlines() if table.is_file() else []
    available = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return available[0] if available else None
