"""Work with torch that another thread can stop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from threading import Event
from typing import Any

from torch.overrides import TorchFunctionMode


class Stopped(BaseException):
    """The work was stopped on request.

    Like KeyboardInterrupt, it is not an `Exception`, so that no code mistakes it for the error of a broken file.
    """


class StopWhen(TorchFunctionMode):
    """Context in which the next operation of torch raises `Stopped` once an event is set.

    Every stage of a restoration consists of many short operations, so that it stops within one of them.

    Args:
        event: The event.
    """

    def __init__(self, event: Event) -> None:
        super().__init__()
        self._event = event

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation.

        Raises:
            Stopped: If the event is set.
        """
        if self._event.is_set():
            raise Stopped
        return func(*args, **(kwargs or {}))
