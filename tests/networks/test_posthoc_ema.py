"""Averages of a length chosen afterwards, against those that a training itself would have kept."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from gan_lightning import InputError
from gan_lightning.networks.posthoc_ema import combination, decay_of, exponent_of, inner_products, length_of

TRACKS = (0.05, 0.10)
STEPS, EVERY = 2000, 100


@pytest.mark.parametrize("length", [0.01, 0.05, 0.1, 0.2, 0.28])
def test_the_length_is_the_standard_deviation_of_the_profile(length):
    gamma = exponent_of(length)
    assert length_of(gamma) == pytest.approx(length)
    moments = [quad(lambda t, k=k: (gamma + 1) * t**gamma * t**k, 0, 1)[0] for k in range(3)]
    assert moments[0] == pytest.approx(1)
    assert (moments[2] - moments[1] ** 2) ** 0.5 == pytest.approx(length, rel=1e-5)


def test_exponents_of_the_paper():
    """Its table: 16.97 for 0.05, 6.94 for 0.10."""
    assert [round(exponent_of(length), 2) for length in TRACKS] == [16.97, 6.94]


def test_inner_products_are_integrals():
    profiles = [(2.0, 3.0), (5.0, 1.5)]  # T and gamma
    times, exponents = torch.tensor(profiles, dtype=torch.float64).T
    expected = [[integral(*first, *second) for second in profiles] for first in profiles]
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(inner_products(times, exponents, times, exponents), expected)


def integral(t, g, u, h):
    return quad(lambda x: (g + 1) * x**g / t ** (g + 1) * (h + 1) * x**h / u ** (h + 1), 0, min(t, u))[0]


@pytest.fixture(scope="module")
def training():
    """Weights of a random walk at each step, and half-precision snapshots of both averages."""
    walk = np.cumsum(np.random.default_rng(0).normal(size=(STEPS, 50)), 0) / 30
    snapshots, times, lengths = [], [], []
    for length in TRACKS:
        average = np.zeros(50)
        for step in range(1, STEPS + 1):
            decay = decay_of(exponent_of(length), step)
            average = decay * average + (1 - decay) * walk[step - 1]
            if step % EVERY == 0:
                snapshots.append(average.astype(np.float16).astype(np.float64))
                times.append(step)
                lengths.append(length)
    return walk, np.stack(snapshots), times, lengths


@pytest.mark.parametrize("length", [0.03, 0.05, 0.075, 0.1, 0.15, 0.2])
def test_an_average_of_another_length(training, length):
    walk, snapshots, times, lengths = training
    gamma = exponent_of(length)
    weights = np.arange(1, STEPS + 1) ** (gamma + 1) - np.arange(STEPS) ** (gamma + 1)
    expected = (weights[:, None] * walk).sum(0) / weights.sum()
    found = combination(times, lengths, STEPS, length).numpy() @ snapshots
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error < (2e-3 if length in TRACKS else 2e-2), error


def test_a_track_is_itself(training):
    *_, times, lengths = training
    for track, length in enumerate(TRACKS):
        expected = torch.zeros(len(times), dtype=torch.float64)
        expected[(track + 1) * STEPS // EVERY - 1] = 1
        torch.testing.assert_close(combination(times, lengths, STEPS, length), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("times", [[100], [100, 200]])
def test_what_never_changes_is_its_own_average_however_few_snapshots_there_are(times):
    lengths = [length for length in TRACKS for _ in times]
    factors = combination(times * len(TRACKS), lengths, 200, 0.02)
    assert float(factors.sum()) == pytest.approx(1)


@pytest.mark.parametrize("length", [0.0, -0.1, 0.3, float("nan")])
def test_a_length_that_no_average_has(length):
    with pytest.raises(InputError, match="length of an average must lie in"):
        exponent_of(length)


def test_nothing_to_combine():
    with pytest.raises(InputError, match="there is no snapshot"):
        combination([], [], 100, 0.1)
