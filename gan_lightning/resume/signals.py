"""Signals that wait for the end of a step, so that only complete steps are saved."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any, NoReturn

import torch
import torch.distributed
from lightning import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from gan_lightning.distributed import WAIT
from gan_lightning.resume.lightning_internals import ignore_dead_workers_in_signals, skip_sigterm_broadcast
from gan_lightning.resume.training_position import TrainingPosition

STOPPING = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SIGTERMException}


class StepSignals:
    """Handler that delays signals until the end of a step; several ranks act on a signal at the same step.

    An immediate reaction could save a discriminator that is one step ahead of its generator, and ranks that stop at
    different steps would wait for each other forever. Several ranks exchange their signals while the next step runs,
    and therefore act one step later, without waiting for each other.
    """

    def __init__(self, trainer: Trainer, position: TrainingPosition) -> None:
        """Replace the handlers of SIGINT and SIGTERM.

        Args:
            trainer: Trainer whose training has just started.
            position: Current position of this training.
        """
        self._trainer, self._position = trainer, position
        self._process = os.getpid()
        # Lightning's handler has received signals during the validation of the untrained networks.
        self._waiting: list[int] = [signal.SIGTERM] if trainer.received_sigterm else []
        self.agreed = trainer.world_size == 1  # whether all ranks are at the same step
        self._ranks: Any = None  # a process group on the CPU, through which ranks exchange signals
        self._exchange: tuple[Any, torch.Tensor] | None = None  # current exchange: its work, and its result
        if not self.agreed:
            self._ranks = torch.distributed.new_group(backend="gloo", timeout=WAIT)
            skip_sigterm_broadcast(trainer)
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread may set handlers
        for number in STOPPING:  # Lightning restores the former handlers at the end
            signal.signal(number, self._receive)
        ignore_dead_workers_in_signals()

    def _receive(self, number: int, frame: Any) -> None:
        if os.getpid() != self._process:
            return  # a data worker, which has inherited the handler and ends with its parent
        second = number == signal.SIGINT and number in self._waiting  # Ctrl-C twice: stop at once
        self._waiting.append(number)
        if second or (self._trainer.world_size == 1 and self._position.can_stop):
            self._act(number)

    def act(self, at_once: bool = False) -> None:
        """Act on a signal that any rank had received by the end of the previous step.

        Args:
            at_once: Also wait for signals received during the step that has just ended, because something long, or the
                end of the training, comes next. It must be the same on every rank.

        Raises:
            SIGTERMException: If a rank has received SIGTERM.
            KeyboardInterrupt: If a rank has received Ctrl-C.
        """
        number = max(self._waiting, default=0)
        if self._ranks is not None:
            former = self._finish_exchange()
            latest = torch.tensor(number)
            maximum = torch.distributed.ReduceOp.MAX
            work = torch.distributed.all_reduce(latest, maximum, self._ranks, async_op=True)
            self._exchange = work, latest
            number = max(former, self._finish_exchange()) if at_once or former else 0
        if number:
            self.agreed = True
            self._act(number)

    def _finish_exchange(self) -> int:
        """Return the highest signal of the current exchange."""
        if self._exchange is None:
            return 0
        work, latest = self._exchange
        work.wait()
        self._exchange = None
        return int(latest)

    def _act(self, number: int) -> NoReturn:
        self._waiting = [other for other in self._waiting if other != number]
        raise STOPPING[signal.Signals(number)]
