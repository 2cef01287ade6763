"""Several ranks stop at the same step or save nothing; the checkpoint of one rank resumes both exactly."""

from pathlib import Path

import pytest
import torch

from gan_lightning import InputError
from gan_lightning.loggers.metrics_file import MetricsFile
from gan_lightning.resume.last_checkpoint import LastCheckpoint
from tests.processes import run, run_ranks

SCRIPT = Path(__file__).parent / "stop_on_ranks.py"


def train(faces_root, folder, trouble="none", rank=0):
    """Train on two ranks; return their exit statuses."""
    folder.mkdir(exist_ok=True)
    results = run_ranks(SCRIPT, faces_root, folder, trouble, rank, ranks=2, environment={"OMP_NUM_THREADS": "1"})
    return [result.returncode for result in results]


def train_by_launcher(faces_root, folder, trouble, rank):
    """Train on two ranks that Lightning launches, and is to end: left waiting, one would take half an hour."""
    folder.mkdir(exist_ok=True)
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[2])}
    return run(SCRIPT, faces_root, folder, trouble, rank, environment=environment, timeout=90)


def rows(folder):
    log = MetricsFile(folder)
    return [{name: value for name, value in row.items() if "per_second" not in name} for row in log._rows()]


def assert_ended_equally(folder, other):
    assert rows(folder) == rows(other)
    for name in ("rank-0.pt", "rank-1.pt"):
        one, two = (torch.load(run / name, weights_only=True) for run in (folder, other))
        torch.testing.assert_close(one, two, rtol=0, atol=0)


@pytest.fixture(scope="module")
def whole(faces_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert train(faces_root, folder) == [0, 0]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("trouble", "rank"), [("SIGTERM", 1), ("SIGINT", 0)])
def test_a_signal_to_one_rank_stops_all_at_the_same_step(faces_root, tmp_path, whole, trouble, rank):
    train(faces_root, tmp_path, trouble, rank)
    assert not (tmp_path / "rank-0.pt").exists()
    # The signal comes during step 5, and the ranks tell each other of it during step 6.
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 6
    assert train(faces_root, tmp_path) == [0, 0]
    assert_ended_equally(whole, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_of_one_rank_ends_all_and_keeps_the_last_checkpoint(faces_root, tmp_path, rank):
    assert train_by_launcher(faces_root, tmp_path, "error", rank).returncode != 0
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 3


def test_an_interval_below_one_is_refused():
    with pytest.raises(InputError, match=r"every_n_steps must be at least 1.*but got 0"):
        LastCheckpoint(every_n_steps=0)
