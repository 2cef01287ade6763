from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gan_lightning.data.batches import EpochBatches
from gan_lightning.errors import InputError


def batches_of(epoch: int = 0, **arguments: object) -> list[tuple[np.ndarray, np.ndarray]]:
    settings = {"num_items": 103, "batch_size": 8, "shuffle": True, "drop_last": True, "num_replicas": 1, "rank": 0}
    sampler = EpochBatches(**{**settings, **arguments})
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    return batches


def order_of(**arguments: object) -> list[int]:
    return np.concatenate([positions for positions, _ in batches_of(**arguments)]).tolist()


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [7, 96, 97, 103])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_item_once_at_any_world_size(world_size: int, count: int, shuffle: bool) -> None:
    ranks = [
        batches_of(num_items=count, shuffle=shuffle, drop_last=False, num_replicas=world_size, rank=rank)
        for rank in range(world_size)
    ]
    seen = np.concatenate([positions for batches in ranks for positions, _ in batches])
    np.testing.assert_array_equal(np.sort(seen), np.arange(count))
    assert len({len(batches) for batches in ranks}) == 1  # or a collective in one rank's last batch would hang
    assert all(0 < len(positions) <= 8 for batches in ranks for positions, _ in batches)


def test_fewer_items_than_ranks() -> None:
    ranks = [batches_of(num_items=2, drop_last=False, num_replicas=3, rank=rank) for rank in range(3)]
    assert [[positions.tolist() for positions, _ in batches] for batches in ranks] == [[[0]], [[1]], [[]]]


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_training_drops_less_than_a_batch_and_repeats_nothing(world_size: int) -> None:
    ranks = [batches_of(num_replicas=world_size, rank=rank) for rank in range(world_size)]
    seen = np.concatenate([positions for batches in ranks for positions, _ in batches])
    assert len(np.unique(seen)) == len(seen) > 103 - 8 * world_size
    assert all(len(positions) == 8 for batches in ranks for positions, _ in batches)
    assert len({len(batches) for batches in ranks}) == 1


def test_ranks_share_the_batches_of_one_rank() -> None:
    one = batches_of(batch_size=12, flip_probability=0.5)
    for world_size in (2, 3):
        ranks = [
            batches_of(batch_size=12 // world_size, flip_probability=0.5, num_replicas=world_size, rank=rank)
            for rank in range(world_size)
        ]
        for (whole, flips), *parts in zip(one, *ranks, strict=True):
            expected = dict(zip(whole.tolist(), flips.tolist(), strict=True))
            joined = {key: flip for part in parts for key, flip in zip(*map(np.ndarray.tolist, part), strict=True)}
            assert joined == expected


def test_order_is_a_function_of_seed_and_epoch() -> None:
    assert order_of(seed=1, epoch=2) == order_of(seed=1, epoch=2)
    assert len({tuple(order_of(seed=seed, epoch=epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4


def test_without_shuffle_the_order_is_kept() -> None:
    assert order_of(shuffle=False, drop_last=False, epoch=3) == list(range(103))


def test_flips_are_drawn_for_each_item_and_epoch() -> None:
    def flips(epoch: int, probability: float = 0.5) -> np.ndarray:
        batches = batches_of(epoch, num_items=10_000, flip_probability=probability, shuffle=False)
        return np.concatenate([flips for _, flips in batches])

    assert not flips(0, 0.0).any()
    assert flips(0, 1.0).all()
    assert abs(flips(0).mean() - 0.5) < 0.025  # five standard deviations
    np.testing.assert_array_equal(flips(1), flips(1))
    assert 0.45 < (flips(0) != flips(1)).mean() < 0.55


def test_a_batch_size_of_zero_is_refused() -> None:
    with pytest.raises(InputError, match="batch size is 0"):
        batches_of(batch_size=0)


def test_a_resumed_epoch_begins_where_it_was_left_and_the_next_is_whole() -> None:
    settings: dict[str, Any] = {"shuffle": True, "drop_last": True, "flip_probability": 0.5}
    whole, resumed = (EpochBatches(103, 8, **settings, num_replicas=1, rank=0) for _ in range(2))
    resumed.resume(3, 5)
    assert len(resumed) == len(whole) == 12
    for epoch in (3, 4, 3):
        expected = []
        whole.set_epoch(epoch)
        resumed.set_epoch(epoch)
        for batch in list(whole)[5 if epoch == 3 else 0 :]:
            expected.append(batch)
        for ours, theirs in zip(resumed, expected, strict=True):
            np.testing.assert_array_equal(ours[0], theirs[0])
            np.testing.assert_array_equal(ours[1], theirs[1])


def test_one_process_is_rank_zero_of_one_and_flips_nothing_unless_asked() -> None:
    batches = list(EpochBatches(5, 1, shuffle=False, drop_last=False))
    assert [positions.tolist() for positions, _ in batches] == [[0], [1], [2], [3], [4]]
    assert all(flips.dtype == np.bool_ and not flips.any() for _, flips in batches)
    for epoch in (0, 1):
        first = EpochBatches(103, 8, shuffle=True, drop_last=True)
        first.set_epoch(epoch)
        assert np.concatenate([p for p, _ in first]).tolist() == order_of(seed=0, epoch=epoch)
