"""One job to a run folder: the claim holds as long as its process lives, and not a moment longer."""

import signal
import subprocess
import sys
import time

import pytest

from gan_lightning.errors import InputError
from gan_lightning.run import RunFolder

CLAIM = """
import os, sys, time
from pathlib import Path
from gan_lightning.run import RunFolder
from gan_lightning.errors import InputError
while time.time() < float(sys.argv[2]):
    pass
try:
    run = RunFolder(Path(sys.argv[1]))
except InputError as error:
    print("refused", error, flush=True)
else:
    if os.fork() == 0:  # a data worker, which outlives its parent for a while
        sys.stdout.close()
        time.sleep(20)
        os._exit(0)
    print("claimed", flush=True)
    time.sleep(60)
"""


def claim_elsewhere(folder, at=0.0):
    arguments = [sys.executable, "-c", CLAIM, str(folder), str(at)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def test_while_one_job_is_at_work_a_second_is_refused(tmp_path):
    first = claim_elsewhere(tmp_path / "run")
    assert first.stdout.readline() == "claimed\n"
    with pytest.raises(InputError, match=f"another job is at work in .*run .process {first.pid} on .*choose another"):
        RunFolder(tmp_path / "run")
    first.send_signal(signal.SIGKILL)
    first.wait()
    RunFolder(tmp_path / "run").release()
    assert not list((tmp_path / "run").iterdir())


def test_of_jobs_that_start_at_once_one_begins(tmp_path):
    at = time.time() + 4
    jobs = [claim_elsewhere(tmp_path / "run", at) for _ in range(4)]
    said = [job.stdout.readline() for job in jobs]
    for job in jobs:
        job.kill()
        job.wait()
    assert sum(line == "claimed\n" for line in said) == 1, said
    assert sum("another job is at work" in line for line in said) == 3


def test_a_folder_that_was_given_free_can_be_claimed_again(tmp_path):
    for _ in range(3):
        run = RunFolder(tmp_path)
        assert (tmp_path / ".claim").exists()
        run.release()
    assert not list(tmp_path.iterdir())


def test_a_claim_whose_file_is_gone_is_no_claim(tmp_path, monkeypatch):
    """Its owner removes it between our opening and locking it: the lock would keep out nobody."""
    locks, real = 0, __import__("fcntl").lockf

    def lock_after_removal(file, operation):
        nonlocal locks
        locks += 1
        if locks == 1:
            (tmp_path / ".claim").unlink()
        real(file, operation)

    monkeypatch.setattr("gan_lightning.run.fcntl.lockf", lock_after_removal)
    run = RunFolder(tmp_path)
    assert locks == 2
    assert (tmp_path / ".claim").read_text().startswith("process ")
    run.release()


def test_a_file_system_without_locks_serves(tmp_path, monkeypatch, caplog):
    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("gan_lightning.run.fcntl.lockf", unsupported)
    RunFolder(tmp_path / "run").release()
    assert "has no locks" in caplog.text


def test_what_a_killed_job_had_begun_to_write_is_removed(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in (".metrics.csv.12.part", "checkpoints/.last.ckpt.12.part"):
        (tmp_path / name).write_text("half")
    (tmp_path / "checkpoints/last.ckpt").write_text("whole")
    RunFolder(tmp_path).release()
    assert [path.name for path in tmp_path.rglob("*")] == ["checkpoints", "last.ckpt"]


def test_a_run_that_goes_on_is_the_same_one_in_wandb(tmp_path):
    first = RunFolder(tmp_path / "run")
    identity = first.wandb_id(goes_on=False)
    first.release()
    again = RunFolder(tmp_path / "run")
    assert again.wandb_id(goes_on=True) == identity
    assert again.wandb_id(goes_on=False) != identity
    again.release()
    other = RunFolder(tmp_path / "other")
    assert other.wandb_id(goes_on=True) != identity
    other.release()
