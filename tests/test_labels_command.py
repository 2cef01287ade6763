"""The command line with labels: the shipped configuration from training to restoration."""

import csv

import numpy as np
import pytest
from PIL import Image

from tests.commands import CONFIGS, command, refusal
from tests.data.test_labels import write_digits
from tests.processes import run_ranks

pytest.importorskip("torchvision")
SMALL = ["--model.image_size", "16", "--data.image_size", "16", "--model.base_channels", "4", "--data.batch_size", "16"]
SMALL += ["--evaluation.num_images", "20", "--trainer.max_steps", "4", "--trainer.val_check_interval", "2"]
SMALL += ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--data.download", "false"]
SMALL += ["--data.val_fraction", "0.5", "--sample_grid.num_images", "25"]
CONFIG = ["--config", CONFIGS / "mnist_conditional.yaml"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """MNIST's files with 200 digits each."""
    root = tmp_path_factory.mktemp("digits")
    write_digits(root, [*range(10)] * 20)
    return root


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """Folder of a run of four steps."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["gan-lightning"])
        patch.delenv("GAN_LIGHTNING_RUN", raising=False)
        assert command("fit", *CONFIG, *SMALL, "--data.root", digits, "--name", "digits") == 0
    return folder / "runs" / "digits"


def test_fit_measures_each_class_and_draws_a_row_for_each(trained):
    with (trained / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    last = next(row for row in reversed(rows) if row["val/fd_random"])
    assert all(float(last[f"val/fd_random/{digit}"]) > 0 for digit in range(10))
    with Image.open(trained / "samples" / "step-0000004.png") as grid:
        assert grid.height == 14 + 2 + 10 * 18  # a title, and ten rows of 16 pixels


def predict_words(trained, *more, name):
    ckpt = trained / "checkpoints" / "best.ckpt"
    small = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--data.image_size", "16"]
    return ["predict", *CONFIG, *small, "--ckpt_path", ckpt, "--name", name, *more]


def predict(trained, *more, name="drawn"):
    return command(*predict_words(trained, *more, name=name))


def test_predict_draws_the_classes_that_are_asked_for(trained, own_folder, tmp_path):
    assert predict(trained, "--labels", "3", "--num_samples", 2) == 0
    assert predict(trained, "--labels", "7,3", "--num_samples", 3, name="two") == 0
    assert predict(trained, "--labels", "[7, 3]", "--num_samples", 3, name="list") == 0
    assert predict(trained, "--num_samples", 11, name="all") == 0
    files = {
        name: sorted(path.stem for path in (tmp_path / "runs" / name / "samples").iterdir())
        for name in ("drawn", "two", "list", "all")
    }
    assert files["drawn"] == ["000000-3", "000001-3"]
    assert files["two"] == files["list"] == ["000000-7", "000001-3", "000002-7"]
    by_class = np.asarray(Image.open("runs/two/samples_by_class.png"))
    for row, name in enumerate(["000001-3", "000000-7"]):
        image = np.asarray(Image.open(f"runs/two/samples/{name}.png"))
        top = 2 + row * (len(image) + 2)
        assert (by_class[top : top + len(image), 2:-2] == image).all(), "a row for each class, as many of each"
    assert files["all"][-2:] == ["000009-9", "000010-0"]
    images = [(tmp_path / "runs" / name / "samples" / f"000001-{label}.png").read_bytes() for name, label in
              (("drawn", 3), ("two", 3), ("all", 1))]  # fmt: skip
    assert images[0] == images[1] != images[2]


@pytest.mark.slow
def test_two_ranks_draw_the_grid_of_one(trained, own_folder, tmp_path):
    words = ["--num_samples", 7, "--labels", "7,3,5"]
    assert predict(trained, *words, name="one") == 0
    words = [*predict_words(trained, *words, name="two"), "--trainer.devices", 2, "--trainer.strategy", "ddp"]
    environment = {"OMP_NUM_THREADS": "1"}
    assert [rank.returncode for rank in run_ranks("gan_lightning", *words, ranks=2, environment=environment)] == [0, 0]
    one, two = (tmp_path / "runs" / name for name in ("one", "two"))
    names = sorted(path.name for path in (one / "samples").iterdir())
    assert names == sorted(path.name for path in (two / "samples").iterdir())
    for name in (*(f"samples/{name}" for name in names), "samples_by_class.png"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_labels_that_do_not_exist_are_refused(trained, finished, own_folder, capsys):
    line = refusal(capsys, predict(trained, "--labels", "12"))
    assert line.endswith("the model has no class '12': choose one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9")
    words = [
        "--config",
        CONFIGS / "quickstart.yaml",
        "--data.image_size",
        "16",
        "--ckpt_path",
        finished / "checkpoints" / "best.ckpt",
    ]
    line = refusal(capsys, command("predict", *words, "--labels", "3", "--name", "none"))
    assert line.endswith("this model was trained without labels: leave labels out")


def test_data_without_labels_are_refused(digits, own_folder, capsys):
    words = ["fit", *CONFIG, *SMALL, "--data.root", digits]
    line = refusal(capsys, command(*words, "--data.labels", "false"))
    assert "per_class needs a model and data with labels: set model.num_classes and data.labels" in line
    words += ["--evaluation.per_class", "false"]
    line = refusal(capsys, command(*words, "--data.labels", "false"))
    assert "the model has 10 classes, but the data have no labels: set data.labels" in line
    line = refusal(capsys, command(*words, "--model.num_classes", "0"))
    assert "the data have labels of 10 classes, but the model has none: set model.num_classes to 10" in line


def test_a_photograph_is_restored_with_its_label(trained, own_folder, tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("L", (16, 16), 40).save(photos / "a.png")
    words = ["predict", "--config", CONFIGS / "restore" / "denoise.yaml", "--data", "Photos", "--data.root", photos]
    words += ["--model.generator_ckpt", trained / "checkpoints" / "best.ckpt", "--trainer.accelerator", "cpu"]
    words += ["--model.inversion.num_steps", "2", "--model.inversion.refine_steps", "2"]
    assert command(*words, "--model.label", "4", "--name", "restored") == 0
    assert list((tmp_path / "runs" / "restored").rglob("*a.png"))
    line = refusal(capsys, command(*words, "--name", "unlabeled"))
    assert "this generator has 10 classes: set label to one of 0, 1, 2" in line
    line = refusal(capsys, command(*words, "--model.label", "cat", "--name", "unknown"))
    assert "the model has no class 'cat'" in line
    line = refusal(capsys, command(*words, "--model.label", "4", "--labels", "4", "--name", "both"))
    assert "labels choose the classes of samples: of a restoration, set model.label instead" in line
