"""Messages between the ranks of a job outside of collectives, in the store of their process group."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import timedelta

from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from gan_lightning.errors import RankError


@dataclass(frozen=True)
class Failure:
    """Error or signal that ended the run of a rank.

    Attributes:
        rank: The rank.
        teller: Rank that reports the failure: the rank itself, or another one that no longer hears from it.
        status: Exit status of all processes.
        reason: The error in one line.
        stopped: Whether it was a signal and not an error.
    """

    rank: int
    teller: int
    status: int
    reason: str
    stopped: bool = False

    def error(self) -> RankError | SIGTERMException:
        """Return the error that ends the other ranks."""
        return (
            SIGTERMException()
            if self.stopped
            else RankError(f"rank {self.rank} has failed: {self.reason}", self.status)
        )


LOST = Failure(0, 1, 1, "rank 0 has ended without a message, perhaps killed for lack of memory")


class NoticeBoard:
    """Notices of the ranks of one run: failures, heartbeats, and departures.

    It uses a separate connection, because a client that waits for a value blocks all other calls of its process. The
    store ends with the process that serves it, rank 0 or a launcher, which all others notice.
    """

    def __init__(self, rank: int, world_size: int, run: int) -> None:
        """Connect to the store.

        Args:
            rank: Rank of this process.
            world_size: Number of ranks.
            run: Number of the run in this process, the same on every rank.

        Raises:
            KeyError: If the ranks have not agreed on an address.
            RuntimeError: If there is no store at the address.
        """
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        client = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=10))
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # torchrun's store survives a restart of the ranks
        self._store = PrefixStore(f"gan_lightning/ranks/{attempt}/{run}", client)
        self._rank, self._world_size = rank, world_size
        self._neighbor, self._beat, self._silent = (rank + 1) % world_size, 0, 0

    def tell(self, failure: Failure) -> Failure:
        """Write why the run of this rank has ended, and return the failure that was written first."""
        try:
            first = self._store.compare_set("failed", "", json.dumps(asdict(failure)))
        except RuntimeError:
            return failure if self._rank == 0 else LOST
        return Failure(**json.loads(first))

    def failure(self) -> Failure | None:
        """Return the failure that was written, if any.

        Raises:
            RuntimeError: If no process serves the store any more.
        """
        return Failure(**json.loads(self._store.get("failed"))) if self._store.check(["failed"]) else None

    def look(self, silent: int) -> Failure | None:
        """Write a heartbeat, and return the failure of a rank, or None.

        Args:
            silent: Number of looks after which a rank without a heartbeat has failed. Looks are counted instead of
                seconds, in case this process itself was suspended.
        """
        try:
            self._store.add(f"beat/{self._rank}", 1)
            if (failure := self.failure()) is not None:
                return failure
            beat = self._store.add(f"beat/{self._neighbor}", 0)
            self._silent = self._silent + 1 if beat == self._beat > 0 else 0  # 0: it has not started yet
            self._beat = beat
            if self._silent < silent or self._store.check([f"left/{self._neighbor}"]):
                return None
        except RuntimeError:  # no process serves the store any more
            return LOST
        return self.tell(Failure(self._neighbor, self._rank, 1, f"rank {self._neighbor} shows no sign of life"))

    def leave(self) -> None:
        """Write that this rank leaves."""
        try:
            if not self._store.check([f"left/{self._rank}"]):
                self._store.set(f"left/{self._rank}", "")
                self._store.add("left", 1)
        except RuntimeError:  # rank 0 has ended
            pass

    def others_left(self) -> bool:
        """Return, on rank 0, whether all other ranks have left, and on another rank whether rank 0 has."""
        try:
            if self._rank != 0:
                return bool(self._store.check(["left/0"]))
            own = int(self._store.check(["left/0"]))
            return bool(self._store.add("left", 0) - own == self._world_size - 1)
        except RuntimeError:
            return True
