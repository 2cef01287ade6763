"""Weights that come with the package, and folders of weights, are taken wherever a checkpoint is."""

import importlib
import json
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gan_lightning import DCGAN, InputError, InversionSettings, LatentRestoration, load_generator
from gan_lightning.images import write_png
from gan_lightning.networks.checkpoints import load_discriminator, load_tensors
from gan_lightning.networks.encoder_checkpoint import load_encoder
from gan_lightning.pretrained import PARTS, SHIPPED, find_weights, shipped_weights, weights_folder, write_weights
from tests.commands import command, refusal

ROOT = Path(__file__).parent.parent
MOST_BYTES = 10_000_000


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run whose weights were made as those of the package are: the checkpoint, and the folder of all weights."""
    folder = tmp_path_factory.mktemp("made")
    model = trained(image_size=16, base_channels=8, latent_dim=8)
    (folder / "run" / "checkpoints").mkdir(parents=True)
    content = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    torch.save(content, folder / "run" / "checkpoints" / "best.ckpt")
    (folder / "run" / "config.yaml").write_text("data:\n  class_path: X\n  init_args:\n    root: /home/me/faces\n")
    metrics = {"val/fd_random": {"first": 261.0, "best": 1.39, "last": 1.5, "best_step": 9}}
    (folder / "run" / "summary.json").write_text(json.dumps({"metrics": metrics, "g_steps": 2500}))
    (folder / "notes.md").write_text("Trained in a hurry.\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        words = [str(folder / "run"), "--weights", str(folder / "weights"), "--notes", str(folder / "notes.md")]
        patch.setattr(sys, "argv", ["make_weights.py", *words])
        importlib.import_module("make_weights").main()
    return folder


@torch.no_grad()
def trained(**options):
    """Return a module whose generator has statistics of its own latents, as after a training, and makes contrasts."""
    torch.manual_seed(0)
    model = DCGAN(**options)
    model.generator.main[-2].weight.mul_(5)
    for _ in range(50):
        model.discriminator(model.generator(torch.randn(64, model.latent_dim)))
    model.generator_ema.load_state_dict(model.generator.state_dict())
    return model


def images_of(generator, count=8):
    return generator(torch.randn(count, generator.latent_dim, generator=torch.Generator().manual_seed(0)))


def test_the_package_has_weights_that_fit_into_its_wheel():
    assert shipped_weights() == ["faces64"]
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*")) < MOST_BYTES
    card = (SHIPPED / "faces64" / "README.md").read_text()
    for heading in ("Data", "Recipe", "Metrics", "Limits", "License"):
        assert f"\n## {heading}\n" in card


def test_each_network_of_the_package_is_loaded_by_its_name():
    generator = load_generator("faces64")
    assert (generator.image_size, generator.training) == (64, False)
    assert {value.dtype for value in generator.parameters()} == {torch.float32}
    images = images_of(generator)
    assert images.dtype == torch.float32
    assert images.std() > 0.1  # faces, not noise around zero
    assert load_discriminator("faces64")(images).shape == (8,)
    guess = load_encoder("faces64", generator)(images)
    assert (generator(guess) - images).square().mean() < (images.mean(0) - images).square().mean()


def test_weights_in_half_precision_make_the_images_of_the_checkpoint(made):
    path = made / "run" / "checkpoints" / "best.ckpt"
    original, ours = images_of(load_generator(path)), images_of(load_generator(made / "weights" / "faces64"))
    assert original.std() > 0.1
    torch.testing.assert_close(ours, original, atol=1e-2, rtol=0)
    assert not ours.equal(original)
    theirs, read = load_discriminator(path), load_discriminator(made / "weights" / "faces64")
    torch.testing.assert_close(read(original), theirs(original), atol=2e-2, rtol=2e-2)
    stored = load_file(made / "weights" / "faces64" / "generator.safetensors")
    assert {value.dtype for value in stored.values() if value.ndim > 1} == {torch.float16}


def test_the_card_tells_how_the_run_trained_and_where_nothing_lies(made):
    card = (made / "weights" / "faces64" / "README.md").read_text()
    assert "| `val/fd_random` | 261 | 1.39 | 1.5 |" in card
    assert "| `base_channels` | 8 |" in card
    assert "\n## Notes\n\nTrained in a hurry.\n\n## Limits\n" in card
    assert "/home/me" not in card + (made / "weights" / "faces64" / "config.yaml").read_text()


def test_weights_out_of_half_precision_are_refused(tmp_path):
    with pytest.raises(InputError, match="not finite in half precision"):
        write_weights(tmp_path / "x.safetensors", {"w": torch.full((2, 2), 1e6)}, {}, half=True)
    assert not list(tmp_path.iterdir())


def test_only_matrices_and_kernels_are_written_in_half_precision(tmp_path):
    """Variances of batch normalization may be too large or too small for it."""
    tensors = {"0.weight": torch.rand(4, 3, 2, 2), "1.running_var": torch.tensor([1e6, 1e-9])}
    write_weights(tmp_path / "x.safetensors", tensors, {}, half=True)
    written = load_file(tmp_path / "x.safetensors")
    assert written["0.weight"].dtype == torch.half
    assert torch.equal(written["1.running_var"], tensors["1.running_var"])


@pytest.mark.usefixtures("own_folder")
def test_what_lies_on_disk_wins_over_a_name(made):
    Path("faces64").mkdir()  # of anything else, as the images of that name
    assert weights_folder("faces64") == SHIPPED / "faces64"
    Path("faces64").rmdir()
    Path("faces64").symlink_to(made / "weights" / "faces64")
    assert load_generator("faces64").image_size == 16
    Path("faces64").unlink()
    Path("faces64").write_bytes((made / "run" / "checkpoints" / "best.ckpt").read_bytes())
    assert load_generator("faces64").image_size == 16


@pytest.mark.usefixtures("own_folder")
def test_an_unknown_name_says_which_there_are():
    for load in (load_generator, load_discriminator, lambda name: LatentRestoration(name)):
        with pytest.raises(InputError, match="no weights faces46: give a path, or one of faces64"):
            load("faces46")


def test_a_file_that_is_not_whole_is_refused_in_one_line(made, tmp_path):
    for part in ("generator", "discriminator"):
        whole = (made / "weights" / "faces64" / f"{part}.safetensors").read_bytes()
        for length in (0, 5, 400, len(whole) - 1):
            (tmp_path / f"{part}.safetensors").write_bytes(whole[:length])
            with pytest.raises(InputError, match="is not a whole checkpoint") as caught:
                (load_generator if part == "generator" else load_discriminator)(tmp_path)
            assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="has no encoder, only generator and discriminator"):
        find_weights(made / "weights" / "faces64", "encoder")


def test_safetensors_of_others_are_read_as_before(tmp_path):
    save_file({"main.0.weight": torch.zeros(2)}, tmp_path / "theirs.safetensors", {"format": "pt"})
    assert list(load_tensors(tmp_path / "theirs.safetensors")) == ["main.0.weight"]


def test_restoration_takes_all_three_networks_by_name():
    settings = InversionSettings(loss="perceptual")
    model = LatentRestoration("faces64", inversion=settings, encoder_ckpt="faces64")
    assert model.discriminator is not None
    assert model.encoder is not None


@pytest.mark.usefixtures("own_folder")
def test_restore_takes_a_generator_by_its_name():
    write_png("face.png", images_of(load_generator("faces64"), 1)[0].detach())
    steps = ["--model.inversion.num_steps", "2", "--model.inversion.refine_steps", "2", "--trainer.accelerator", "cpu"]
    assert command("restore", "face.png", "--generator", "faces64", "--task", "denoise", "--searches", "1", *steps) == 0
    assert Path("restored/face.png").is_file()


@pytest.mark.usefixtures("own_folder")
def test_predict_draws_from_weights_by_name():
    words = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--data.count", "20"]
    assert command("predict", "--config", "quickstart", "--ckpt_path", "faces64", "--num_samples", "3", *words) == 0
    drawn = list(Path("runs").rglob("*.png"))
    assert len(drawn) >= 3


@pytest.mark.usefixtures("own_folder")
def test_a_training_does_not_resume_from_weights(capsys):
    status = command("fit", "--config", "quickstart", "--ckpt_path", "faces64", "--name", "x")
    assert "faces64 has networks, and not the state of a training" in refusal(capsys, status)
    status = command("predict", "--config", "quickstart", "--ckpt_path", "faces46")
    assert "no weights faces46: give a path, or one of faces64" in refusal(capsys, status)
    assert not Path("runs").exists()


@pytest.mark.usefixtures("own_folder")
def test_evaluate_draws_from_weights_by_name(tmp_path):
    import numpy as np

    np.save(tmp_path / "real.npy", np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8))
    words = ["--extractor", "random", "--metrics", "fd", "--output", "metrics.json"]
    assert command("evaluate", tmp_path / "real.npy", "faces64", *words) == 0
    protocol = json.loads(Path("metrics.json").read_text())["metrics"]["fd_random"]["protocol"]
    assert (protocol["fake"]["kind"], protocol["fake"]["images"]) == ("checkpoint", 12)


def test_the_wheel_and_the_sdist_have_the_weights(tmp_path):
    builders = pytest.importorskip("hatchling.builders.wheel"), pytest.importorskip("hatchling.builders.sdist")
    kinds = builders[0].WheelBuilder, builders[1].SdistBuilder
    wheel, sdist = (next(iter(kind(str(ROOT)).build(directory=str(tmp_path)))) for kind in kinds)
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"gan_lightning/weights/faces64/{part}.safetensors" for part in PARTS}
    assert wanted <= names
    import tarfile

    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert wanted <= inside
