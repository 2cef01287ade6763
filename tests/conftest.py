"""What every test shares: a cache of its own, quiet logs, and a small folder of synthetic faces."""

import os

os.environ.setdefault("WANDB_MODE", "offline")  # no test may wait for a server
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # of Lightning 2.6's use of it
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # or threads of torch spin while other processes want the cores

import pytest

import tests.processes  # noqa: F401  from now on "forkserver" is a process that has imported torch already

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
