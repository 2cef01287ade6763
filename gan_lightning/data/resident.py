"""Images of a split in the memory of the device, so that an epoch only reads their order from the host."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gan_lightning.data.batches import EpochBatches, ImageDataset
from gan_lightning.data.packed import describe_size, pixel_bytes
from gan_lightning.errors import InputError

logger = logging.getLogger(__name__)

SHARE = 4  # by default, images take at most one part in this many of the free memory
CHUNK = 8192  # number of images copied at a time, so that the host never has a second copy of all


class ResidentImages:
    """All images of a split on one device, uint8.

    Args:
        dataset: The split.
        device: Device of the images.
        announce: Log the number of bytes and the device before the first image is copied.

    Raises:
        InputError: If the device has too little free memory.
    """

    def __init__(self, dataset: ImageDataset, device: torch.device, announce: bool = True) -> None:
        shape = dataset.images.crop_resize.shape
        needed, free = pixel_bytes(len(dataset), dataset.images.crop_resize), free_memory(device)
        size = describe_size(len(dataset), dataset.images.crop_resize)
        too_much = InputError(
            f"{size} ({needed:,} bytes) on {device}, {free or 0:,} are free: set resident: false, or use a smaller "
            "image_size or a device with more memory."
        )
        if free is not None and needed > free:
            raise too_much
        if announce:
            logger.info("Resident: %s (%s bytes) on %s", size, f"{needed:,}", device)
        self.device = device
        try:
            self._pixels = torch.empty((len(dataset), *shape), dtype=torch.uint8, device=device)
        except torch.OutOfMemoryError as error:  # fragmented memory, or another process has taken it
            raise too_much from error
        for start in range(0, len(dataset), CHUNK):
            positions = np.arange(start, min(start + CHUNK, len(dataset)))
            self._pixels[start : start + CHUNK] = dataset.read(positions).permute(0, 2, 3, 1).to(device)

    def free(self) -> None:
        """Free the memory, even if something else still refers to this object."""
        self._pixels = self._pixels.new_empty(0)

    def read(self, positions: Tensor) -> Tensor:
        """Read positions (B) int64 on the device, in one index operation: (B,C,H,W) uint8, channels_last."""
        return self._pixels.index_select(0, positions).permute(0, 3, 1, 2)


class ResidentBatches:
    """The batches of an epoch of resident images, without a loader; positions are copied to the device once per epoch.

    Args:
        images: Images of the split, on the device.
        dataset: The split.
        sampler: Order of the images. Lightning finds it under this name, and sets its epoch.
    """

    def __init__(self, images: ResidentImages, dataset: ImageDataset, sampler: EpochBatches) -> None:
        self.images, self.dataset, self.sampler = images, dataset, sampler

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch on this rank."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield the batches of a loader of the `ImageDataset`, on the device."""
        indices = list(self.sampler)
        if not indices:
            return
        positions, flips = (np.concatenate(parts) for parts in zip(*indices, strict=True))
        items = {"position": torch.from_numpy(positions), **self.dataset.describe((positions, flips))}
        on_device = {name: tensor.to(self.images.device) for name, tensor in items.items()}
        start = 0
        for part, _ in indices:
            batch = {name: tensor[start : start + len(part)] for name, tensor in on_device.items()}
            yield {"image": self.images.read(batch.pop("position")), **batch}
            start += len(part)


def fit_easily(dataset: ImageDataset, device: torch.device) -> bool:
    """Return whether a device is a GPU with free memory for four times the images.

    The rest is for networks, optimizers, activations and CUDA graphs, which are not on the device yet. On a CPU,
    resident images are not faster than packed ones.
    """
    free = free_memory(device) if device.type == "cuda" else None
    return free is not None and SHARE * pixel_bytes(len(dataset), dataset.images.crop_resize) <= free


def free_memory(device: torch.device) -> int | None:
    """Return the number of free bytes of a device, or None if the system does not report it.

    Args:
        device: A CUDA device. Any other device shares the memory of the host.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    table = Path("/proc/meminfo")
    lines = table.read_text().splitlines() if table.is_file() else []
    available = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return available[0] if available else None
