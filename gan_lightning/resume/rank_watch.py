"""Termination of all processes of a job after one of them has failed, even while they wait for it.

A rank that waits in an NCCL collective cannot receive messages, and notices the death of another rank only when the
collective times out. Therefore a thread of each process watches the store of the process group: a rank that fails
writes its reason there, and the others end. This does not slow down steps, and needs no separate process group.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from gan_lightning import distributed
from gan_lightning.errors import InputError, RankError, mistake_behind
from gan_lightning.messages import one_line
from gan_lightning.resume.lightning_internals import default_store, runs_in_this_process, set_default_timeout
from gan_lightning.resume.notice_board import Failure, NoticeBoard

_log = logging.getLogger(__name__)

POLL = 1.0  # seconds between two looks at the store
GRACE = 4.0  # for the main thread to end normally; with gloo it is woken by the end of the failed rank
GRACE_OF_STOP = 60.0  # the same after a signal, which may wait for the end of a batch
SAVING = 5.0  # for a checkpoint that is being written
TEARDOWN = 10.0  # for Lightning's teardown, which on a GPU may wait for a collective that no other rank has joined
LAST = 7.0  # until the failed rank exits, because launchers then kill the others without warning
EXIT = 3.0  # for the cleanup of the interpreter at exit
JOINING = 1800.0  # for all processes to start: torch's default, even if a run waits longer later
SILENT = 600  # number of looks without a heartbeat of a rank: ten minutes, longer than a file system hangs


class RankWatch(Callback):
    """Callback that ends this process within seconds after another rank of the job has failed, in any command.

    The failed rank prints the reason, as a single process would. The others end without a message and with the same
    exit
    status: by an error at the end of the batch or in the collective in which they wait, or immediately if nothing
    interrupts the wait. A checkpoint that is being written is finished. A killed rank is also noticed: rank 0 within
    seconds, another one by its launcher or, without a launcher, after ten minutes.

    Put it before other callbacks, because an error is reported to the other ranks when it reaches this callback.
    """

    def __init__(self, ends_process: bool = False) -> None:
        """Configure how the process ends.

        Args:
            ends_process: Whether an error will end this process, as on the command line. Then it also ends if Lightning
                cannot tear down its strategy.
        """
        self.failure: Failure | None = None  # of another rank
        self._ends_process, self._status, self._runs, self._told = ends_process, 1, 0, 0.0
        self._over: threading.Event | None = None  # whether the run of this rank has ended; None between runs
        self._process, self._asked = 0, False  # whether SIGTERM has come
        self._board: NoticeBoard | None = None
        self._connecting = threading.Lock()
        self._timer: threading.Timer | None = None
        self._error: BaseException | None = None

    def __reduce__(self) -> tuple[type[RankWatch], tuple[bool]]:
        """Copy only the settings, for processes that Lightning spawns."""
        return type(self), (self._ends_process,)

    # When the watch begins and ends

    def start(self, trainer: Trainer) -> None:
        """Start the watch of a run before the process group exists, so that the preparation of data is also watched."""
        if trainer.world_size == 1 or (self._over is not None and self._process == os.getpid()):
            return
        if not distributed.is_distributed():
            if not runs_in_this_process(trainer.strategy):
                return  # its workers start a watch each
            set_default_timeout(trainer.strategy, distributed.WAIT)
        self._process, self._runs, self._over, self._board = os.getpid(), self._runs + 1, threading.Event(), None
        self.failure, self._asked = None, False
        watch = threading.Thread(target=self._watch, args=(trainer, self._over), name="rank-watch", daemon=True)
        watch.start()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start the watch, unless the command line has, and connect before any rank can leave."""
        self.start(trainer)
        if self._over is not None:
            self._connect()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """End the watch of a successful run; on rank 0, after all others have ended theirs.

        Raises:
            RankError: If another rank has failed after this one finished its work.
            SIGTERMException: If another rank was stopped.
        """
        if self._over is None:
            return
        if (board := self._connect()) is not None:
            while trainer.global_rank == 0 and self.failure is None and not board.others_left():
                time.sleep(0.05)
            if trainer.global_rank == 0 and (failure := board.failure()) is not None:
                self.failure = failure
                raise failure.error()
            board.leave()
        self._over.set()
        self._over = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Report the error or signal that ended the run of this rank to the others."""
        if self._over is None:
            return
        self._over.set()
        self._over = None
        if not distributed.is_distributed() or (board := self._connect()) is None:
            return
        stopped = isinstance(exception, KeyboardInterrupt | SIGTERMException | SystemExit)
        self._status = 2 if isinstance(mistake_behind(exception), InputError) else 1
        self._told, self._error, rank = time.monotonic(), exception, trainer.global_rank
        told = board.tell(Failure(rank, rank, self._status, _reason(exception), stopped))
        if told.teller != rank:
            self.failure, self._status = told, told.status
        if stopped:
            return
        if (children := getattr(trainer.strategy.launcher, "procs", None)) is not None:
            children.clear()  # they end themselves; Lightning's observer would kill this process when the first has
        atexit.register(self._leave, board)
        if self._ends_process:
            self._limit(TEARDOWN)

    # When another rank has failed or was stopped

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Raise an error if another rank has failed; signals during a training are handled in signals.py.

        Raises:
            RankError: If another rank has failed.
        """
        if self.failure is not None and not self.failure.stopped:
            raise self.failure.error()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make SIGTERM on any rank wait for the end of the batch, after which all ranks end.

        Lightning's own handler would first wait for rank 0 to receive the signal.
        """
        listening = threading.current_thread() is threading.main_thread()
        if self._over is None or trainer.state.fn == "fit" or not listening:
            return

        def stop(number: int, frame: FrameType | None) -> None:
            if os.getpid() == self._process:  # not a data worker
                self._asked = True
                if trainer.strategy.launcher is not None:
                    trainer.strategy.launcher.kill(number)

        signal.signal(signal.SIGTERM, stop)  # Lightning restores the former handler at the end

    on_validation_start = on_test_start = on_predict_start

    def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Raise an error if another rank has failed, or if any rank has received SIGTERM.

        Raises:
            RankError: If a rank has failed.
            SIGTERMException: If a rank was stopped.
        """
        if self._asked:
            raise SIGTERMException
        if self.failure is not None:
            raise self.failure.error()

    on_validation_batch_end = on_test_batch_end = on_predict_batch_end

    @contextmanager
    def ending(self, finish: Callable[[BaseException], None]) -> Iterator[None]:
        """Call a function if an error ends the body; the error is a RankError if another rank has failed before.

        Args:
            finish: Function of the error.
        """
        try:
            yield
        except BaseException as error:
            self._limit(None)
            self._error = None  # printed by the code that catches it
            finish(error)
            if self.failure is None or self.failure.stopped or isinstance(error, RankError):
                raise
            raise self.failure.error() from error

    def _connect(self) -> NoticeBoard | None:
        with self._connecting:
            if self._board is None and distributed.is_distributed():
                try:
                    self._board = NoticeBoard(distributed.rank(), distributed.world_size(), self._runs)
                except (KeyError, ValueError, RuntimeError, OSError) as error:  # the ranks have met in another way
                    _log.debug("The ranks cannot watch each other: %s", error)
            return self._board

    def _watch(self, trainer: Trainer, over: threading.Event) -> None:
        """Watch the store until the run is over or another rank has failed; runs in the thread."""
        started = time.monotonic()
        while not distributed.is_distributed():
            if over.wait(POLL / 10):
                return
            if time.monotonic() - started > JOINING:
                self._end(1, f"not all {trainer.world_size} processes of this job have started")
        failure = None
        while (board := self._connect()) is None or failure is None:
            if over.wait(POLL):
                return
            failure = None if board is None else board.look(SILENT)
        if over.wait(0):
            return
        self.failure = failure
        if over.wait(GRACE_OF_STOP if failure.stopped else GRACE) or (failure.stopped and self._asked):
            return
        limit = time.monotonic() + SAVING
        while getattr(trainer.strategy.checkpoint_io, "writing", False) and time.monotonic() < limit:
            time.sleep(0.05)
        board.leave()
        missed = failure.teller != failure.rank  # it has not reported the reason itself
        self._end(failure.status, failure.reason if missed and failure.teller == trainer.global_rank else None)

    # The end of this process

    def _limit(self, seconds: float | None) -> None:
        """Kill this process after some seconds; None for never."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            self._timer = threading.Timer(seconds, self._end_by_force)
            self._timer.daemon = True
            self._timer.start()

    def _end_by_force(self) -> None:
        error = None if self.failure is not None else self._error
        mistake = mistake_behind(error)
        if error is not None and mistake is None:
            traceback.print_exception(error)
        self._end(self._status, None if mistake is None else one_line(mistake))

    def _end(self, status: int, reason: str | None = None) -> None:
        if reason is not None:
            print(f"gan-lightning: error: {reason}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    def _leave(self, board: NoticeBoard) -> None:
        """Leave the other ranks at the exit of this process, after them if this process can wait."""
        self._limit(max(0.0, self._told + LAST - time.monotonic()) + EXIT)
        self._error = None  # it has been printed
        store = default_store()  # served by rank 0; the others may still have to read the reason
        distributed.leave_group()  # wakes ranks that wait for this one in a collective of gloo
        board.leave()
        while time.monotonic() < self._told + LAST and not board.others_left():
            time.sleep(0.05)
        if store is not None:
            time.sleep(0.2)  # lets the others see that all have left


def _reason(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
