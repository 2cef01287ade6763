"""A rank that fails ends all processes of its job within seconds, and one of them says why."""

import pickle
import re
import threading
import time
from pathlib import Path

import pytest
from lightning import Trainer

from gan_lightning.resume.rank_watch import GRACE, RankWatch
from tests import processes
from tests.commands import CONFIGS, SMALL
from tests.conftest import FACES
from tests.processes import run_ranks

SCRIPT = Path(__file__).parent / "fail_on_ranks.py"
SECONDS = 15
GRACE_OF_DEAF = 1.0  # they use none of it


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def words(faces_root, command):
    given = [command, "--config", CONFIGS / "quickstart.yaml", *SMALL, "--data.root", faces_root, "--data.count", FACES]
    given += ["--trainer.max_steps", "6", "--trainer.val_check_interval", "3", "--data.batch_size", "8"]
    given += ["--name", "run", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    return [str(word) for word in given] + (["--ckpt_path", "untrained"] if command != "fit" else [])


def failing(place, *ranks, deaf=False):
    """Return the environment of a script that fails."""
    given = {"PLACE": place, "RANKS": ",".join(map(str, ranks)), "DEAF": str(int(deaf)), "OMP_NUM_THREADS": "1"}
    return given | {"GRACE": str(GRACE_OF_DEAF if deaf else GRACE)}


def seconds_since_failure(*outputs, deaf):
    """Return how long ago a rank has failed, with the whole grace that deaf ranks would be given."""
    seconds = time.time() - max(map(float, re.findall(r"failed at ([\d.]+)", "".join(outputs))))
    return seconds + (GRACE - GRACE_OF_DEAF if deaf else 0)


def run(faces_root, place, *ranks, deaf=False, command="fit"):
    """Run a command on two ranks; return their exit statuses and what they printed to stderr."""
    results = run_ranks(SCRIPT, *words(faces_root, command), ranks=2, environment=failing(place, *ranks, deaf=deaf))
    errors = [result.stderr for result in results]
    assert seconds_since_failure(*errors, deaf=deaf) < SECONDS
    return [result.returncode for result in results], errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "place", "rank"),
    [
        ("fit", "prepare", 0),
        ("fit", "data", 1),
        ("fit", "step", 0),
        ("fit", "evaluation", 0),
        ("fit", "saving", 0),
        ("validate", "evaluation", 1),
        ("test", "evaluation", 0),
        ("predict", "writing", 1),
    ],
)
def test_an_error_of_one_rank_ends_all(faces_root, command, place, rank):
    statuses, errors = run(faces_root, place, rank, command=command)
    assert statuses == [1, 1]
    assert errors[rank].count("RuntimeError: one rank is broken") == 1
    assert "Traceback" not in errors[1 - rank]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "place", "rank"),
    [("fit", "setup", 1), ("fit", "step", 1), ("fit", "grid", 0), ("test", "evaluation", 1), ("predict", "predict", 0)],
)
def test_a_rank_ends_even_if_nothing_interrupts_its_wait(faces_root, command, place, rank):
    """As in a collective of nccl."""
    statuses, errors = run(faces_root, place, rank, command=command, deaf=True)
    assert statuses == [1, 1]
    assert "Traceback" not in errors[1 - rank]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [(0,), (1,), (0, 1)])
def test_a_refusal_is_printed_once_in_one_line(faces_root, ranks):
    statuses, errors = run(faces_root, "setup-refuse", *ranks)
    assert statuses == [2, 2]
    assert "".join(errors).count("gan-lightning: error: one rank is refused") == 1
    assert "Traceback" not in "".join(errors)


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "deaf"), [(0, True), (0, False), (1, False)])
def test_a_rank_that_is_killed_ends_all_others(faces_root, rank, deaf):
    """Without a launcher, a killed rank 1 is noticed at once only by its connections."""
    statuses, errors = run(faces_root, "step-kill", rank, deaf=deaf)
    assert statuses == ([-9, 1] if rank == 0 else [1, -9])
    assert errors[1 - rank].count("has ended without a message, perhaps killed for lack of memory") == 1


def test_a_watch_is_copied_to_spawned_processes_without_its_state():
    trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False)
    watch = RankWatch(ends_process=True)
    watch.start(trainer)  # waits for the other rank
    copy = pickle.loads(pickle.dumps(watch))
    watch.on_exception(trainer, None, RuntimeError("before the ranks have met"))
    assert copy.failure is None
    assert copy.__reduce__() == watch.__reduce__()


def test_a_single_process_has_no_watch():
    watch = RankWatch()
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    watch.start(trainer)
    assert "rank-watch" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_sigterm_to_one_rank_ends_all_after_the_batch(faces_root, rank):
    """Lightning's own handler would wait until the signal has come to rank 0, and its predict loop goes on."""
    statuses, errors = run(faces_root, "predict-stop", rank, command="predict")
    assert statuses == [0, 0], errors
    assert "Traceback" not in "".join(errors)


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "deaf"), [(0, False), (1, False), (1, True)])
def test_ranks_that_lightning_launches_end_in_good_order(faces_root, rank, deaf):
    """Lightning kills the first process as soon as another has ended, which must not come before its own end."""
    environment = failing("step", rank, deaf=deaf) | {"PYTHONPATH": str(SCRIPT.parents[2])}
    result = processes.run(SCRIPT, *words(faces_root, "fit"), environment=environment, timeout=100)
    assert seconds_since_failure(result.stderr, deaf=deaf) < SECONDS
    assert result.returncode == 1
    assert result.stderr.count("Traceback") == 1
