"""Pictures of the latent space, by the command line."""

import csv

import pytest
import torch
from PIL import Image

from gan_lightning import InputError, StyleGAN2
from gan_lightning.callbacks.latent_space import LatentSpace, render
from tests.commands import CONFIGS, command, refusal
from tests.conftest import FACES


def words(finished, faces_root, *more, name="drawn"):
    given = ["predict", "--config", CONFIGS / "quickstart.yaml", "--ckpt_path", finished / "checkpoints" / "best.ckpt"]
    given += ["--data.root", faces_root, "--data.count", FACES, "--data.image_size", "16"]
    given += ["--trainer.enable_progress_bar", "false", "--num_samples", 1, "--name", name]
    return [*given, "--trainer.callbacks+=LatentSpace", "--trainer.callbacks.num_images", 3, *more]


def test_predict_draws_the_latent_space(finished, faces_root, own_folder, tmp_path):
    more = ["--trainer.callbacks.steps", 5, "--trainer.callbacks.neighbors", 2]
    assert command(*words(finished, faces_root, *more)) == 0
    folder = tmp_path / "runs" / "drawn" / "latent_space"
    with Image.open(folder / "interpolations.png") as grid:
        assert grid.size == (5 * 18 + 2, 3 * 18 + 2)
    with Image.open(folder / "animation.gif") as animation:
        assert animation.is_animated
        assert 40 <= animation.n_frames <= 48  # equal frames are joined
    with Image.open(folder / "neighbors.png") as picture:
        assert picture.height == 14 + 3 * 18 + 2
    assert (folder / "truncation.png").is_file()
    with (folder / "neighbors.csv").open() as file:
        rows = list(csv.DictReader(file))
    samples = [row for row in rows if row["image"] == "sample"]
    assert len(samples) == 6
    assert {row["image"] for row in rows} == {"sample", "held out"}
    for near, far in zip(samples[::2], samples[1::2], strict=True):
        assert 0 < float(near["distance"]) <= float(far["distance"])


def test_what_cannot_be_drawn_is_refused(finished, faces_root, own_folder, capsys):
    line = refusal(capsys, command(*words(finished, faces_root, "--trainer.callbacks.steps", 1)))
    assert "steps is 1: an interpolation has two ends" in line
    more = ["--trainer.callbacks.neighbors", 2, "--data.image_size", "32"]
    line = refusal(capsys, command(*words(finished, faces_root, *more, name="sizes")))
    assert "image_size" in line
    for options in ({"extractor": "vgg"}, {"num_images": 0}, {"neighbors": -1}):
        with pytest.raises(InputError, match=next(iter(options))):
            LatentSpace(**options)


def test_truncation_moves_latents_towards_the_mean():
    torch.manual_seed(0)
    module = StyleGAN2(16, latent_dim=4, base_channels=4, max_channels=4, w_dim=4, mapping_layers=1)
    latents = torch.randn(3, 1, 4)
    with torch.no_grad():
        one, other = (render(module, given, 0.0) for given in (latents, latents + 1))
        assert (render(module, latents) - render(module, latents + 1)).abs().max() > 1e-4
    torch.testing.assert_close(one, other)
