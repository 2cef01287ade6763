"""Every command and snippet of README and docs runs, on a smaller scale."""

import re
import shlex
import shutil
import tempfile
from glob import glob
from pathlib import Path

import pytest

from gan_lightning.__main__ import main
from tests.commands import SMALL
from tests.conftest import FACES

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = sorted(
    {line.strip() for page in PAGES for line in page.read_text().splitlines() if line.startswith("    gan-lightning ")}
)


@pytest.fixture
def folder_with_data(own_folder, tmp_path, faces_root):
    """Working folder with the configurations, and the data where the pages expect them."""
    Path("configs").symlink_to(ROOT / "configs")
    Path("data").mkdir()
    Path("data/synthetic").symlink_to(faces_root)
    return tmp_path


def made_small(command, faces_root):
    """Return the words of a command of a page, with options that make it quick and with test data."""
    words = shlex.split(command)[1:]
    if words[0] == "report":
        return [match for word in words for match in sorted(glob(word)) or [word]]
    if words[0] == "evaluate":
        photographs = str(faces_root / "celeba" / "img_align_celeba")
        return [photographs if word in ("photos/", "samples/") else word for word in words]
    if words[0] == "synthesize":
        return [{"20000": "3", "data/synthetic": "data/more"}.get(word, word) for word in words]
    places = {"/data/celeba": faces_root, "/data/photos": faces_root / "celeba" / "img_align_celeba"}
    words = [str(places.get(word, word)) for word in words]
    if words[0] == "pack":
        return [*words, *SMALL[:2]]
    if "--trainer.devices" in words:
        words[words.index("--trainer.devices") + 1] = "1"
    if "--num_samples" in words:
        words[words.index("--num_samples") + 1] = "5"
    small = list(SMALL)
    if "quickstart" in command:
        small += ["--data.count", str(FACES)]
    if "image_folder" in command:
        small += ["--data.split_fractions", "[0.6,0.2,0.2]"]
    return [*words, *small]


@pytest.fixture(scope="module")
def trained():
    """Folder for a run that commands of the pages measure: trained by the first of them that needs it."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "NAME"


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_pages_run(command, folder_with_data, faces_root, trained):
    if "runs/NAME" in command or "runs/*" in command:
        training = made_small("gan-lightning fit --config configs/celeba64.yaml --data.root /data/celeba", faces_root)
        if not trained.exists():
            assert main([*training, "--name", "NAME"]) == 0
            shutil.copytree("runs/NAME", trained)
        shutil.copytree(trained, "runs/NAME", dirs_exist_ok=True)
    runs = command.split()[1] not in ("synthesize", "pack", "evaluate", "report")
    assert main([*made_small(command, faces_root), *(["--name", "again"] if runs else [])]) == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_show_pictures_and_link_pages_that_are_there(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} points to {target}"


def test_the_python_snippet_runs(folder_with_data):
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert snippets, "the README has lost its example in Python"
    for snippet in snippets:
        smaller = snippet.replace("count=2000", f"count={FACES}").replace(
            "max_steps=20", "max_steps=2, accelerator='cpu'"
        )
        names = {}
        exec(smaller, names)  # as the reader would
        assert names["images"].shape == (64, 3, 32, 32)
