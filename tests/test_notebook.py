"""The notebook: clean, and every cell runs."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import FACES
from tests.processes import run

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"


def test_the_notebook_has_no_outputs():
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    cells = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)
    assert [cell["metadata"].get("tags") for cell in cells].count(["parameters"]) == 1
    assert len({cell["id"] for cell in content["cells"]}) == len(content["cells"])


@pytest.mark.slow
def test_every_cell_runs_in_order(tmp_path, faces_root):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "synthetic").symlink_to(faces_root)
    (tmp_path / "photos").mkdir()
    face = next((faces_root / "celeba" / "img_align_celeba").iterdir())
    with Image.open(face) as photo:
        photo.save(tmp_path / "photos" / "mine.png")
    settings = [f"count={FACES}", "steps=5", "measured=4", "accelerator='cpu'"]
    done = run(Path(__file__).with_name("notebook_cells.py"), NOTEBOOK, *settings, folder=tmp_path, drawn=True)
    assert done.returncode == 0, done.stderr[-2000:]
    shown = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"type"')]
    assert len(shown) == 4  # samples, curves, restored faces, restored photographs
    assert all(value["size"] and min(value["size"]) >= 64 for value in shown), shown
    assert (tmp_path / "runs" / "quickstart-photos" / "images.csv").exists()
