"""One job per run folder: a claim lasts exactly as long as its process."""

import fcntl
import signal
import time
from datetime import datetime

import pytest
import torch

from gan_lightning.errors import InputError
from gan_lightning.run import Run, best_checkpoint
from tests.processes import Process

CLAIM = """
import os, sys, time
from gan_lightning.run import Run
from gan_lightning.errors import InputError
time.sleep(max(0, float(sys.argv[2]) - time.time()))
try:
    run = Run("fit", root=sys.argv[1])
    run.claim()
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


def claim(folder, **options):
    run = Run("fit", root=str(folder))
    run.claim(**options)
    return run


def claim_elsewhere(folder, at=0.0):
    script = folder.with_name("claim.py")
    if not script.exists():  # another process may be reading it
        script.write_text(CLAIM)
    return Process(script, folder, at)


def said(job):
    """Wait for the first line that a process prints."""
    until = time.monotonic() + 60
    while "\n" not in job.output()[0] and job.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    return job.output()[0]  # it may have ended between the two looks


def test_a_second_job_is_refused_while_the_first_runs(tmp_path):
    first = claim_elsewhere(tmp_path / "run")
    assert said(first) == "claimed\n"
    with pytest.raises(InputError, match=f"run is in use by another job .process {first.pid} on .*choose another"):
        claim(tmp_path / "run")
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    claim(tmp_path / "run").release()
    assert not list((tmp_path / "run").iterdir())


def test_one_of_several_simultaneous_jobs_gets_the_folder(tmp_path):
    at = time.time() + 4
    jobs = [claim_elsewhere(tmp_path / "run", at) for _ in range(4)]
    lines = [said(job) for job in jobs]
    for job in jobs:
        job.kill()
        job.wait(10)
    assert sum(line == "claimed\n" for line in lines) == 1, lines
    assert sum("in use by another job" in line for line in lines) == 3, lines


def test_a_released_folder_can_be_claimed_again(tmp_path):
    for _ in range(3):
        run = claim(tmp_path)
        assert (tmp_path / ".claim").exists()
        run.release()
    assert not list(tmp_path.iterdir())


def test_a_lock_on_a_removed_file_is_not_a_claim(tmp_path, monkeypatch):
    """If its owner removes the file before it is locked, the lock would not exclude anyone."""
    locks, real = 0, fcntl.flock

    def lock_after_removal(file, operation):
        nonlocal locks
        locks += operation != fcntl.LOCK_UN
        if locks == 1 and (tmp_path / ".claim").exists():
            (tmp_path / ".claim").unlink()
        real(file, operation)

    monkeypatch.setattr("fcntl.flock", lock_after_removal)
    run = claim(tmp_path)
    assert locks == 2
    assert (tmp_path / ".claim").read_text().startswith("process ")
    run.release()


def test_a_file_system_without_locks_works_with_a_warning(tmp_path, monkeypatch, caplog):
    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    claim(tmp_path / "run").release()
    assert "does not support locks" in caplog.text


def test_partial_files_of_a_killed_job_are_removed(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in (".metrics.csv.12.part", "checkpoints/.last.ckpt.12.part"):
        (tmp_path / name).write_text("half")
    (tmp_path / "checkpoints/last.ckpt").write_text("whole")
    claim(tmp_path, may_resume=True).release()
    assert [path.name for path in tmp_path.rglob("*")] == ["checkpoints", "last.ckpt"]


def test_a_resumed_run_is_the_same_one_in_wandb(tmp_path):
    first = claim(tmp_path / "run")
    identity = first.wandb_id()
    (tmp_path / "run" / "config.yaml").touch()  # the run has begun
    first.release()
    again = claim(tmp_path / "run")
    again.resumes = True
    assert again.wandb_id() == identity
    again.resumes = False
    assert again.wandb_id() != identity
    again.release()
    other = claim(tmp_path / "other")
    other.resumes = True
    assert other.wandb_id() != identity
    other.release()


def test_runs_that_start_in_the_same_second_have_names_of_their_own(monkeypatch):
    for name in ("GAN_LIGHTNING_RUN", "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 11, 26, 12, 0, 0)

    monkeypatch.setattr("gan_lightning.run.datetime", Clock)
    folders = []
    for _ in range(4):
        run = Run("fit")
        assert Run("fit").folder == run.folder, "a rank that this process starts takes the same name"
        folders.append(run.folder)
        run.release()
    assert len(set(folders)) == 4
    assert all(folder.name.startswith("fit-20261126-120000-") for folder in folders)


def test_a_refused_command_leaves_no_folder_behind(tmp_path):
    run = Run("fit", "new", str(tmp_path / "runs"))
    run.claim()
    assert (tmp_path / "runs" / "new" / ".claim").exists()
    run.release()
    assert not (tmp_path / "runs").exists()


def test_files_that_a_command_inside_the_run_is_writing_stay(tmp_path):
    (tmp_path / "validate-last-1").mkdir()
    (tmp_path / "checkpoints").mkdir()
    for name in ("validate-last-1/.claim", "validate-last-1/.metrics.csv.1.part", "checkpoints/.last.ckpt.1.part"):
        (tmp_path / name).write_text("half")
    claim(tmp_path, may_resume=True).release()
    assert (tmp_path / "validate-last-1/.metrics.csv.1.part").exists()
    assert not (tmp_path / "checkpoints/.last.ckpt.1.part").exists()


def test_of_several_best_checkpoints_the_last_one_knows_the_best(tmp_path):
    assert best_checkpoint(tmp_path) == tmp_path / "best.ckpt"
    for name in ("best-step=2.ckpt", "best-step=4.ckpt"):
        (tmp_path / name).touch()
    state = {"best_model_path": "/where/it/was/best-step=2.ckpt"}
    torch.save({"callbacks": {"Other": {}, "ModelCheckpoint{'monitor': 'val/fid'}": state}}, tmp_path / "last.ckpt")
    assert best_checkpoint(tmp_path) == tmp_path / "best-step=2.ckpt"


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_a_command_that_needs_trained_networks_asks_for_them(command):
    run = Run(command, "name")
    with pytest.raises(InputError, match=f"{command} needs trained networks.*--ckpt_path untrained"):
        run.resolve_checkpoint(None)
    assert run.resolve_checkpoint("untrained") is None
    assert run.resolve_checkpoint(None, needs_training=False) is None
    assert Run("fit", "name").resolve_checkpoint(None) is None
