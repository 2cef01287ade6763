"""The synthetic dataset on disk: CelebA's format, the same bytes however it is written, and no harm to other files."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_lightning.errors import InputError
from gan_lightning.faces import ATTRIBUTES, LANDMARKS, face_attributes, face_landmarks, render_face, sample_face
from gan_lightning.faces.synthesis import LISTS, synthesize

COUNT = 12


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def make(root: Path, count: int = COUNT, seed: int = 3, num_workers: int = 0) -> Path:
    return synthesize(root, count, seed, num_workers, progress=False)


def table(path: Path, header: int | None = None) -> tuple[list[str], list[str], list[list[int]]]:
    """Return header, names and numbers, read as torchvision.datasets.CelebA reads them."""
    with path.open() as file:
        rows = list(csv.reader(file, delimiter=" ", skipinitialspace=True))
    head = [] if header is None else rows[header]
    body = rows if header is None else rows[header + 1 :]
    return head, [row[0] for row in body], [[int(number) for number in row[1:]] for row in body]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("faces"))


def test_text_files_are_in_celebas_format(dataset: Path) -> None:
    names = [f"{index + 1:06d}.jpg" for index in range(COUNT)]
    faces = [sample_face(3, index) for index in range(COUNT)]
    attributes = table(dataset / "list_attr_celeba.txt", header=1)
    landmarks = table(dataset / "list_landmarks_align_celeba.txt", header=1)
    assert attributes == (list(ATTRIBUTES), names, [list(face_attributes(face).values()) for face in faces])
    assert landmarks == (list(LANDMARKS), names, [list(face_landmarks(face)) for face in faces])
    assert table(dataset / "identity_CelebA.txt") == ([], names, [[face.identity] for face in faces])
    split = [[0]] * 8 + [[1], [2], [0], [0]]
    assert table(dataset / "list_eval_partition.txt") == ([], names, split)
    for name in ("list_attr_celeba.txt", "list_landmarks_align_celeba.txt"):
        assert (dataset / name).read_text().splitlines()[0] == str(COUNT)


def test_images_are_the_rendered_faces(dataset: Path) -> None:
    assert len(list((dataset / "img_align_celeba").iterdir())) == COUNT
    with Image.open(dataset / "img_align_celeba" / "000005.jpg") as image:
        assert image.format == "JPEG"
        assert image.mode == "RGB"
        stored = np.asarray(image).astype(int)
    assert np.abs(stored - render_face(sample_face(3, 4))).mean() < 3


def test_the_same_bytes_from_two_processes(tmp_path: Path) -> None:
    alone, together = make(tmp_path / "alone", 55), make(tmp_path / "together", 55, num_workers=2)
    assert contents(together) == contents(alone)


def test_a_larger_count_extends(dataset: Path, tmp_path: Path) -> None:
    small = make(tmp_path, 5)
    before = {name: (small / "img_align_celeba" / name).stat().st_mtime_ns for name in ("000001.jpg", "000005.jpg")}
    assert contents(make(tmp_path, COUNT)) == contents(dataset)
    assert before == {name: (small / "img_align_celeba" / name).stat().st_mtime_ns for name in before}


@pytest.mark.parametrize("count", [COUNT, 5])
def test_a_finished_set_is_left_alone(dataset: Path, count: int) -> None:
    times = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    assert make(dataset.parent, count) == dataset
    assert times == {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}


def test_an_interrupted_call_is_completed(dataset: Path, tmp_path: Path) -> None:
    folder = make(tmp_path)
    images = folder / "img_align_celeba"
    (folder / "synthetic.json").unlink()
    (folder / LISTS[0]).unlink()
    (images / "000002.jpg").unlink()
    cut = images / "000004.jpg"
    cut.write_bytes(cut.read_bytes()[:1500])
    (images / "000006.jpg").write_bytes(b"")
    (images / ".000007.jpg.part").write_bytes(b"half an image")
    kept = (images / "000001.jpg").stat().st_mtime_ns
    make(tmp_path)
    assert contents(folder) == contents(dataset)
    assert (images / "000001.jpg").stat().st_mtime_ns == kept


def _celeba(folder: Path) -> None:
    (folder / "img_align_celeba").mkdir(parents=True)
    Image.new("RGB", (178, 218)).save(folder / "img_align_celeba" / "000001.jpg")
    (folder / "list_attr_celeba.txt").write_text("1\nMale\n000001.jpg 1\n")


def _lists_alone(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "list_attr_celeba.txt").write_text("0\n")


def _other_file(folder: Path) -> None:
    make(folder.parent, 1)
    (folder / "synthetic.json").unlink()
    (folder / "thesis.tex").write_text("years of work")


def _other_seed(folder: Path) -> None:
    make(folder.parent, 1, seed=4)


def _other_seed_unfinished(folder: Path) -> None:
    make(folder.parent, 1, seed=4)
    (folder / "synthetic.json").unlink()


def _other_version(folder: Path) -> None:
    make(folder.parent, 1)
    (folder / "synthetic.json").write_text(json.dumps({"format": -1, "seed": 3, "count": 1}))


def _unreadable_marker(folder: Path) -> None:
    make(folder.parent, 1)
    (folder / "synthetic.json").write_text("{")


@pytest.mark.parametrize(
    "prepare",
    [_celeba, _lists_alone, _other_file, _other_seed, _other_seed_unfinished, _other_version, _unreadable_marker],
)
def test_another_folder_is_refused_and_untouched(tmp_path: Path, prepare: object) -> None:
    assert callable(prepare)
    prepare(tmp_path / "celeba")
    before = contents(tmp_path)
    with pytest.raises(InputError, match="root") as caught:
        make(tmp_path)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("count", "seed"), [(0, 0), (1, -1)])
def test_bad_numbers_are_refused(tmp_path: Path, count: int, seed: int) -> None:
    with pytest.raises(InputError, match="at least"):
        make(tmp_path / "new", count, seed)
    assert not (tmp_path / "new").exists()


def test_torch_is_not_imported() -> None:
    """The command starts fast."""
    code = "import sys, gan_lightning.faces.synthesis; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_script_without_a_main_guard_may_use_processes(tmp_path: Path) -> None:
    """Spawned processes run the script again, unless they are kept from it."""
    script = tmp_path / "script.py"
    script.write_text(
        "from gan_lightning.faces.synthesis import synthesize\n"
        "print('once')\n"
        f"synthesize({str(tmp_path / 'faces')!r}, count=3, num_workers=2, progress=False)\n"
    )
    result = subprocess.run([sys.executable, script], check=True, capture_output=True, text=True)
    assert result.stdout == "once\n"
    assert len(list((tmp_path / "faces").rglob("*.jpg"))) == 3
