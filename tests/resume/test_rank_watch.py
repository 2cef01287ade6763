"""A rank that fails ends all processes of its job within seconds, and one of them says why."""

import re
import time
from pathlib import Path

import pytest

from tests.conftest import FACES
from tests.processes import run_ranks
from tests.test_cli import CONFIGS, SMALL

SCRIPT = Path(__file__).parent / "fail_on_ranks.py"
SECONDS = 15


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(faces_root, place, rank, *more, deaf=False, command="fit"):
    """Run a command on two ranks; return them, and the seconds from the failure to the end of both."""
    words = [command, "--config", CONFIGS / "quickstart.yaml", *SMALL, "--data.root", faces_root, "--data.count", FACES]
    words += ["--data.batch_size", "8", "--name", "run", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    started = ["--ckpt_path", "untrained"] if command != "fit" else []
    script = [place, rank, int(deaf), *words, *started, *more]
    ranks = run_ranks(SCRIPT, *script, ranks=2, environment={"OMP_NUM_THREADS": "1"}, timeout=60)
    (failed,) = re.findall(r"failed at ([\d.]+)", "".join(rank.stderr for rank in ranks))
    return ranks, time.time() - float(failed)


@pytest.mark.slow
@pytest.mark.parametrize("deaf", [False, True], ids=["gloo", "deaf"])
@pytest.mark.parametrize(
    ("place", "rank", "command"),
    [
        ("prepare", 0, "fit"),
        ("setup", 1, "fit"),
        ("data", 1, "fit"),
        ("step", 0, "fit"),
        ("step", 1, "fit"),
        ("evaluation", 0, "fit"),
        ("evaluation", 1, "validate"),
        ("evaluation", 0, "test"),
        ("grid", 0, "fit"),
        ("saving", 0, "fit"),
        ("predict", 1, "predict"),
        ("writing", 1, "predict"),
    ],
)
def test_an_error_of_one_rank_ends_all(faces_root, place, rank, command, deaf):
    if deaf and place in ("prepare", "saving"):
        pytest.skip("called on rank 0 alone")
    more = ["--trainer.max_steps", "6", "--trainer.val_check_interval", "3"]
    ranks, seconds = run(faces_root, place, rank, *more, deaf=deaf, command=command)
    print([r.stderr for r in ranks], seconds)
    assert [one.returncode for one in ranks] == [1, 1]
    assert ranks[rank].stderr.count("RuntimeError: one rank is broken") == 1
    assert "Traceback" not in ranks[1 - rank].stderr
    assert seconds < SECONDS
