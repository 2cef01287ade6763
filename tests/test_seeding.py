"""Generators of random numbers: a function of what they are for, and of nothing else."""

import hashlib

import numpy as np
import torch

from gan_lightning.seeding import batch_rng, image_rng


def draw(rng):
    return torch.rand(4, generator=rng).tolist()


def test_the_same_place_draws_the_same_whatever_was_drawn_before():
    for make in (lambda: image_rng(3, 7, "noise"), lambda: batch_rng(3, 1, 7)):
        first = draw(make())
        torch.manual_seed(99)
        assert draw(make()) == first


def test_every_argument_counts():
    images = [(0, 0, "noise"), (1, 0, "noise"), (0, 1, "noise"), (0, 0, "start"), (1, 1, "noise"), (11, 0, "noise")]
    assert len({tuple(draw(image_rng(*place))) for place in images}) == len(images)
    batches = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1)]
    assert len({tuple(draw(batch_rng(*place))) for place in batches}) == len(batches)


def test_seeds_stay_what_they_are():
    """Or the results of a run could not be had again with the next release."""
    digest = hashlib.sha256(b"3/7/noise").digest()
    assert image_rng(3, 7, "noise").initial_seed() == int.from_bytes(digest[:7], "little")
    state = int(np.random.SeedSequence([3, 1, 7]).generate_state(1, np.uint64)[0])
    assert batch_rng(3, 1, 7).initial_seed() == state // 2
    assert batch_rng(3, 1, 7).device.type == "cpu"


def test_seeds_of_any_size_are_taken():
    for seed in (0, 2**31, 2**63 - 1):
        assert image_rng(seed, 2**40, "x").initial_seed() < 2**56
        assert 0 <= batch_rng(seed, 2**31, 2**40).initial_seed() < 2**63
