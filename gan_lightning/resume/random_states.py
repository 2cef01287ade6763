"""States of the global random number generators, for checkpoints.

Random numbers of this package are functions of seed, rank and batch, and need no state. Modules, callbacks and data
sets of users may draw from the global generators.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from gan_lightning import distributed


def random_states() -> list[dict[str, Any]]:
    """Collect the states of Python's, NumPy's and torch's generators from all ranks, as plain values and tensors."""
    name, keys, *rest = np.random.get_state(legacy=True)  # a tuple, where `legacy=False` returns a dict
    own = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }
    return distributed.gather(own)


def set_random_states(states: list[dict[str, Any]], rank: int) -> None:
    """Restore the states of one rank's generators.

    Args:
        states: States by rank, from `random_states`.
        rank: Rank of this process. If the list has no states for it, its generators are not changed.
    """
    if rank >= len(states):
        return
    own = states[rank]
    version, numbers, following = own["python"]
    random.setstate((version, tuple(numbers), following))
    name, keys, *rest = own["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(own["torch"].cpu())
    if own["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(own["cuda"].cpu())
