"""What every test shares: a cache of its own, quiet logs, and a small folder of synthetic faces."""

import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("WANDB_MODE", "offline")  # no test may wait for a server
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # of Lightning 2.6's use of it
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # or threads of torch spin while other processes want the cores
os.environ.setdefault("OMP_NUM_THREADS", "1")  # networks of the tests are so small that a second thread only costs

import pytest

import tests.processes  # noqa: F401  from now on "forkserver" is a process that has imported torch already
from tests.figures import leave_figures_undrawn

FACES = 120


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory):
    """Keep packed images and statistics out of the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("GAN_LIGHTNING_CACHE")
    os.environ["GAN_LIGHTNING_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["GAN_LIGHTNING_CACHE"]
    else:
        os.environ["GAN_LIGHTNING_CACHE"] = before


@pytest.fixture(scope="session")
def faces_root(tmp_path_factory):
    """A folder with `FACES` synthetic faces in CelebA's layout."""
    from gan_lightning.faces.synthesis import synthesize

    root = tmp_path_factory.mktemp("faces")
    synthesize(root, count=FACES, seed=0, num_workers=1, progress=False)
    return root


@pytest.fixture
def undrawn_figures(request, monkeypatch):
    """Compose figures, but do not draw them, except in tests marked `drawn`."""
    if request.node.get_closest_marker("drawn") is None:
        leave_figures_undrawn(monkeypatch.setattr)


@pytest.fixture
def own_folder(tmp_path, monkeypatch, undrawn_figures):
    """Run commands in an empty folder, without pytest's own arguments; figures are composed there, but not drawn."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gan-lightning"])
    monkeypatch.delenv("GAN_LIGHTNING_RUN", raising=False)


@pytest.fixture(scope="session")
def finished(faces_root, tmp_path_factory):
    """Folder of a run of four steps, which a test may look at but not change."""
    from tests.commands import fit

    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["gan-lightning"])
        patch.delenv("GAN_LIGHTNING_RUN", raising=False)
        assert fit(faces_root, "--data.count", FACES) == 0
    return folder / "runs" / "run"


@pytest.fixture
def copied_run(finished, tmp_path):
    """A copy of that run, in another folder than the one it was trained in; a test may damage it."""
    return Path(shutil.copytree(finished, tmp_path / "runs" / "run"))
