"""The end of every process of a job after one of them has failed, wherever the others wait for it.

A rank that waits in a collective of nccl cannot be told anything, and notices the death of another rank only when the
collective times out. Therefore a thread of each process looks at the store through which the ranks have found each
other: a rank that fails writes its reason there, and the others end. It costs a step nothing, and needs no group of
processes of its own.
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
GRACE = 4.0  # for the main thread to end in good order: with gloo it is woken by the end of the failed rank
GRACE_OF_STOP = 60.0  # the same after a signal, which may let a batch end first
SAVING = 5.0  # for a checkpoint that is being written
TEARDOWN = 10.0  # for Lightning's, which on a GPU may wait for a collective that nobody else has joined
LAST = 7.0  # until which the failed rank stays: launchers kill the others, without warning, as soon as one has ended
EXIT = 3.0  # for what the interpreter does at exit
JOINING = 1800.0  # for all processes to start: torch's own default, where a run waits longer later
SILENT = 600  # looks at the store during which a rank shows no life: ten minutes, longer than a file system hangs


class RankWatch(Callback):
    """Ends this process within seconds after another rank of the job has failed, in any command of the Trainer.

    The rank that fails says why, as it would alone. The others end without a message, with the same exit status: by an
    error at the end of the batch or in the collective that they wait in, or else, if nothing interrupts the wait, at
    once. A checkpoint that is being written is finished. A rank that was killed is noticed too: rank 0 within seconds,
    another one by its launcher or, without one, after ten minutes.

    Put it before other callbacks: an error is told to the other ranks when it has reached this one.
    """

    def __init__(self, ends_process: bool = False) -> None:
        """Configure the end.

        Args:
            ends_process: Whether an error is going to end this process, as on the command line. Then it also ends if
                Lightning cannot tear down its strategy.
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
        """Copy the settings alone, as for processes that Lightning spawns."""
        return type(self), (self._ends_process,)

    # When the watch begins and ends

    def start(self, trainer: Trainer) -> None:
        """Start the watch of a run; before the ranks have met, so that the preparation of the data is watched too."""
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
        """End the watch of a run that has ended well; on rank 0 when it has on all others.

        Raises:
            RankError: If another rank has failed after this one finished its work.
            SIGTERMException: Another rank was stopped.
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
        """Report to the other ranks what has ended the run of this one."""
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
        """Raise if another rank has failed; for signals during a training see signals.py.

        Raises:
            RankError: If another rank has failed.
        """
        if self.failure is not None and not self.failure.stopped:
            raise self.failure.error()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let SIGTERM wait for the end of the batch, on any rank; then all end.

        Lightning's own handler would first wait for rank 0 to receive the signal too.
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
        """Raise if another rank has failed, or if any has received SIGTERM.

        Raises:
            RankError: If a rank has failed.
            SIGTERMException: A rank was stopped.
        """
        if self._asked:
            raise SIGTERMException
        if self.failure is not None:
            raise self.failure.error()

    on_validation_batch_end = on_test_batch_end = on_predict_batch_end

    @contextmanager
    def ending(self, finish: Callable[[BaseException], None]) -> Iterator[None]:
        """Call a function when an error has ended the body, which raises RankError if another rank has failed before.

        Args:
            finish: Function of the error.
        """
        try:
            yield
        except BaseException as error:
            self._limit(None)
            self._error = None  # whoever catches it prints it
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
        """Look at the store until the run is over or another rank has failed: the work of the thread."""
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
        missed = failure.teller != failure.rank  # it has not said why itself
        self._end(failure.status, failure.reason if missed and failure.teller == trainer.global_rank else None)

    # The end of this process

    def _limit(self, seconds: float | None) -> None:
        """End this process by force after some seconds; None for never."""
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
        """Leave the other ranks at the exit of this process, last if they can be awaited."""
        self._limit(max(0.0, self._told + LAST - time.monotonic()) + EXIT)
        self._error = None  # it has been printed
        store = default_store()  # rank 0 serves it: the others may still have to read the reason
        distributed.leave_group()  # wakes ranks that wait for this one in a collective of gloo
        board.leave()
        while time.monotonic() < self._told + LAST and not board.others_left():
            time.sleep(0.05)
        if store is not None:
            time.sleep(0.2)  # the others have to see that all have left


def _reason(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
