"""A training from Python has the metrics, pictures and checkpoints of one from the command line."""

import csv
import json

import torch
from lightning import Trainer
from torch.utils.data import DataLoader

import gan_lightning
from gan_lightning import DCGAN, GenerationMetrics, InputError, MetricsFile, SampleGrid, SyntheticFaces, callbacks
from gan_lightning.__main__ import main
from gan_lightning.callbacks import default_callbacks
from gan_lightning.callbacks.network_table import NetworkTable
from gan_lightning.cli import GanCLI
from gan_lightning.options.saved import RunConfig
from tests.conftest import FACES
from tests.modules.test_dcgan import BATCH, TINY, Noise

QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1}


def fit(folder, faces_root, steps, ckpt_path=None):
    torch.manual_seed(0)
    evaluation = GenerationMetrics(num_images=6, extractor="random")
    trainer = Trainer(
        max_steps=steps,
        val_check_interval=2,
        default_root_dir=folder,
        logger=MetricsFile(folder),
        callbacks=default_callbacks(evaluation, sample_grid=SampleGrid(4), progress_bar=False),
        **QUIET,
    )
    data = SyntheticFaces(str(faces_root), count=FACES, image_size=16, batch_size=8)
    trainer.fit(DCGAN(**TINY), datamodule=data, ckpt_path=ckpt_path)
    return trainer


def test_a_run_from_python_leaves_what_one_of_the_command_line_does(tmp_path, faces_root):
    fit(tmp_path, faces_root, 4)
    for name in ("metrics.csv", "summary.json", "curves.png", "checkpoints/best.ckpt", "checkpoints/last.ckpt"):
        assert (tmp_path / name).is_file(), name
    assert {path.name for path in (tmp_path / "samples").iterdir()} == {f"step-{n:07d}.png" for n in (0, 2, 4)}
    best = min(json.loads((tmp_path / "summary.json").read_text())["metrics"]["val/fd_random"]["best_step"], 4)
    state = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert state["global_step"] == (best or 2)  # untrained networks are measured, but not saved
    assert fit(tmp_path, faces_root, 6, tmp_path / "checkpoints" / "last.ckpt").global_step == 6
    with (tmp_path / "metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["val/fd_random"]]
    assert steps == [0, 2, 4, 6]


def test_the_command_line_has_the_same_callbacks(tmp_path, faces_root, monkeypatch):
    seen, instantiate_trainer = [], GanCLI.instantiate_trainer

    def see(cli, **options):
        seen.extend(type(callback) for callback in instantiate_trainer(cli, **options).callbacks)
        raise InputError("seen")

    monkeypatch.setattr(GanCLI, "instantiate_trainer", see)
    monkeypatch.chdir(tmp_path)
    options = ["--model", "DCGAN", "--data", "SyntheticFaces", "--data.root", str(faces_root)]
    assert main(["fit", *options, "--evaluation.extractor", "random", "--trainer.accelerator", "cpu"]) == 2
    ours = {type(callback) for callback in default_callbacks(GenerationMetrics(extractor="random"))}
    assert ours <= set(seen)
    assert {kind for kind in seen if kind.__module__.startswith("gan_lightning")} <= {
        *ours,
        RunConfig,
        NetworkTable,
    }  # which replaces Lightning's own


def test_without_metrics_any_data_will_do(tmp_path):
    trainer = Trainer(
        max_steps=3, default_root_dir=tmp_path, callbacks=default_callbacks(None, progress_bar=False), **QUIET
    )
    trainer.fit(DCGAN(**TINY), *[DataLoader(Noise(), batch_size=BATCH)] * 2)
    assert {path.name for path in tmp_path.rglob("*.ckpt")} >= {"last.ckpt"}


def test_a_plain_trainer_counts_iterations_of_the_generator(tmp_path):
    """Without a list of callbacks one has Lightning's: a checkpoint for each epoch, and its logger."""
    trainer = Trainer(max_steps=5, default_root_dir=tmp_path, **QUIET)
    trainer.fit(DCGAN(**TINY, d_steps=2), DataLoader(Noise(BATCH * 20), batch_size=BATCH))
    (path,) = tmp_path.rglob("*.ckpt")
    assert path.name == "epoch=0-step=5.ckpt"
    assert torch.load(path, weights_only=True)["global_step"] == 5
    (file,) = tmp_path.rglob("metrics.csv")
    with file.open() as lines:
        assert [int(row["step"]) for row in csv.DictReader(lines)] == [1, 2, 3, 4, 5]


def test_callbacks_are_public_in_both_places():
    for name in callbacks.__all__:
        assert getattr(gan_lightning, name) is getattr(callbacks, name)
