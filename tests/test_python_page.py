"""Every snippet of docs/python.md runs as it stands, on a smaller scale, and does what the page says."""

import re
from pathlib import Path

import pytest
import torch

from tests.conftest import FACES

ROOT = Path(__file__).parent.parent
SECTIONS = re.split(r"^## ", (ROOT / "docs" / "python.md").read_text(), flags=re.MULTILINE)[1:]
SNIPPETS = {
    f"{section.splitlines()[0]} {number}": snippet
    for section in SECTIONS
    for number, snippet in enumerate(re.findall(r"```python\n(.*?)```", section, re.DOTALL))
}
SMALLER = {  # what the page says -> a few steps of small networks on a few images
    "max_steps=10_000": "max_steps=4, accelerator='cpu', log_every_n_steps=1",
    "val_check_interval=1000": "val_check_interval=2",
    "(image_size=64": "(base_channels=4, image_size=16",
    ", image_size=64)": ", image_size=16, batch_size=16)",
    "MarginGAN(margin=0.5, image_size=16, batch_size=16)": "MarginGAN(margin=0.5, base_channels=4, image_size=16)",
    "UpsamplingGAN(width=32, image_size=16, batch_size=16)": "UpsamplingGAN(width=8, base_channels=4, image_size=16)",
    '"data/synthetic"': f'"data/synthetic", count={FACES}',
    "(3, 64, 64)": "(3, 16, 16)",
    "image_size=64, batch_size=64": "image_size=16, batch_size=16",
    "num_images=1000": "num_images=6",
    "default_callbacks(": "default_callbacks(progress_bar=False, evaluation=",
    "progress_bar=False, evaluation=None, monitor": "evaluation=None, progress_bar=False, monitor",
}


def files(folder):
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}


def check_run(names):
    made = files("runs/first")
    assert {"metrics.csv", "summary.json", "curves.png", "checkpoints/best.ckpt", "checkpoints/last.ckpt"} <= made
    assert "samples/step-0000004.png" in made


def check_loss(names):
    assert names["loaded"].margin == 0.5
    assert names["loaded"].image_size == 16
    logits = torch.tensor([0.2]), torch.tensor([-1.0])
    assert float(names["model"].objective.discriminator(*logits)) == pytest.approx(0.3)


def check_networks(names):
    assert type(names["generator"]).__name__ == "Upsampler"
    assert names["generator"].width == 8
    assert names["restored"].shape == (1, 3, 16, 16)
    known = [names["hole"](names[name]) for name in ("restored", "image")]
    torch.testing.assert_close(*known, rtol=0, atol=1e-4)


def check_data(names):
    assert names["trainer"].global_step == 4


def check_schedule(names):
    rates = [rate for _, rate in names["logger"].history()["lr-Adam"]]
    assert rates == pytest.approx([2e-4 * (1 - 0.9 * step / 4) for step in range(4)])
    assert names["trainer"].optimizers[0].param_groups[0]["lr"] == pytest.approx(2e-5)


def check_metric(names):
    checkpoint = names["trainer"].checkpoint_callback
    assert checkpoint.monitor == "val/diversity"
    assert float(checkpoint.best_model_score) > 0
    assert [step for step, _ in names["trainer"].loggers[0].history()["val/diversity"]] == [2, 4]


CHECKS = {
    "A run 0": check_run,
    "A loss of your own 0": check_loss,
    "Networks of your own 0": check_networks,
    "Data of your own 0": check_data,
    "Data of your own 1": check_data,
    "A schedule of your own 0": check_schedule,
    "A metric of your own 0": check_metric,
}


def test_the_page_has_the_snippets_that_are_checked():
    assert SNIPPETS.keys() == CHECKS.keys()


@pytest.mark.parametrize("name", SNIPPETS)
@pytest.mark.usefixtures("own_folder")
def test_a_snippet_runs(name, faces_root):
    Path("data").mkdir()
    Path("data/synthetic").symlink_to(faces_root)
    Path("data/photos").symlink_to(faces_root / "celeba" / "img_align_celeba")
    snippet = SNIPPETS[name]
    for said, small in SMALLER.items():
        snippet = snippet.replace(said, small)
    names = {"__name__": "snippet"}
    exec(snippet, names)  # as the reader would
    CHECKS[name](names)
