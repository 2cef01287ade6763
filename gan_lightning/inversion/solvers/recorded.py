"""A solver step that is recorded once as a CUDA graph and then replayed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

WARM_UP = 2  # steps before the recording, in which libraries make allocations that a recording must not make

_log = logging.getLogger(__name__)

Step = Callable[[], None]


class RecordedStep:
    """A solver step that is recorded, and then replayed as long as it works on the same tensors.

    The step reads tensors that are attributes of some objects, and assigns new tensors of the same shapes to them. It
    must not wait for the device or change anything else. A replay writes the results into the tensors with which the
    step was recorded. If the recording fails, all steps run without it.

    Args:
        step: Function that takes a step.
        owners: Objects whose attributes the step reads and assigns to.
        record: Function that records a function without running it on the device, and returns one that replays it.
    """

    def __init__(self, step: Step, owners: Sequence[object], record: Callable[[Step], Step]) -> None:
        self._step, self._owners, self._record = step, owners, record
        self._replay: Step | None = None
        self._recorded: list[Tensor] = []
        self._steps, self._failed = 0, False

    def __call__(self) -> None:
        """Take a step."""
        if self._replay is not None and not self._same():
            self._replay, self._steps = None, 0  # the images of the batch have changed
        if self._replay is None and self._steps >= WARM_UP and not self._failed:
            self._try_to_record()
        if self._replay is not None:
            self._replay()
        else:
            self._step()
            self._steps += 1

    def _try_to_record(self) -> None:
        try:
            self._replay, self._recorded = self._record(self._in_place), [tensor for _, _, tensor in self._tensors()]
        except RuntimeError as error:  # of an operator that waits for the device, say
            self._failed = True
            _log.debug("a step of the search could not be recorded: %s", error)

    def _in_place(self) -> None:
        """Take a step, and copy its results into the tensors from which it started."""
        before = list(self._tensors())
        try:
            self._step()
            after = [getattr(owner, name) for owner, name, _ in before]
            changed = [(old, new) for (_, _, old), new in zip(before, after, strict=True) if new is not old]
            if {id(old) for old, _ in changed} & {id(new) for new in after}:
                raise RuntimeError("a tensor is the result of a step and the start of another")
            for old, new in changed:
                old.copy_(new)
        finally:
            for owner, name, old in before:
                setattr(owner, name, old)

    def _same(self) -> bool:
        now = [tensor for _, _, tensor in self._tensors()]
        return len(now) == len(self._recorded) and all(a is b for a, b in zip(now, self._recorded, strict=True))

    def _tensors(self) -> Iterator[tuple[object, str, Tensor]]:
        for owner in self._owners:
            for name, value in vars(owner).items():
                if isinstance(value, Tensor):
                    yield owner, name, value


def record_cuda_graph(step: Step) -> Step:
    """Record the operations of a step on the current device, and return a function that launches them all at once.

    Raises:
        RuntimeError: If the step does something that cannot be recorded, such as reading a number from the device.
    """
    graph: Any = torch.cuda.CUDAGraph()
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            step()
        except BaseException:
            with suppress(RuntimeError):
                graph.capture_end()
            raise
        graph.capture_end()
    torch.cuda.current_stream().wait_stream(stream)
    replay: Step = graph.replay
    return replay
