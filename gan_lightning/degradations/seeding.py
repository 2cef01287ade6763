"""Random draws that belong to an image, whatever batch, rank or device it is on."""

from __future__ import annotations

import hashlib

import torch


def image_rng(seed: int, index: int, purpose: str) -> torch.Generator:
    """Make the generator of one image's draws, on the CPU.

    Args:
        seed: Seed of the run.
        index: The image's index in its data set.
        purpose: What is drawn; draws of different purposes are independent.
    """
    digest = hashlib.sha256(f"{seed}/{index}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
