"""`gan-lightning align`, there and back, and `restore --align`."""

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan_lightning.__main__ import main
from gan_lightning.alignment import YuNet, make_frame
from gan_lightning.alignment.frames import apply
from gan_lightning.alignment.landmark_files import read_landmarks
from gan_lightning.alignment.table import read_table
from gan_lightning.networks.dcgan import Generator
from tests.alignment.scenes import placed, scene

pytestmark = pytest.mark.usefixtures("own_folder")


def save(path, pixels, **options):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return str(path)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def write_landmarks(path, faces):
    """Write CelebA's list of landmarks."""
    rows = [f"{name} {' '.join(f'{number:.2f}' for number in points.ravel())}" for name, points in faces]
    columns = (
        "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
    )
    Path(path).write_text("\n".join([str(len(rows)), columns, *rows]) + "\n")


def refused(capsys, *words):
    assert main(list(words)) == 2
    errors = capsys.readouterr().err
    assert len(errors.strip().splitlines()) == 1, errors
    return errors.strip()


def test_the_network_finds_faces_of_any_size_and_turn():
    """Within a fifth of the distance of the eyes; how precise it is: benchmarks/results/alignment.md."""
    network = YuNet()
    for index, degrees, scale in ((3, -28, 0.7), (5, 0, 1.0), (8, 25, 1.8)):
        photo, truth = placed(index, degrees, scale, size=(500, 500), center=(250, 250))
        found = network(photo)
        assert len(found) == 1
        eyes = np.hypot(*(truth[1] - truth[0]))
        assert np.hypot(*(found[0][:2] - truth[:2]).T).max() < 0.2 * eyes
    assert network(np.full((200, 200, 3), 128, np.uint8)).shape == (0, 5, 2)


def test_all_faces_are_aligned_and_one_without_is_left_alone(capsys, caplog):
    photo, _ = scene()
    save("photos/two.png", photo), save("photos/one.jpg", placed(8)[0]), save("photos/wall.png", photo[:60, :60] * 0)
    assert main(["align", "photos", "--output", "aligned"]) == 0
    assert "aligned 3 faces of 2 photographs to celeba, 178x218 pixels; 1 photograph skipped" in capsys.readouterr().out
    assert "wall.png is skipped: no face was found" in caplog.text
    assert {path.name for path in Path("aligned").iterdir()} == {"one.png", "two_1.png", "two_2.png", "alignment.csv"}
    assert pixels("aligned/two_1.png").shape == (218, 178, 3)
    faces = {face.aligned: face for face in read_table(Path("aligned/alignment.csv"))}
    assert faces["two_1.png"].landmarks[0, 0] < faces["two_2.png"].landmarks[0, 0]  # the larger one is on the left
    assert main(["align", "photos/two.png", "--largest", "--frame", "ffhq", "--size", "64", "--output", "ffhq"]) == 0
    assert pixels("ffhq/two.png").shape == (64, 64, 3)


def test_unchanged_faces_give_the_photograph_back():
    photo, truth = scene()
    save("photos/two.png", photo), write_landmarks("list.txt", [("two.png", truth[0]), ("two.png", truth[1])])
    assert main(["align", "photos", "--landmarks", "list.txt", "--output", "aligned"]) == 0
    words = ["--paste_back", "aligned", "--alignment", "aligned/alignment.csv", "--output", "pasted"]
    assert main(["align", "photos", *words]) == 0
    np.testing.assert_array_equal(pixels("pasted/two.png"), photo)
    face = pixels("aligned/two_1.png").copy()
    face[100:150, 60:120] = 255
    save("restored/two_1.png", face)  # only one face was restored
    words[1], words[-1] = "restored", "again"
    assert main(["align", "photos", *words]) == 0
    changed = (pixels("again/two.png") != photo).any(axis=2)
    assert changed.sum() > 2000
    assert not changed[:, 310:].any()


