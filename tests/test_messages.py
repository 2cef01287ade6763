from __future__ import annotations

import re
import subprocess
import sys

import pytest
from torch.utils.data import DataLoader, Dataset

from gan_lightning.errors import InputError
from gan_lightning.messages import dead_worker, one_line

# In a process of its own: torch raises its error wherever the program is when the worker's end becomes known.
KILLED = """
import os, signal, time
from torch.utils.data import DataLoader, Dataset
from gan_lightning.messages import dead_worker

class Deadly(Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, index):
        if index == 3:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        return index

try:
    list(DataLoader(Deadly(), num_workers=1))
except Exception as error:
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # or it is raised once more, from any line
    except RuntimeError:
        pass
    print(dead_worker(error))
"""
REPORT = """
import logging, sys
from gan_lightning.messages import show_messages
if len(sys.argv) > 1:
    logging.basicConfig(format="own %(message)s")
show_messages()
show_messages()
logging.getLogger("gan_lightning.x").info("said")
"""


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)


class Refusing(Dataset[int]):
    """Dataset that raises an error for item 3."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        if index == 3:
            raise InputError("x.jpg cannot be read (a: b): remove it.")
        return index


def test_a_killed_worker_is_reported_in_one_line_with_what_to_do() -> None:
    (line,) = run(KILLED).stdout.splitlines()
    how = "(was killed|exited unexpectedly)"
    assert re.fullmatch(rf"a process that reads images.* {how}.*, perhaps out of memory: lower .* last", line)
    assert dead_worker(RuntimeError("CUDA error")) is None


def test_the_message_of_a_workers_error_is_the_original_one() -> None:
    for workers in (0, 1):
        with pytest.raises(InputError) as raised:
            list(DataLoader(Refusing(), num_workers=workers))
        assert one_line(raised.value) == "x.jpg cannot be read (a: b): remove it."


def test_messages_are_printed_once_and_respect_a_programs_own_logging() -> None:
    assert run(REPORT).stderr == "said\n"
    assert run(REPORT, "own").stderr == "own said\n"
