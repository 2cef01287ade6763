"""Signals that wait for the end of a step, so that what they save or stop is whole."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any, NoReturn

import torch
import torch.distributed
from lightning import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data._utils import signal_handling

STOPPING = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SIGTERMException}


class StepSignals:
    """Holds signals back while a step is under way; several ranks act on one at the same step.

    At once, a checkpoint may have the discriminator one step ahead of the generator; and ranks that stop a step apart
    wait for each other for ever.
    """

    def __init__(self, trainer: Trainer, between_steps: Callable[[], bool]) -> None:
        """Take the place of the handlers that are there.

        Args:
            trainer: It tells the ranks.
            between_steps: Whether the training stands between two steps.
        """
        self._trainer, self._between_steps = trainer, between_steps
        self._process = os.getpid()
        # What came while the untrained networks were measured went to Lightning's handler.
        self._waiting: list[int] = [signal.SIGTERM] if trainer.received_sigterm else []
        self.agreed = trainer.world_size == 1  # whether all ranks stand where this one does
        self._ranks: Any = None  # the group in which ranks tell each other: of all, by way of the host
        if not self.agreed:
            self._ranks = torch.distributed.new_group(backend="gloo")
            # Lightning's own way waits for the device in each step, and learns nothing: signals come to this object.
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread may set handlers
        for number in STOPPING:  # Lightning puts its own back at the end
            signal.signal(number, self._receive)
        # At the death of a data worker torch would raise an error from its handler, in the middle of a step or of the
        # saving of one. Without it the error comes when a batch is waited for, five seconds later at most.
        signal_handling._set_SIGCHLD_handler()  # which it would do with the first worker, and does once
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def _receive(self, number: int, frame: Any) -> None:
        if os.getpid() != self._process:
            return  # a data worker, which has inherited this and ends with its parent
        second = number == signal.SIGINT and number in self._waiting  # the user has lost patience
        self._waiting.append(number)
        if second or (self._trainer.world_size == 1 and self._between_steps()):
            self._act(number)

    def act(self) -> None:
        """Act on what has come during the step that has just ended, on any rank.

        Raises:
            SIGTERMException: SIGTERM has come.
            KeyboardInterrupt: Ctrl-C was pressed.
        """
        number = max(self._waiting, default=0)
        if self._ranks is not None:
            latest = torch.tensor(number)
            torch.distributed.all_reduce(latest, torch.distributed.ReduceOp.MAX, self._ranks)
            number = int(latest)
        if number:
            self.agreed = True
            self._act(number)

    def _act(self, number: int) -> NoReturn:
        self._waiting = [other for other in self._waiting if other != number]
        raise STOPPING[signal.Signals(number)]
