"""The study of three losses, its picture, and the small experiments behind docs/losses.md."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from gan_lightning import Generator
from gan_lightning.loggers.metrics_file import MetricsFile
from tests.commands import CONFIGS, SMALL
from tests.conftest import FACES

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def scripts(monkeypatch):
    """Return the two scripts."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    modules = importlib.import_module("loss_study"), importlib.import_module("loss_theory")
    for module in modules:
        monkeypatch.setattr(module, "print_header", lambda *lines: None)  # at exit it prints how long that took
    return modules


def run(script, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *map(str, words)])
    script.main()


def test_there_is_a_configuration_for_each_loss(scripts):
    names = {path.stem for path in (CONFIGS / "experiments" / "losses").glob("*.yaml")}
    assert names == {*scripts[0].LOSSES, "faces32"}


@pytest.mark.drawn
def test_the_study_trains_resumes_and_repeats_nothing(scripts, faces_root, monkeypatch, capsys):
    """Its runs differ in the loss alone, and the experiments invert a generator of it."""
    study, theory = scripts
    small = [*SMALL, "--data.root", faces_root, "--data.count", FACES]
    run(study, monkeypatch, *small, "--trainer.max_steps", 2)
    runs = {name: Path("runs/losses") / name for name in study.LOSSES}
    metrics = {name: MetricsFile(folder).history() for name, folder in runs.items()}
    starts = {name: dict(history["train/loss_d"])[1] for name, history in metrics.items()}
    assert len(set(starts.values())) == 1, "the same networks, images and latents"
    assert len({dict(history["train/loss_g"])[1] for history in metrics.values()}) == 3
    printed = capsys.readouterr().out
    assert [line.split()[1] for line in printed.splitlines() if line.startswith("| ")][-3:] == list(study.LOSSES)
    with Image.open("runs/losses/study.png") as picture:
        assert picture.width == study.WIDTH * study.DPI

    before = {name: (folder / "metrics.csv").read_bytes() for name, folder in runs.items()}
    summary = runs["bce_mse"] / "summary.json"
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"status": "stopped"}))
    called = []
    monkeypatch.setattr(study, "gan_lightning", lambda words: called.append(words) or 0)
    monkeypatch.setattr(study, "draw", lambda *given: None)
    run(study, monkeypatch, *small, "--trainer.max_steps", 2)
    assert [words[-2:] for words in called] == [["--ckpt_path", "last"]]
    assert "experiments/losses/bce_mse" in called[0]
    assert before == {name: (folder / "metrics.csv").read_bytes() for name, folder in runs.items()}
    with pytest.raises(SystemExit, match="of a study with other options: choose another --folder"):
        run(study, monkeypatch, *small, "--trainer.max_steps", 3)

    capsys.readouterr()
    pictures = Path("pictures")
    run(theory, monkeypatch, "--data", faces_root, "--count", FACES, "--folder", pictures, "--scale", 0.01)
    assert capsys.readouterr().out.count("| --- |") == 5
    assert {path.name for path in pictures.iterdir()} == {path.name for path in pictures_of_the_page("losses-")}


def pictures_of_the_page(start):
    """Return the pictures in docs/images that the second script draws."""
    return [path for path in (ROOT / "docs" / "images").glob(f"{start}*.png") if "study" not in path.name]


def test_a_failed_training_ends_the_study(scripts, monkeypatch):
    monkeypatch.setattr(scripts[0], "gan_lightning", lambda words: 2)
    with pytest.raises(SystemExit) as stop:
        run(scripts[0], monkeypatch)
    assert stop.value.code == 2


def test_a_trained_discriminator_is_p_over_p_plus_q(scripts):
    theory = scripts[1]
    p, q = theory.two_modes(1.5, 0.5), torch.distributions.Normal(0.5, 1.2)
    network, values = theory.train_discriminator(p, q, 300, batch=512)
    x = torch.linspace(-2, 2, 50)
    optimal = (q.log_prob(x) - p.log_prob(x)).exp().add(1).reciprocal()
    with torch.no_grad():
        assert (network(x[:, None]).flatten().sigmoid() - optimal).abs().mean() < 0.05
    assert sum(values[-50:]) / 50 == pytest.approx(-1.07, abs=0.05)


def test_the_saturating_gradient_vanishes_where_the_discriminator_wins(scripts):
    torch.manual_seed(0)
    images = torch.rand(64, 3, 16, 16) * 2 - 1
    _, norms, outputs = scripts[1].gradients_while_d_wins(Generator(16, 3, 8, 4), images, 60)
    assert outputs[-1] < 0.1 * outputs[0]
    falls, grows = (norms[name][-1] / norms[name][0] for name in ("saturating", "non_saturating"))
    assert falls < 0.5 * grows


def test_layers_with_an_inverse_are_undone_and_others_are_not(scripts):
    errors = [float(error) for *_, error in scripts[1].invert_layers()]
    assert max(errors[:3]) < 1e-5
    assert min(errors[3:]) > 0.5
