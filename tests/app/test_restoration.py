"""What the page restores, without a browser: the images of `gan-lightning restore`, to the last bit."""

import os
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from PIL import Image

from gan_lightning.__main__ import main
from gan_lightning.app.limits import Limits
from gan_lightning.app.restoration import PhotoRestoration
from gan_lightning.app.stopping import Stopped, StopWhen
from gan_lightning.app.tasks import HINTS, NAMES, Wish, default_searches, factors, in_words_of_the_page
from gan_lightning.commands.restore_options import TASKS
from gan_lightning.errors import InputError
from gan_lightning.inversion import frozen_generator
from gan_lightning.inversion.whitening import estimate_gauss_newton_matrix
from tests.app.photos import draw
from tests.generators import write_generator

pytestmark = pytest.mark.usefixtures("own_folder")

CASES = {  # task -> wish, and the same for the command
    "denoise": (Wish("denoise", noise=0.1), ["--noise", "0.1"]),
    "deblur": (Wish("deblur", blur=1.0, searches=2), ["--blur", "1.0", "--searches", "2"]),
    "super_resolve": (Wish("super_resolve", factor=2, searches=2), ["--factor", "2", "--searches", "2"]),
    "colorize": (Wish("colorize", searches=2), ["--searches", "2"]),
    "invert": (Wish("invert"), []),
    "inpaint": (Wish("inpaint", searches=2), ["--searches", "2", "--mask", "mask.png"]),
}


def quiet(fraction, what):
    pass


def pixels(image):
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("task", CASES)
def test_the_result_is_that_of_the_command(task, restoration, generator):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned
    photo = draw(Path("photo.jpg"), (12, 9) if task == "super_resolve" else (40, 30), exif=exif)
    painted = np.zeros((60, 60), dtype=bool)  # on the square in the center: 30 x 30 pixels of the photograph
    painted[20:40, 10:30] = True
    if task == "inpaint":
        known = np.full((40, 30), 255, dtype=np.uint8)  # of the photograph, upright
        known[5 + 10 : 5 + 20, 5:15] = 0
        Image.fromarray(known).save("mask.png")
    wish, words = CASES[task]
    outcome = restoration.restore(photo, wish, painted, quiet, Event())
    assert main(["restore", "photo.jpg", "--generator", generator, "--task", task, "--output", "out", *words]) == 0
    with Image.open("out/photo.png") as expected:
        assert np.array_equal(pixels(outcome.after), pixels(expected))
    assert outcome.after.size == outcome.before.size
    assert (outcome.name, outcome.report[:12]) == ("photo-restored.png", "Restored in ")
    assert len(outcome.fillings) == {None: 0}.get(wish.searches, wish.searches)
    assert (outcome.spread is None) == (wish.searches is None)


def test_what_is_transparent_is_missing_too_and_holes_are_shown_in_gray(restoration):
    photo = draw(Path("photo.png"), (16, 16), "RGBA")
    with Image.open(photo) as opened:
        image = np.array(opened)
    image[2:6, 2:6, 3] = 0
    Image.fromarray(image).save(photo)
    painted = np.zeros((16, 16), dtype=bool)
    painted[10:14, 10:14] = True
    outcome = restoration.restore(photo, Wish("inpaint", searches=1), painted, quiet, Event())
    hole = painted.copy()
    hole[2:6, 2:6] = True
    before, after = pixels(outcome.before), pixels(outcome.after)
    assert np.abs(before[hole] - 127.5).max() < 1
    assert np.abs(after - image[..., :3])[~hole].max() <= 1
    assert np.abs(after - before)[hole].max() > 2


@pytest.mark.parametrize("task", ["denoise", "deblur"])
def test_progress_moves_and_never_back(task, restoration):
    told = []
    wish = Wish(task, searches=1)
    restoration.restore(draw(Path("photo.png")), wish, None, lambda *step: told.append(step), Event())
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions)
    assert len(set(fractions)) > 10
    assert 0 == fractions[0] < fractions[-1] <= 1
    assert told[0][1] == "Reading the photograph"
    assert any(what.startswith("Searching, step ") for _, what in told)
    assert any(what.startswith("Estimating the blur, step ") for _, what in told) == (task == "deblur")


