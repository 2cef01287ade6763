"""What a step of the search asks of the host: operations that it launches, and values that it waits for."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("task", "features", "operations"),
    [
        ("denoising", False, 120),
        ("hole", False, 120),
        ("super-resolution", False, 120),
        ("denoising", True, 120),
        ("a blur of each image", False, 200),
    ],
)
def test_a_step_of_the_search_is_of_few_operations(
    task: str, features: bool, operations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    profile = importlib.import_module("inversion_profile")
    step = profile.operations_of_a_step(profile.TASKS[task], base_channels=4, features=features)
    assert 40 < step.operations <= operations, step.names
    assert step.copies <= 1