def test_the_table_holds_transform_and_landmarks():
    photo, truth = placed(3, 20, 0.8)
    save("face.png", photo), write_landmarks("list.txt", [("face.png", truth)])
    assert main(["align", "face.png", "--landmarks", "list.txt", "--output", "aligned"]) == 0
    face, frame = read_table(Path("aligned/alignment.csv"))[0], make_frame("celeba")
    np.testing.assert_allclose(face.landmarks, truth, atol=0.006)
    np.testing.assert_array_equal(face.matrix, frame.transform(face.landmarks))
    row = next(csv.DictReader(Path("aligned/alignment.csv").read_text().splitlines()))
    x, y = truth[0]
    there = (
        float(row["cosine"]) * x - float(row["sine"]) * y + float(row["shift_x"]),
        float(row["sine"]) * x + float(row["cosine"]) * y + float(row["shift_y"]),
    )
    np.testing.assert_allclose(there, apply(face.matrix, truth)[0])


def test_orientation_gray_and_transparency():
    photo, truth = placed(3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a viewer
    save("photos/turned.png", np.rot90(photo).copy(), exif=exif)
    save("photos/gray.png", photo[..., 1])
    alpha = np.full((300, 300), 255, np.uint8)
    alpha[140:160, 140:160] = 0
    save("photos/clear.png", np.dstack([photo, alpha]))
    write_landmarks("list.txt", [(name, truth) for name in ("turned.png", "gray.png", "clear.png")])
    assert main(["align", "photos", "--landmarks", "list.txt", "--output", "aligned"]) == 0
    shapes = {name: pixels(f"aligned/{name}.png").shape for name in ("turned", "gray", "clear")}
    assert shapes == {"turned": (218, 178, 3), "gray": (218, 178), "clear": (218, 178, 4)}
    seen = pixels("aligned/clear.png")[..., 3] == 255
    np.testing.assert_allclose(
        pixels("aligned/clear.png")[..., :3][seen].astype(int), pixels("aligned/turned.png")[seen], atol=8
    )
    words = ["--paste_back", "aligned", "--alignment", "aligned/alignment.csv", "--output", "pasted"]
    assert main(["align", "photos", *words]) == 0
    np.testing.assert_array_equal(pixels("pasted/turned.png"), photo)
    np.testing.assert_array_equal(pixels("pasted/gray.png"), photo[..., 1])
    np.testing.assert_array_equal(pixels("pasted/clear.png"), np.dstack([photo, alpha]))


@pytest.mark.skipif(sys.platform != "linux", reason="names of other systems are Unicode")
def test_names_of_any_encoding():
    photo, truth = placed(3)
    save(os.fsdecode(b"photos/caf\xe9, 1.png"), photo)
    Path("list.json").write_bytes(b'{"caf\xe9, 1.png": ' + json.dumps(truth.tolist()).encode() + b"}")
    assert main(["align", "photos", "--landmarks", "list.json", "--output", "aligned"]) == 0
    words = ["--paste_back", "aligned", "--alignment", "aligned/alignment.csv", "--output", "pasted"]
    assert main(["align", "photos", *words]) == 0
    np.testing.assert_array_equal(pixels("pasted/caf_, 1.png"), photo)


def test_landmarks_as_people_have_them():
    points = np.arange(10.0).reshape(5, 2)
    numbers = ",".join(map(str, points.ravel()))
    Path("kaggle.csv").write_text(f"image_id,lefteye_x,lefteye_y\na.jpg,{numbers}\nb c.jpg,{numbers}\n")
    Path("list.txt").write_text(
        f"2\nlefteye_x lefteye_y\na.jpg {numbers.replace(',', '  ')}\nb c.jpg {numbers.replace(',', ' ')}\n"
    )
    Path("faces.json").write_text(json.dumps({"a.jpg": points.ravel().tolist(), "b c.jpg": [points.tolist()] * 2}))
    for name in ("kaggle.csv", "list.txt", "faces.json"):
        found = read_landmarks(Path(name))
        assert list(found) == ["a.jpg", "b c.jpg"]
        np.testing.assert_array_equal(found["a.jpg"], points[None])
    assert found["b c.jpg"].shape == (2, 5, 2)


def test_what_cannot_be_used_is_one_line(capsys, caplog, monkeypatch):
    photo, truth = placed(3)
    save("face.png", photo), save("wall.png", photo[:50, :50] * 0)
    write_landmarks("list.txt", [("other.png", truth)])
    write_landmarks("near.txt", [("face.png", (truth - truth[2]) * 6 + truth[2])])
    Path("bad.txt").write_text("face.png 1 2 3\n"), Path("empty.csv").write_text("\n")
    align = ["align", "face.png", "--output", "out"]
    assert "wall.png: no face was found" in refused(capsys, "align", "wall.png", "--output", "out")
    assert "wall.png" not in caplog.text  # named once
    assert "names no photograph that was given: it has other.png" in refused(capsys, *align, "--landmarks", "list.txt")
    assert "line 1 of bad.txt does not have five landmarks" in refused(capsys, *align, "--landmarks", "bad.txt")
    assert "contains no landmarks" in refused(capsys, *align, "--landmarks", "empty.csv")
    assert "cannot be read: No such file" in refused(capsys, *align, "--landmarks", "nowhere.txt")
    assert "less than the crop around the face" in refused(capsys, *align, "--landmarks", "near.txt")
    assert "belong together" in refused(capsys, *align, "--paste_back", "x")
    assert "178x218 pixels: choose celeba_square" in refused(capsys, *align, "--size", "64")
    assert "lies in ." in refused(capsys, "align", ".", "--output", "out")
    paste = ["--paste_back", "x", "--alignment"]
    assert "cannot be read (No such file" in refused(capsys, *align, *paste, "alignment.csv")
    assert "is not a table that align has written" in refused(capsys, *align, *paste, "near.txt")
    save("out/face.png", photo)
    assert "out/face.png exists" in refused(capsys, *align)
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert "pip install 'gan-lightning[align]'" in refused(capsys, "align", "face.png", "--output", "new")


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("generator") / "generator.pt"
    torch.save(Generator(16, latent_dim=6, base_channels=4).state_dict(), path)
    return str(path)


QUICK = ["--searches", "1", "--model.inversion.num_steps", "2", "--model.inversion.refine_steps=2"]


def test_a_hole_in_a_face_of_a_photograph_is_filled(generator, capsys):
    """Only the hole changes: the rest of the photograph keeps its own pixels, at its own resolution."""
    photo, truth = scene()
    save("photos/two.png", photo), save("photos/wall.png", photo[:60, :60] * 0)
    known = np.full(photo.shape[:2], 255, np.uint8)
    known[170:200, 140:180] = 0
    save("masks/two.png", known), write_landmarks("list.txt", [("two.png", truth[0])])
    words = ["restore", "photos", "--align", "--landmarks", "list.txt", "--generator", generator, "--task", "inpaint"]
    words += ["--mask", "masks", "--output", "out", *QUICK]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "aligned 1 face of 1 photograph to celeba_square, 16x16 pixels; 1 photograph skipped" in printed
    assert "two.png -> out/two.png" in printed
    changed = (pixels("out/two.png") != photo).any(axis=2)
    assert changed[175:195, 145:175].mean() > 0.9
    changed[110:260, 80:240] = False  # the hole, and three pixels of 16 around it
    assert not changed.any()
    first = Path("out/two.png").read_bytes()
    assert main(words) == 0  # again, as after an interruption
    assert Path("out/two.png").read_bytes() == first
    write_landmarks("list.txt", [("two.png", truth[0] + 40)])
    assert main(words) == 0  # another face is not taken for the one that was restored
    assert Path("out/two.png").read_bytes() != first
    save("out/two.png", photo)
    capsys.readouterr()
    assert "is not a result of this command" in refused(capsys, *words)


def test_other_tasks_restore_all_of_the_face(generator, capsys):
    photo, truth = placed(3)
    save("face.png", photo), write_landmarks("list.txt", [("face.png", truth)])
    words = ["restore", "face.png", "--landmarks", "list.txt", "--generator", generator, *QUICK]
    assert main([*words, "--task", "denoise", "--noise", "0.3", "--align", "ffhq", "--output", "out"]) == 0
    assert main([*words, "--task", "super_resolve", "--align", "celeba", "--output", "larger"]) == 0
    for folder in ("out", "larger"):
        result = pixels(f"{folder}/face.png")
        assert result.shape == photo.shape
        assert (result != photo).any(axis=2)[120:180, 120:180].mean() > 0.9
    capsys.readouterr()
    assert "add it, or leave both out" in refused(capsys, *words, "--task", "denoise", "--output", "x")
