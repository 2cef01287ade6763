from __future__ import annotations

import re
import subprocess
import sys
import tempfile

import pytest
from torch.utils.data import DataLoader, Dataset

from gan_lightning.errors import InputError
from gan_lightning.messages import dead_rank, dead_worker, one_line
from tests import processes

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
NEEDLESS = """
import logging, warnings
import lightning.pytorch  # which formats warnings in its own way
from gan_lightning.messages import hide_needless_warnings
hide_needless_warnings()
for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.trainer.connectors.checkpoint_connector"):
    for said in ("try litlogger", "TPU available: False", "Loading `train_dataloader` to estimate number of batches"):
        logging.getLogger(name).warning(said)
    for said in ("`weights_only` was not set", "GPU available: True"):
        logging.getLogger(name).warning(said)
warnings.warn("The dirpath has changed from a to b")
warnings.warn("Precision bf16-mixed is not supported by the model summary.  Estimated model size in MB will ...")
warnings.warn_explicit("of ours", UserWarning, "/x/gan_lightning/callbacks/y.py", 3)
warnings.warn_explicit("of a user", UserWarning, "/x/mine.py", 3)
"""


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(script)
        file.flush()
        result = processes.run(file.name, *arguments)
    assert result.returncode == 0, result.stderr
    return result


class Refusing(Dataset[int]):
    """Dataset that raises an error for item 3."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        if index == 3:
            raise InputError("x.jpg cannot be read (a: b): remove it.")
        return index


def test_a_killed_worker_is_reported_in_one_line_with_what_to_do() -> None:
    result = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=True)
    (line,) = result.stdout.splitlines()
    how = "(was killed|exited unexpectedly)"
    assert re.fullmatch(rf"a process that reads images.* {how}.*, perhaps out of memory: lower .* last", line)
    assert dead_worker(RuntimeError("CUDA error")) is None


def test_the_death_of_another_rank_is_reported_in_one_line() -> None:
    error = RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:50825")
    assert (dead_rank(error) or "").startswith("another process of this job has ended without a message")
    assert dead_rank(RuntimeError("NCCL error: ncclRemoteError, remote process exited or there was a network error"))
    assert dead_rank(RuntimeError("CUDA error")) is None
    assert dead_rank(ConnectionResetError("Connection reset by peer")) is None  # of a download


def test_the_message_of_a_workers_error_is_the_original_one() -> None:
    for workers in (0, 1):
        with pytest.raises(InputError) as raised:
            list(DataLoader(Refusing(), num_workers=workers))
        assert one_line(raised.value) == "x.jpg cannot be read (a: b): remove it."


def test_messages_are_printed_once_and_respect_a_programs_own_logging() -> None:
    assert run(REPORT).stderr == "said\n"
    assert run(REPORT, "own").stderr == "own said\n"


def test_what_nobody_can_act_on_is_hidden_and_a_warning_is_one_line() -> None:
    lines = run(NEEDLESS).stderr.splitlines()
    assert lines[-2:] == ["of ours", "/x/mine.py:3: UserWarning: of a user"]
    assert len(lines) == 4
    assert all("GPU available: True" in line for line in lines[:2])
