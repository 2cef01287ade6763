"""A recorded step does what the step does; the recording itself needs a GPU."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gan_lightning.degradations import GaussianBlur
from gan_lightning.inversion import invert
from gan_lightning.inversion.convergence import ConvergenceTracker
from gan_lightning.inversion.solvers import lbfgs as module
from gan_lightning.inversion.solvers.recorded import RecordedStep
from gan_lightning.networks.dcgan import Generator

Step = Callable[[], None]


class Recorder:
    """Records as a GPU does: what is recorded changes no tensor until it is replayed."""

    def __init__(self) -> None:
        self.owners: Any = ()
        self.recorded = self.replayed = 0

    def __call__(self, step: Step) -> Step:
        self.recorded += 1
        tensors = [value for owner in self.owners for value in vars(owner).values() if isinstance(value, Tensor)]
        before = [tensor.clone() for tensor in tensors]
        step()
        for tensor, value in zip(tensors, before, strict=True):
            tensor.copy_(value)

        def replay() -> None:
            self.replayed += 1
            step()

        return replay


class Counter:
    def __init__(self) -> None:
        self.value, self.total = torch.zeros(2), torch.zeros(2)


def test_a_step_is_replayed_until_its_tensors_are_others() -> None:
    counter, record = Counter(), Recorder()
    record.owners = [counter]

    def step() -> None:
        counter.value = counter.value + 1
        counter.total = counter.total + counter.value

    take = RecordedStep(step, [counter], record)
    for _ in range(5):
        take()
    assert (counter.value.tolist(), counter.total.tolist()) == ([5, 5], [15, 15])
    assert (record.recorded, record.replayed) == (1, 3)
    counter.value, counter.total = counter.value[:1], counter.total[:1]
    for _ in range(3):
        take()
    assert (counter.value.tolist(), counter.total.tolist()) == ([8], [36])
    assert (record.recorded, record.replayed) == (2, 4)


def test_a_step_that_cannot_be_recorded_is_run() -> None:
    counter = Counter()

    def exchange() -> None:
        counter.value, counter.total = counter.total + 1, counter.value

    def refuse(step: Step) -> Step:
        step()
        raise RuntimeError("operation not permitted when stream is capturing")

    for record in (Recorder(), refuse):
        take = RecordedStep(exchange, [counter], record)
        counter.value, counter.total = torch.zeros(2), torch.zeros(2)
        for _ in range(6):
            take()
        assert (counter.value.tolist(), counter.total.tolist()) == ([3, 3], [3, 3])


def test_a_search_of_recorded_steps_is_the_same(
    generator: Generator, other_images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit, though images leave it; nothing in its step waits for the device or keeps a tensor elsewhere."""
    blur = GaussianBlur([0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    settings: dict[str, Any] = {"num_steps": 60, "refine_steps": 30, "num_searches": 2, "tolerance": 0.01}
    plain = invert(generator, blur, blur(other_images), **settings)
    recorders: list[Recorder] = []

    def start(step: Step, owners: Any, record: Any) -> RecordedStep:
        recorders.append(Recorder())
        recorders[-1].owners = owners
        return RecordedStep(step, owners, recorders[-1])

    monkeypatch.setattr(module, "RecordedStep", start)
    monkeypatch.setattr(module, "can_record", lambda problem: True)
    monkeypatch.setattr(ConvergenceTracker, "pays", lambda self: self._count < 0.75 * len(self.rows))
    recorded = invert(generator, blur, blur(other_images), **settings)
    assert len(recorders) == 2
    assert all(recorder.replayed > 5 for recorder in recorders)
    assert sum(recorder.recorded for recorder in recorders) > 2
    for name in ("image", "latent", "history", "converged", "num_steps"):
        assert torch.equal(getattr(recorded, name), getattr(plain, name)), name
