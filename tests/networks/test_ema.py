"""The moving average against its definition."""

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
