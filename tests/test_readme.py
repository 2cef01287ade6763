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
from tests.data.test_labels import write_digits

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = sorted(
    {line.strip() for page in PAGES for line in page.read_text().splitlines() if line.startswith("    gan-lightning ")}
)


DIGITS = ["--data.download", "false", "--data.val_fraction", "0.5", "--evaluation.num_images", "20"]
TRAININGS = {  # by the name of the run that other commands start from
    "NAME": "gan-lightning fit --config configs/celeba64.yaml --data.root /data/celeba",
    "demo": "gan-lightning fit --config quickstart",
    "digits": "gan-lightning fit --config mnist_conditional",
}


@pytest.fixture
def folder_with_data(own_folder, tmp_path, faces_root):
    """Working folder with the configurations, and the data where the pages expect them."""
    Path("configs").symlink_to(ROOT / "configs")
    Path("data").mkdir()
    Path("data/synthetic").symlink_to(faces_root)
    write_digits(Path("data"), [*range(10)] * 20)
    return tmp_path


def made_small(command, faces_root):
    """Return the words of a command of a page, with options that make it quick and with test data."""
    words = shlex.split(command)[1:]
    if words[0] == "export":
        return words
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
    if "mnist" in command:
        small += DIGITS
    if "image_folder" in command:
        small += ["--data.split_fractions", "[0.6,0.2,0.2]"]
    return [*words, *small]


@pytest.fixture(scope="module")
def trained():
    """Folder for runs that commands of the pages start from: each is trained by the first that needs it."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_pages_run(command, folder_with_data, faces_root, trained):
    name = next((name for name in TRAININGS if f"runs/{name}/" in command), "NAME" if "runs/*" in command else None)
    if name is not None:
        if not (trained / name).exists():
            assert main([*made_small(TRAININGS[name], faces_root), "--name", name]) == 0
            shutil.copytree(f"runs/{name}", trained / name)
        shutil.copytree(trained / name, f"runs/{name}", dirs_exist_ok=True)
    runs = command.split()[1] not in ("synthesize", "pack", "evaluate", "report", "export")
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
