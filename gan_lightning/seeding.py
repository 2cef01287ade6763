"""Random generators seeded by their purpose, so that checkpoints do not need their states."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import torch


def global_seed() -> int:
    """Return the seed of Lightning's `seed_everything`, the same on every rank; 0 if it was not called."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0))


def image_rng(seed: int, index: int, purpose: str) -> torch.Generator:
    """Return the random generator of one image, on the CPU, independent of batch, rank and device.

    Args:
        seed: Seed of the run.
        index: Index of the image in its data set.
        purpose: Name of the purpose; draws for different purposes are independent.
    """
    digest = hashlib.sha256(f"{seed}/{index}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def batch_seed(seed: int, rank: int, batch: int) -> int:
    """Return the seed of the random numbers of one batch of one rank.

    Args:
        seed: Seed of the run.
        rank: Rank that the batch belongs to.
        batch: Number of the batch.
    """
    state = np.random.SeedSequence([seed, rank, batch]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def batch_rng(seed: int, rank: int, batch: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a random generator with the seed of one batch.

    Args:
        seed: Seed of the run.
        rank: Rank that the batch belongs to.
        batch: Number of the batch.
        device: Device of the generator.
    """
    return torch.Generator(device).manual_seed(batch_seed(seed, rank, batch))
