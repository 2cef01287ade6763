"""The moving average against its definition."""

import pytest
import torch
from torch import nn

from gan_lightning.networks.ema import frozen_copy, update_average, warm_decay


def test_average_follows_its_recursion_weights_and_statistics():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    average = frozen_copy(network)
    weight, mean = average[0].weight.clone(), average[1].running_mean.clone()
    for _ in range(5):
        with torch.no_grad():
            network[0].weight.normal_()
        network(torch.randn(8, 3))
        update_average(average, network, 0.9)
        weight = 0.9 * weight + 0.1 * network[0].weight
        mean = 0.9 * mean + 0.1 * network[1].running_mean
    torch.testing.assert_close(average[0].weight, weight)
    torch.testing.assert_close(average[1].running_mean, mean)
    assert average[1].num_batches_tracked == 5
    assert not any(parameter.requires_grad for parameter in average.parameters())


def test_decay_zero_copies():
    network = nn.Linear(3, 3)
    average = frozen_copy(nn.Linear(3, 3))
    update_average(average, network, 0.0)
    torch.testing.assert_close(average.state_dict(), network.state_dict())


def test_warm_up_rises_to_the_decay():
    decays = [warm_decay(0.99, step) for step in range(2000)]
    assert decays[0] == 0.1
    assert decays == sorted(decays)
    assert decays[-1] == 0.99


def test_warm_up_averages_all_previous_steps():
    """(1 + n) / (10 + n): the nine first weights count as one, until the decay is reached."""
    assert [warm_decay(0.999, step) for step in (0, 1, 8, 89)] == pytest.approx([1 / 10, 2 / 11, 1 / 2, 10 / 11])
    assert warm_decay(0.05, 0) == 0.05
    assert warm_decay(0.0, 100) == 0.0


def test_a_frozen_copy_is_another_network_in_evaluation_mode():
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).train()
    copied = frozen_copy(network)
    assert not any(module.training for module in copied.modules())
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    torch.testing.assert_close(copied.state_dict(), network.state_dict())
    with torch.no_grad():
        network[0].weight.zero_()
    assert copied[0].weight.abs().sum() > 0


def test_networks_of_other_statistics_cannot_be_averaged():
    with pytest.raises(ValueError, match="zip"):
        update_average(nn.BatchNorm1d(3), nn.BatchNorm1d(3, track_running_stats=False), 0.5)


def test_the_network_itself_is_not_modified():
    network, average = nn.BatchNorm1d(3), frozen_copy(nn.BatchNorm1d(3))
    network(torch.randn(8, 3))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    update_average(average, network, 0.9)
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
