"""Random generators that are a function of what they are for: nothing to save, nothing to restore."""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def image_rng(seed: int, index: int, purpose: str) -> torch.Generator:
    """Return the generator of one image's draws, on the CPU, whatever batch, rank or device the image is on.

    Args:
        seed: Seed of the run.
        index: The image's index in its data set.
        purpose: What is drawn; draws of different purposes are independent.
    """
    digest = hashlib.sha256(f"{seed}/{index}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def batch_rng(seed: int, rank: int, batch: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return the generator of one batch's draws.

    Args:
        seed: Seed of the run.
        rank: Rank that the batch is on.
        batch: Number of the batch.
        device: Device of the generator.
    """
    state = np.random.SeedSequence([seed, rank, batch]).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0] >> np.uint64(1)))
