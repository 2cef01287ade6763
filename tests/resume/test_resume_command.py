"""Runs resumed by the command line: from whole checkpoints, from damaged ones, and before the first one."""

import errno
import shutil
import time
from pathlib import Path

import pytest
import torch

from gan_lightning.callbacks import curves, samples, summary
from gan_lightning.loggers.metrics_file import MetricsFile
from tests import commands
from tests.conftest import FACES
from tests.processes import Process
from tests.resume.test_checkpoint_io import no_file_larger_than

pytestmark = pytest.mark.usefixtures("own_folder")


def fit(faces_root, name="run", **more):
    options = [word for key, value in more.items() for word in (f"--{key.replace('__', '.')}", value)]
    return commands.fit(faces_root, "--data.count", FACES, *options, name=name)


def one_line(capsys, status, expected=2):
    """Return the last line of the error output, which must be the error message."""
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert status == expected, error
    assert error.startswith("gan-lightning: error: ")
    return error


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change_bytes(path):
    """Change more bytes than the padding between two parts of the file has."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(byte ^ 1 for byte in content[middle : middle + 64])
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [truncate, change_bytes, Path.unlink])
def test_a_run_is_resumed_from_the_checkpoint_before_a_damaged_one(copied_run, faces_root, capsys, harm):
    """On file systems without hard links, last.ckpt is missing for a moment while it is replaced."""
    last, previous = copied_run / "checkpoints" / "last.ckpt", Path("runs/run/checkpoints/previous.ckpt")
    before = torch.load(last, weights_only=True)["state_dict"]
    harm(last)
    if harm is Path.unlink:
        assert fit(faces_root, ckpt_path="last") == 0
    else:
        refused = one_line(capsys, fit(faces_root, ckpt_path="last"))
        assert "runs/run/checkpoints/last.ckpt is" in refused
        assert refused.endswith(f"--ckpt_path {previous}")
        assert fit(faces_root, ckpt_path=previous) == 0
    after = torch.load(last, weights_only=True)["state_dict"]
    for name, tensor in before.items():
        assert tensor.equal(after[name]), name
    assert torch.load(previous, weights_only=True)["global_step"] == 2


def test_of_two_damaged_checkpoints_none_is_recommended(copied_run, faces_root, capsys):
    for name in ("last.ckpt", "previous.ckpt"):
        truncate(copied_run / "checkpoints" / name)
    refused = one_line(capsys, fit(faces_root, ckpt_path="last"))
    assert "previous.ckpt is not a whole checkpoint" in refused


def test_a_run_killed_before_its_first_checkpoint_starts_again(copied_run, faces_root, caplog):
    rows = MetricsFile(copied_run)._rows()
    shutil.rmtree(copied_run / "checkpoints")
    assert fit(faces_root, ckpt_path="last") == 0
    assert "runs/run holds no checkpoint yet: training begins at its first step" in caplog.text
    for row in (again := MetricsFile(copied_run)._rows()) + rows:
        row.pop("train/images_per_second")
    assert again == rows
    assert (copied_run / "metrics-before-resume-1.csv").exists()


def test_the_last_checkpoint_can_be_written_every_few_steps(faces_root):
    assert fit(faces_root, trainer__max_steps=5, trainer__val_check_interval=3, last_checkpoint__every_n_steps=2) == 0
    steps = [
        torch.load(f"runs/run/checkpoints/{n}.ckpt", weights_only=True)["global_step"] for n in ("previous", "last")
    ]
    assert steps == [3, 5]
    assert fit(faces_root, name="other", last_checkpoint__every_n_steps=0) == 2


def test_a_full_disk_is_reported_in_one_line_and_the_existing_checkpoints_stay(copied_run, faces_root, capsys):
    before = {path.name: path.read_bytes() for path in (copied_run / "checkpoints").iterdir()}
    smallest = min(len(content) for content in before.values())
    with no_file_larger_than(smallest - 1):
        status = fit(faces_root, ckpt_path="last", trainer__max_steps=6)
    refused = one_line(capsys, status, expected=1)
    assert "could not be written (File too large), the previous one is unchanged: free disk space" in refused
    assert {path.name: path.read_bytes() for path in (copied_run / "checkpoints").iterdir()} == before
    assert fit(faces_root, ckpt_path="last", trainer__max_steps=6) == 0
    assert [step for step, _ in MetricsFile(copied_run).history()["val/fd_random"]] == [0, 2, 4, 6]


def test_a_disk_too_full_for_pictures_does_not_end_a_run(faces_root, monkeypatch, caplog):
    def full(path, *_):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(samples, "write_png", full)
    monkeypatch.setattr(summary, "write_json", full)
    monkeypatch.setattr(curves, "draw_curves", full)
    assert fit(faces_root) == 0
    assert torch.load("runs/run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 4
    for name in ("samples/step-0000002.png", "summary.json", "curves.png"):
        assert f"{name} could not be written (No space left on device): the run continues without it" in caplog.text


@pytest.mark.slow
def test_of_two_jobs_in_one_folder_one_is_refused_and_the_other_ends_well(faces_root):
    """Two jobs start at the same time; then a third one tries to resume while the first is running."""

    def start(*more):
        words = ["fit", "--config", commands.CONFIGS / "quickstart.yaml", *commands.SMALL, "--data.root", faces_root]
        given = [*words, "--data.count", FACES, "--name", "run", "--trainer.max_steps", "3000", *more]
        return Process("gan_lightning", *given, environment={"OMP_NUM_THREADS": "1"})

    jobs = [start(), start()]
    until = time.monotonic() + 120
    while all(job.poll() is None for job in jobs) and time.monotonic() < until:
        time.sleep(0.1)
    refused, first = sorted(jobs, key=lambda job: job.poll() is None)
    assert refused.returncode == 2
    assert "runs/run is in use by another job" in refused.output()[1]
    resuming = start("--ckpt_path", "last")
    _, said = resuming.communicate(timeout=120)
    assert resuming.returncode == 2, said
    assert "runs/run is in use by another job" in said
    assert first.poll() is None, "the first must still run for this test to mean anything"
    first.terminate()
    first.communicate(timeout=60)
    assert fit(faces_root, ckpt_path="last", trainer__max_steps=1) == 0
