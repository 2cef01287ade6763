"""A search computes in float32, and leaves the settings of its caller alone."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from gan_lightning.inversion.precision import _switches, float32_gradients

CUDA = torch.device("cuda")  # none is needed: the switches can be set without one


@pytest.fixture
def tf32_allowed() -> Iterator[list[tuple[Any, str, Any]]]:
    cudnn, matmul = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    yield _switches()
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = cudnn, matmul


def test_there_is_no_tf32_in_a_search_and_then_as_before(tf32_allowed: list[tuple[Any, str, Any]]) -> None:
    before = [getattr(owner, name) for owner, name, _ in tf32_allowed]
    assert all(value != wanted for value, (*_, wanted) in zip(before, tf32_allowed, strict=True))
    with float32_gradients(CUDA):
        assert [getattr(owner, name) for owner, name, _ in tf32_allowed] == [wanted for *_, wanted in tf32_allowed]
    assert [getattr(owner, name) for owner, name, _ in tf32_allowed] == before
    with pytest.raises(ValueError, match="a mistake"), float32_gradients(CUDA):
        raise ValueError("a mistake")
    assert [getattr(owner, name) for owner, name, _ in tf32_allowed] == before
    assert torch.backends.cudnn.allow_tf32  # can be read: the new and the old switches agree
    with float32_gradients(torch.device("cpu")):
        assert [getattr(owner, name) for owner, name, _ in tf32_allowed] == before


def test_the_modes_of_the_caller_end_at_the_block() -> None:
    with torch.inference_mode(), torch.autocast("cpu"):
        with float32_gradients(torch.device("cpu")):
            leaf = torch.ones(2, 2, requires_grad=True)
            (gradient,) = torch.autograd.grad((leaf @ leaf).sum(), leaf)
            assert gradient.dtype == torch.float32
        assert torch.is_inference_mode_enabled()