@pytest.mark.parametrize("stage", ["Reading", "Estimating", "Searching", "Refining"])
def test_the_work_stops_within_the_stage_in_which_it_is_stopped(stage, restoration):
    stop, told = Event(), []

    def tell(fraction, what):
        told.append(what)
        if what.startswith(stage):
            stop.set()

    with pytest.raises(Stopped):
        restoration.restore(draw(Path("photo.png")), Wish("deblur"), None, tell, stop)
    assert stop.is_set()
    assert told[-1].startswith(stage)  # not one step more


def test_the_next_operation_of_torch_stops():
    stop = Event()
    with StopWhen(stop):
        assert torch.ones(2).sum() == 2
        stop.set()
        with pytest.raises(Stopped):
            torch.ones(2).sum()
    assert torch.ones(2).sum() == 2
    assert not issubclass(Stopped, Exception)  # PhotoDataset would call the photograph broken


@pytest.mark.parametrize(
    ("name", "content", "wish", "message"),
    [
        ("photo.png", (8, 8), Wish("denoise"), "try Enlarge, 2 times"),
        ("photo.png", (40, 40), Wish("super_resolve", factor=2), "there is nothing to enlarge"),
        ("photo.png", (400, 300), Wish("denoise"), "the limit is 0: reduce it"),
        ("photo.png", (40, 40), Wish("inpaint"), "nothing is painted"),
        ("notes.png", b"no image", Wish("denoise"), "notes.png is not an image that can be read (its format is"),
        ("photo.png", (40, 40), Wish("denoise", noise=-1.0), "the noise is -1.0: give 0 or more"),
    ],
)
def test_bad_input_is_one_line_in_the_words_of_the_page(name, content, wish, message, restoration):
    if isinstance(content, bytes):
        Path(name).write_bytes(content)
    else:
        draw(Path(name), content)
    with pytest.raises(InputError) as error:
        restoration.restore(Path(name), wish, None, quiet, Event())
    line = in_words_of_the_page(str(error.value))
    assert message in line
    assert "--" not in line
    assert "\n" not in line


def test_the_preview_is_the_square_that_the_generator_takes(restoration):
    photo = draw(Path("photo.png"))
    preview = restoration.preview(photo)
    with Image.open(photo) as opened:
        expected = opened.crop((5, 0, 35, 30)).resize((16, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(pixels(preview), pixels(expected))
    with pytest.raises(InputError, match="8x8 pixels"):
        restoration.preview(draw(Path("small.png"), (8, 8)))
    whole = Path("photo.png").read_bytes()
    Path("cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.png cannot be read"):
        restoration.preview(Path("cut.png"))


def test_a_generator_is_measured_once_until_its_file_changes(restoration, tmp_path, monkeypatch):
    """What is kept serves every task, and never another generator, not even in a file of the same size and time."""
    measured = []

    def measure(*arguments):
        measured.append(estimate_gauss_newton_matrix(*arguments))
        return measured[-1]

    monkeypatch.setattr(frozen_generator, "estimate_gauss_newton_matrix", measure)
    path = Path(write_generator(tmp_path))
    weights = torch.load(path, weights_only=True)
    torch.save(weights, path)
    photo, ours = draw(Path("photo.png")), PhotoRestoration(str(path), restoration.limits, restoration.device)

    def restored(restoration, task):
        return pixels(restoration.restore(photo, Wish(task, searches=1), None, quiet, Event()).after)

    first = {task: restored(ours, task) for task in ("colorize", "invert", "deblur")}
    assert len(measured) == 1
    for task, expected in first.items():
        anew = PhotoRestoration(str(path), restoration.limits, restoration.device)
        assert np.array_equal(restored(anew, task), expected)
    assert len(measured) == 4
    times = path.stat()
    for value in weights.values():
        value *= 2
    torch.save(weights, path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == times.st_size
    changed = restored(ours, "invert")
    assert len(measured) == 5
    assert not np.array_equal(changed, first["invert"])
    assert np.array_equal(changed, restored(PhotoRestoration(str(path), ours.limits, ours.device), "invert"))


def test_a_missing_generator_is_one_line():
    with pytest.raises(InputError, match=r"no\.ckpt"):
        PhotoRestoration("no.ckpt", Limits(), torch.device("cpu"))


def test_warming_up_leaves_nothing(restoration, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    restoration.warm_up()
    assert list(tmp_path.iterdir()) == []


def test_every_task_of_the_command_is_offered():
    assert set(NAMES) == set(HINTS) == set(TASKS)
    assert [default_searches(task) for task in ("denoise", "invert", "inpaint", "colorize")] == [1, 1, 8, 8]
    assert factors(64) == [2, 4, 8]
    assert factors(16) == [2]
