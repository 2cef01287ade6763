"""Processes of their own for tests, forked from one that has imported torch and Lightning already.

Each of these imports takes five seconds of a core, which a suite that starts a hundred processes cannot afford. What a
test starts here is a process like any other: own memory, own signals, own exit status. Where the imports themselves or
the launching of ranks are what is tested, use `subprocess`.
"""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.figures import leave_figures_undrawn

_forkserver = multiprocessing.get_context("forkserver")
_forkserver.set_forkserver_preload(
    [
        "gan_lightning.cli",
        "gan_lightning.data.streaming",  # jsonargparse imports it with the annotations of StreamedImages
        "matplotlib.backends.backend_agg",
        "torchmetrics.image.fid",
    ]
)


class Process:
    """A running program, with the methods of `subprocess.Popen` that tests need.

    Args:
        program: "gan_lightning" for the command line, or the path of a Python file.
        arguments: Arguments of the program; what is not a string is converted.
        environment: Variables on top of this process's own; None for a value removes the variable.
        folder: Working directory; this process's own if None.
        drawn: Whether figures are drawn; otherwise they are only composed.
    """

    def __init__(
        self,
        program: str | Path,
        *arguments: object,
        environment: Mapping[str, str | None] | None = None,
        folder: str | Path | None = None,
        drawn: bool = False,
    ) -> None:
        self._output = [tempfile.NamedTemporaryFile(mode="r", suffix=".txt") for _ in range(2)]  # noqa: SIM115
        variables = {**os.environ, **(environment or {})}
        variables = {name: value for name, value in variables.items() if value is not None}
        words = [str(program), *map(str, arguments)]
        files = [file.name for file in self._output]
        given = (words, variables, str(folder or os.getcwd()), files, drawn)
        self._process = _forkserver.Process(target=_main, args=given)
        self._process.start()

    @property
    def pid(self) -> int:
        """Identifier of the process."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None while the process runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit status, or None while the process runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    def wait(self, timeout: float) -> int:
        """Wait for the end, and return the exit status.

        Raises:
            subprocess.TimeoutExpired: The process still ran; it is killed.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            self.kill()
            self._process.join(10)
            raise subprocess.TimeoutExpired("a process of a test", timeout, *self.output())
        return self._process.exitcode

    def output(self) -> tuple[str, str]:
        """Return what was printed up to now to stdout and to stderr."""
        return Path(self._output[0].name).read_text(), Path(self._output[1].name).read_text()

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for the end, and return what was printed to stdout and to stderr."""
        self.wait(timeout)
        return self.output()


def run(
    program: str | Path,
    *arguments: object,
    environment: Mapping[str, str | None] | None = None,
    folder: str | Path | None = None,
    drawn: bool = False,
    timeout: float = 200,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, as `subprocess.run(..., capture_output=True, text=True)` does."""
    process = Process(program, *arguments, environment=environment, folder=folder, drawn=drawn)
    status = process.wait(timeout)
    return subprocess.CompletedProcess([str(program), *map(str, arguments)], status, *process.output())


def run_ranks(
    program: str | Path,
    *arguments: object,
    ranks: int,
    environment: Mapping[str, str | None] | None = None,
    timeout: float = 200,
) -> list[subprocess.CompletedProcess[str]]:
    """Run a program on several ranks, each with the environment that torchrun gives it."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(ranks)}
    shared |= {"LOCAL_WORLD_SIZE": str(ranks), "TORCHELASTIC_RUN_ID": f"test-{time.monotonic_ns()}"}
    own = [{"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"} for rank in range(ranks)]
    processes = [Process(program, *arguments, environment={**shared, **one, **(environment or {})}) for one in own]
    statuses = [process.wait(timeout) for process in processes]
    words = [str(program), *map(str, arguments)]
    return [
        subprocess.CompletedProcess(words, status, *process.output())
        for status, process in zip(statuses, processes, strict=True)
    ]


def free_port() -> int:
    """Return a port that no program listens on: a fixed one would be taken when two suites run at once."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _main(words: Sequence[str], environment: Mapping[str, str], folder: str, files: Sequence[str], drawn: bool) -> None:
    """Become the program: in the forked process."""
    gc.freeze()  # what the server has imported is no garbage: looking for some would copy its memory
    if not drawn:
        leave_figures_undrawn()
    for descriptor, name in zip((1, 2), files, strict=True):
        os.dup2(os.open(name, os.O_WRONLY | os.O_APPEND), descriptor)
    sys.stdout, sys.stderr = (open(descriptor, "w", buffering=1, closefd=False) for descriptor in (1, 2))  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = list(words)
    import torch
    from lightning.pytorch.utilities import rank_zero_only

    rank = next((environment[name] for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK") if name in environment), "0")
    rank_zero_only.rank = int(rank)  # which Lightning reads when it is imported
    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", torch.get_num_threads())))
    try:
        if words[0] == "gan_lightning":
            from gan_lightning.__main__ import main

            sys.argv[0] = str(Path(sys.executable).with_name("gan-lightning"))  # the command of the ranks it launches
            sys.exit(main())
        runpy.run_path(words[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out
