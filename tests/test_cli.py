"""The command line as users type it: every command, every shipped configuration, and invalid input."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning import LightningDataModule, Trainer
from PIL import Image
from torch.utils.data import DataLoader

from gan_lightning import DCGAN
from gan_lightning.callbacks.evaluation import GenerationMetrics
from gan_lightning.commands.restore_options import TASKS
from gan_lightning.loggers.metrics_file import MetricsFile
from tests.commands import CONFIGS, SMALL, command, finished_wandb_run, fit, refusal, restoration_words, restore
from tests.conftest import FACES
from tests.data.test_labels import write_digits
from tests.networks.stylegan2 import REFERENCE
from tests.processes import Process, run, run_ranks

pytestmark = pytest.mark.usefixtures("own_folder")


def test_a_run_writes_all_it_promises(finished):
    assert {path.name for path in finished.iterdir()} == {
        "config.yaml",
        "metrics.csv",
        "summary.json",
        "curves.png",
        "samples",
        "checkpoints",
    }
    written = {path.name for path in (finished / "checkpoints").iterdir()}
    assert written == {"best.ckpt", "last.ckpt", "previous.ckpt"}
    assert sorted(path.name for path in (finished / "samples").iterdir()) == [
        "step-0000000.png",
        "step-0000002.png",
        "step-0000004.png",
    ]
    summary = json.loads((finished / "summary.json").read_text())
    distance = summary["metrics"]["val/fd_random"]
    points = MetricsFile(finished).history()["val/fd_random"]
    assert [step for step, _ in points] == [0, 2, 4]
    assert distance["first"] == points[0][1]
    assert distance["last"] == points[-1][1]
    assert distance["best"] == min(value for _, value in points)
    assert summary["g_steps"] == 4
    assert summary["images_seen"] == 4 * 16
    protocol = summary["protocol"]["val/fd_random"]
    assert protocol | {"dataset": "synthetic_faces", "split": "val", "crop": 178, "num_images": 10} == protocol


def test_the_best_checkpoint_is_the_one_with_the_least_distance(finished):
    points = MetricsFile(finished).history()["val/fd_random"][1:]
    best_step = min(points, key=lambda point: point[1])[0]
    assert torch.load(finished / "checkpoints" / "best.ckpt", weights_only=True)["global_step"] == best_step
    assert torch.load(finished / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4


def test_the_last_checkpoint_is_of_the_last_step_however_bad(faces_root):
    """Here the best distance comes early, and the last step follows the last validation."""
    options = ["--trainer.max_steps", "7", "--model.lr_g", "0.5", "--model.ema_decay", "0"]
    assert fit(faces_root, "--data.count", FACES, *options) == 0
    run = Path("runs/run")
    points = MetricsFile(run).history()["val/fd_random"]
    assert [step for step, _ in points] == [0, 2, 4, 6, 7]
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 7
    best = torch.load(run / "checkpoints/best.ckpt", weights_only=True)["global_step"]
    assert best == min(points[1:-1], key=lambda point: point[1])[0]
    assert best < 6, "the distance must get worse for this test to mean anything"
    assert Path("runs/run/samples/step-0000007.png").is_file()


def test_the_best_checkpoint_is_by_what_is_measured(faces_root, capsys):
    """Only the kernel distance is measured here."""
    options = ["--evaluation.metrics", "[kid]", "--trainer.max_steps", "2"]
    assert fit(faces_root, "--data.count", FACES, *options) == 0
    assert "val/kid_random: " in capsys.readouterr().out.splitlines()[-1]
    assert Path("runs/run/checkpoints/best.ckpt").is_file()


@pytest.mark.parametrize(
    ("metrics", "extractor", "expected"),
    [
        (["fd"], "inception", ("val/fid", "min")),
        (["is", "fd"], "inception", ("val/fid", "min")),
        (["is"], "inception", ("val/is", "max")),
        (["is", "kid"], "inception", ("val/kid", "min")),
        (["kid"], "random", ("val/kid_random", "min")),
        ([], "random", (None, "min")),
    ],
)
def test_the_evaluation_names_the_metric_to_monitor(metrics, extractor, expected):
    assert GenerationMetrics.monitored(metrics, extractor) == expected


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_keeps_its_steps(faces_root, sent):
    arguments = ["fit", "--config", CONFIGS / "quickstart.yaml", *SMALL, "--data.root", faces_root, "--name", "run"]
    arguments += ["--data.count", FACES, "--trainer.max_steps", "100000", "--trainer.val_check_interval", "100000"]
    process = Process("gan_lightning", *arguments)
    metrics, until = MetricsFile("runs/run"), time.monotonic() + 120
    while not metrics.history().get("train/loss_g") and time.monotonic() < until:
        time.sleep(0.2)
    process.send_signal(sent)
    status = process.wait(60)
    assert status == {signal.SIGTERM: 0, signal.SIGINT: 1}[sent]  # asked to end, it ends cleanly
    step = torch.load("runs/run/checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert abs(step - metrics.history()["train/loss_g"][-1][0]) <= 1
    assert f"stopped after step {step}, which was saved: resume it with --ckpt_path last" in process.output()[1]


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_as_if_it_had_never_stopped(faces_root):
    """SIGKILL, as soon as there is a checkpoint; benchmarks/kill_resume.py does it at twenty random moments."""
    more = ["--data.count", FACES, "--trainer.max_steps", "40", "--trainer.val_check_interval", "100"]
    more += ["--last_checkpoint.every_n_steps", "1"]
    assert fit(faces_root, *more, name="whole") == 0
    words = ["fit", "--config", CONFIGS / "quickstart.yaml", *SMALL, "--data.root", faces_root, "--name", "run", *more]
    process = Process("gan_lightning", *words)
    last, until = Path("runs/run/checkpoints/last.ckpt"), time.monotonic() + 120
    while not last.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    process.kill()
    process.wait(60)
    assert torch.load(last, weights_only=True)["global_step"] < 40
    assert fit(faces_root, *more, "--ckpt_path", "last") == 0
    states = [torch.load(f"runs/{name}/checkpoints/last.ckpt", weights_only=True) for name in ("whole", "run")]
    for name, tensor in states[0]["state_dict"].items():
        assert tensor.equal(states[1]["state_dict"][name]), name
    losses = [MetricsFile(f"runs/{name}").history()["train/loss_g"] for name in ("whole", "run")]
    assert losses[0] == losses[1]


def test_a_resumed_run_takes_its_own_learning_rate(faces_root):
    assert fit(faces_root, "--data.count", FACES) == 0
    more = ["--trainer.max_steps", "6", "--ckpt_path", "last", "--model.lr_g", "0.005"]
    assert fit(faces_root, "--data.count", FACES, *more) == 0
    state = torch.load("runs/run/checkpoints/last.ckpt", weights_only=True)
    config = yaml.safe_load(next(Path("runs/run").glob("config-*.yaml")).read_text())["model"]["init_args"]
    assert config["lr_g"] == 0.005
    groups = [optimizer["param_groups"][0] for optimizer in state["optimizer_states"]]
    assert [group["lr"] for group in groups] == [0.005, config["lr_d"]]


def test_the_saved_configuration_is_complete(finished):
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert config["model"]["init_args"]["base_channels"] == 4
    assert config["model"]["init_args"]["objective"] == "non_saturating"
    assert config["data"]["class_path"].endswith("SyntheticFaces")
    assert config["trainer"]["max_steps"] == 4


@pytest.mark.parametrize("name", ["validate", "test"])
def test_a_checkpoint_is_measured_as_it_was_in_training(finished, faces_root, name):
    small = [*SMALL, "--data.count", FACES, "--data.root", faces_root]
    ckpt = finished / "checkpoints" / "last.ckpt"
    assert command(name, "--config", CONFIGS / "quickstart.yaml", *small, "--ckpt_path", ckpt, "--name", "m") == 0
    metrics = json.loads(Path("runs/m/summary.json").read_text())["metrics"]
    measured = metrics["val/fd_random" if name == "validate" else "test/fd_random"]["last"]
    in_training = MetricsFile(finished).history()["val/fd_random"][-1][1]
    if name == "validate":
        assert measured == pytest.approx(in_training, rel=1e-5)
    else:  # compared with other real images
        assert measured != pytest.approx(in_training, rel=1e-5)
        assert measured == pytest.approx(in_training, rel=0.5)


def test_predict_writes_as_many_samples_as_asked_for(finished, faces_root):
    small = [*SMALL, "--data.count", FACES, "--data.root", faces_root]
    ckpt = finished / "checkpoints" / "best.ckpt"
    arguments = ["predict", "--config", CONFIGS / "quickstart.yaml", *small, "--ckpt_path", ckpt]
    for count, name in ((3, "three"), (70, "seventy")):
        assert command(*arguments, "--num_samples", count, "--name", name) == 0
        paths = sorted(Path("runs", name, "samples").iterdir())
        assert [path.name for path in paths] == [f"{index:06d}.png" for index in range(count)]
        with Image.open(paths[0]) as image:
            assert image.size == (16, 16)
    three, seventy = (Path("runs", name, "samples", "000002.png").read_bytes() for name in ("three", "seventy"))
    assert three == seventy


def test_a_run_resumes_from_its_last_checkpoint(faces_root):
    count = ["--data.count", FACES]
    assert fit(faces_root, *count) == 0
    assert fit(faces_root, *count, "--trainer.max_steps", "6", "--ckpt_path", "last") == 0
    run = Path("runs/run")
    assert [step for step, _ in MetricsFile(run).history()["val/fd_random"]] == [0, 2, 4, 6]
    assert len(list(run.glob("config*.yaml"))) == 2
    assert json.loads((run / "summary.json").read_text())["images_seen"] == 6 * 16


def test_a_saved_configuration_runs_again_under_another_name_and_harms_nothing(faces_root):
    wandb_yaml = CONFIGS / "logger" / "wandb.yaml"
    assert fit(faces_root, "--data.count", FACES, "--config", wandb_yaml, name="first") == 0
    before = {path: path.read_bytes() for path in Path("runs/first").rglob("*") if path.is_file()}
    assert command("fit", "--config", "runs/first/config.yaml", "--name", "second") == 0
    after = {path: path.read_bytes() for path in before if "wandb" not in path.parts}
    assert after == {path: content for path, content in before.items() if "wandb" not in path.parts}
    assert Path("runs/second/checkpoints/best.ckpt").is_file()
    assert len(list(Path("runs/second/wandb").glob("offline-run-*"))) == 1
    assert MetricsFile("runs/second").history()["val/fd_random"] == MetricsFile("runs/first").history()["val/fd_random"]


def test_wandb_gets_configuration_metrics_and_grids_offline(faces_root):
    wandb_yaml = CONFIGS / "logger" / "wandb.yaml"
    assert fit(faces_root, "--config", wandb_yaml, "--data.count", FACES) == 0
    assert MetricsFile("runs/run").history()["val/fd_random"]
    folder, records = finished_wandb_run(Path("runs/run/wandb"))
    logged = {item.nested_key[0] if item.nested_key else item.key for r in records for item in r.history.item}
    assert {"val/fd_random", "train/loss_g", "samples"} <= logged
    configured = {item.key for record in records for item in record.config.update} | {
        item.key for record in records for item in record.run.config.update
    }
    assert {"model", "data", "trainer"} <= configured
    assert len(list((folder / "files" / "media").rglob("*.png"))) == 3


TRAINING = [path for path in sorted(CONFIGS.glob("*.yaml")) if path.stem != "encoder"]


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
def test_every_shipped_configuration_runs(path, faces_root, tmp_path):
    root = faces_root / "celeba" / "img_align_celeba" if "folder" in path.stem else faces_root
    count = ["--data.count", FACES] if "SyntheticFaces" in path.read_text() else []  # or it renders thousands
    more = ["--data.split_fractions", "[0.6,0.2,0.2]"] if "folder" in path.stem else []
    if "mnist" in path.stem:
        root = tmp_path
        write_digits(root, [*range(10)] * 20)
        more = ["--data.download", "false", "--data.val_fraction", "0.5", "--evaluation.num_images", "20"]
    assert fit(root, *count, *more, config=path.name) == 0
    assert (tmp_path / "runs/run/checkpoints/best.ckpt").is_file()


def test_the_encoder_configuration_runs_and_its_prediction_starts_a_restoration(finished, faces_root):
    generator = ["--model.generator_ckpt", finished / "checkpoints" / "best.ckpt"]
    small = ["--model.batch_size", "4", "--model.batches_per_epoch", "2", "--model.base_channels", "4"]
    small += ["--trainer.accelerator", "cpu", "--trainer.max_epochs", "1"]
    assert command("fit", "--config", CONFIGS / "encoder.yaml", *generator, *small, "--name", "encoder") == 0
    assert MetricsFile("runs/encoder").history()["val/latent_mse"]
    encoder = ["--model.encoder_ckpt", "runs/encoder/checkpoints/best.ckpt"]
    assert restore(finished, faces_root, "deblur", *encoder) == 0


def test_an_unknown_blur_is_estimated_by_the_documented_command(finished, faces_root):
    assert restore(finished, faces_root, "deblur", "--model.blind_blur", "true") == 0
    assert Path("runs/restored/blur.png").is_file()
    assert "blur_sigma" in Path("runs/restored/images.csv").read_text()


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("invert", ["--model.generator_ckpt", "nowhere.ckpt"], "nowhere.ckpt does not exist"),
        ("inpaint", ["--model.degradation.init_args.hole_size", "20"], "does not lie inside 16 pixels"),
        ("deblur", ["--model.degradation.init_args.sigma", "-1"], "sigma is -1"),
        ("deblur", ["--model.degradation.init_args.sigma", "100"], "must not exceed the image's side"),
        ("super_resolve", ["--model.degradation.init_args.factor", "3"], "does not divide"),
        ("invert", ["--model.masks", "nowhere"], "is neither a folder nor a file"),
        ("invert", ["--model.num_steps", "3"], "model.num_steps has moved: set model.inversion.num_steps instead"),
        (
            "invert",
            ["--config", "old.yaml"],
            "set model.inversion.latent_weight instead",
        ),
        ("invert", ["--model.resize", "centre_crop"], "model.resize has moved: set data.resize of --data Photos"),
        ("invert", ["--model.inversion.num_steps", "-1"], "num_steps is -1: give a whole number of 0 or more"),
        ("invert", ["--data.image_size", "32"], "set data.image_size to 16"),
        ("invert", ["--data.channels", "1"], "set data.channels to 3"),
    ],
)
def test_mistakes_of_a_restoration_are_one_line_before_any_work(finished, faces_root, capsys, name, more, said):
    Path("old.yaml").write_text("model: {init_args: {latent_weight: 0.1}}\n")
    assert restore(finished, faces_root, name, *more) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in error
    assert not Path("runs/restored/restored").exists()


@pytest.mark.slow
def test_two_devices_restore_what_one_does(finished, faces_root):
    more = ["--trainer.limit_test_batches", "null", "--data.eval_batch_size", "4"]
    assert restore(finished, faces_root, "deblur", *more, run="one") == 0
    words = restoration_words(finished, faces_root, "deblur", *more, run="two")
    words += ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    assert [
        rank.returncode for rank in run_ranks("gan_lightning", *words, ranks=2, environment={"OMP_NUM_THREADS": "1"})
    ] == [0, 0]
    names = [sorted(path.name for path in Path(f"runs/{run}/restored").iterdir()) for run in ("one", "two")]
    assert names[0] == names[1]
    figures = [json.loads(Path(f"runs/{run}/summary.json").read_text())["metrics"] for run in ("one", "two")]
    assert figures[0]["test/images"] == figures[1]["test/images"]
    for figure in ("test/psnr", "test/ssim", "test/mse_degraded"):
        assert figures[1][figure]["last"] == pytest.approx(figures[0][figure]["last"], rel=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_every_restoration_runs_and_goes_on_in_its_folder(task, finished, faces_root):
    assert restore(finished, faces_root, task) == 0
    run = Path("runs/restored")
    for folder in ("target", "degraded", "restored", "panel"):
        assert len(list((run / folder).glob("*.png"))) == 2
    assert {"test/psnr", "test/ssim", "test/l1", "test/mse"} <= json.loads((run / "summary.json").read_text())[
        "metrics"
    ].keys()
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["data"]["init_args"]["count"] == FACES, "all options are in one file"
    written = {path: path.stat().st_mtime_ns for path in (run / "restored").glob("*.png")}
    assert restore(finished, faces_root, task) == 0
    assert written == {path: path.stat().st_mtime_ns for path in written}


def test_the_fragment_for_stylegan2_keeps_the_task(capsys):
    fragments = ["--config", "restore/denoise", "--config", "restore/stylegan2", "--data", "Photos"]
    assert command("predict", *fragments, "--model.generator_ckpt", REFERENCE, "--print_config") == 0
    model = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    assert (model["space"], model["inversion"]["start"]) == ("w", "mean")
    assert model["noise"]["init_args"]["sigma"] == 0.1


@pytest.mark.parametrize("data", ["Photos", "ImageFolder"])
def test_predict_restores_a_folder_of_photographs(finished, tmp_path, data):
    for index in range(3):
        color = (40 * index, 90, 200)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.new("RGB", (16, 16), color).save(tmp_path / "photos" / f"own-{index}.png")
    arguments = ["--model.generator_ckpt", finished / "checkpoints" / "best.ckpt", "--trainer.accelerator", "cpu"]
    arguments += ["--model.inversion.num_steps", "3", "--model.inversion.refine_steps", "3"]
    arguments += ["--data", data, "--data.root", "photos"]
    assert command("predict", "--config", CONFIGS / "restore" / "deblur.yaml", *arguments, "--name", "own") == 0
    assert sorted(path.stem for path in Path("runs/own/restored").iterdir()) == [
        f"00000{index}-own-{index}" for index in range(3)
    ]


# -- configuration, as Lightning's documentation says ----------------------------------------------------------------


def printed_config(capsys, *arguments):
    assert command("fit", *arguments, "--print_config") == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_later_configurations_and_arguments_win(capsys, tmp_path):
    (tmp_path / "more.yaml").write_text("model: {init_args: {lr_g: 0.5}}\ntrainer: {max_steps: 3}\n")
    quickstart = CONFIGS / "quickstart.yaml"
    config = printed_config(capsys, "--config", quickstart, "--config", "more.yaml", "--trainer.max_steps", "2")
    assert config["model"]["init_args"]["lr_g"] == 0.5
    assert config["model"]["init_args"]["base_channels"] == 32
    assert config["trainer"]["max_steps"] == 2


def test_shipped_configurations_are_found_by_name_and_a_file_on_disk_wins(capsys, tmp_path):
    named = printed_config(capsys, "--config", "quickstart", "--config", "wandb")
    paths = [CONFIGS / "quickstart.yaml", CONFIGS / "logger" / "wandb.yaml"]
    assert named == printed_config(capsys, *(word for path in paths for word in ("--config", path)))
    (tmp_path / "quickstart").write_text("model: {class_path: DCGAN, init_args: {lr_g: 0.5}}\n")
    assert printed_config(capsys, "--config=quickstart")["model"]["init_args"]["lr_g"] == 0.5


def test_none_of_sweep_agents_is_null_wherever_null_is_allowed(capsys, tmp_path):
    (tmp_path / "sweep.yaml").write_text("trainer: {max_time: None, callbacks: None}\n")
    words = ["--model", "DCGAN", "--model.gradient_clip=None", "--data=ImageFolder", "--data.root=x"]
    words += ["--data.cache_dir=None", "--evaluation.cache_dir=None", "--name=None", "--ckpt_path=None"]
    config = printed_config(capsys, *words, "--trainer.default_root_dir=None", "--config", "sweep.yaml")
    assert config["model"]["init_args"]["gradient_clip"] is None
    assert config["data"]["init_args"]["cache_dir"] is None
    assert config["evaluation"]["cache_dir"] is None
    assert [config[name] for name in ("name", "ckpt_path")] == [None, None]
    assert [config["trainer"][name] for name in ("default_root_dir", "max_time", "callbacks")] == [None] * 3
    assert not Path("None").exists()


@pytest.mark.parametrize("option", ["model.lr_g", "model.objective", "data.batch_size"])
@pytest.mark.parametrize("value", ["None", "null"])
def test_null_is_refused_where_a_value_is_needed(faces_root, capsys, option, value):
    line = refusal(capsys, fit(faces_root, f"--{option}={value}"))
    assert line.endswith(f"{option} is null: give a value, or leave the option out")
    assert not Path("runs").exists()


def test_other_values_are_read_as_sweep_agents_write_them(capsys):
    words = ["--model=DCGAN", "--model.compile=True", "--model.lr_g=1e-05", "--model.betas=[0.5, 0.9]"]
    config = printed_config(capsys, *words, "--evaluation.metrics=['fd', 'kid']", "--trainer.max_epochs=None")
    assert [config["model"]["init_args"][name] for name in ("compile", "lr_g", "betas")] == [True, 1e-5, [0.5, 0.9]]
    assert config["evaluation"]["metrics"] == ["fd", "kid"]


def test_environment_yields_to_configurations_and_these_to_options(capsys, monkeypatch, tmp_path):
    """As Lightning and jsonargparse document it: defaults, environment, --config, options."""
    (tmp_path / "file.yaml").write_text("trainer: {max_steps: 2}\n")
    (tmp_path / "all.yaml").write_text("fit: {trainer: {max_steps: 5, min_steps: 6}}\n")
    words = ["--model", "DCGAN"]

    def steps(*more):
        trainer = printed_config(capsys, *words, *more)["trainer"]
        return trainer["max_steps"], trainer["min_steps"]

    monkeypatch.setenv("PL_CONFIG", "all.yaml")
    assert steps() == (5, 6)
    monkeypatch.setenv("PL_FIT__TRAINER__MAX_STEPS", "1")
    assert steps() == (1, 6)
    assert steps("--config", "file.yaml") == (2, 6)
    assert steps("--config", "file.yaml", "--trainer.max_steps", "3") == (3, 6)
    assert steps("--trainer.max_steps", "3", "--config", "file.yaml") == (2, 6)


def test_the_environment_names_a_run_of_wandb_unless_options_do(faces_root, monkeypatch):
    monkeypatch.setenv("WANDB_NAME", "from-environment")
    monkeypatch.setenv("WANDB_PROJECT", "project-of-environment")
    short = ["--config", CONFIGS / "logger" / "wandb.yaml", "--data.count", FACES, "--trainer.max_steps", "1"]

    def recorded(name, *more):
        assert fit(faces_root, *short, *more, name=name) == 0
        _, records = finished_wandb_run(Path("runs", name, "wandb"))
        (of_run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"][:1]
        return of_run.display_name, of_run.project

    assert recorded("one") == ("from-environment", "project-of-environment")
    options = ["--trainer.logger.name", "given", "--trainer.logger.project", "own"]
    assert recorded("two", *options) == ("given", "own")
    monkeypatch.delenv("WANDB_NAME")
    monkeypatch.delenv("WANDB_PROJECT")
    assert recorded("three") == ("three", "gan-lightning")


def test_the_environment_sets_options_of_classes(capsys, monkeypatch):
    monkeypatch.setenv("PL_FIT__MODEL", '{"class_path": "DCGAN", "init_args": {"lr_g": 0.5, "gradient_clip": "None"}}')
    config = printed_config(capsys)["model"]["init_args"]
    assert [config["lr_g"], config["gradient_clip"]] == [0.5, None]


def test_environment_sets_options(capsys, monkeypatch):
    monkeypatch.setenv("PL_FIT__TRAINER__MAX_STEPS", "17")
    assert printed_config(capsys, "--model", "DCGAN")["trainer"]["max_steps"] == 17


@pytest.mark.parametrize("name", ["ImageFolder", "MNIST", "CelebA", "StreamedImages"])
def test_data_modules_keep_their_own_defaults(capsys, name):
    import inspect

    import gan_lightning

    config = printed_config(capsys, "--model", "DCGAN", "--data", name, "--data.root", "x")["data"]["init_args"]
    for cls in getattr(gan_lightning, name).__mro__:
        for parameter in inspect.signature(cls.__init__).parameters.values() if "__init__" in vars(cls) else ():
            if parameter.name in config and parameter.default is not parameter.empty:
                value = config.pop(parameter.name)
                assert (tuple(value) if isinstance(value, list) else value) == parameter.default, parameter
    assert config == {"root": "x"}


def test_one_batch_is_not_all_batches(capsys):
    value = printed_config(capsys, "--model", "DCGAN", "--trainer.limit_val_batches", "1")["trainer"][
        "limit_val_batches"
    ]
    assert isinstance(value, int)


def test_short_names_and_flat_options_as_sweeps_give_them(capsys):
    config = printed_config(capsys, "--model", "DCGAN", "--model.lr_d=0.001", "--data=ImageFolder", "--data.root=x")
    assert config["model"]["init_args"]["lr_d"] == 0.001
    assert config["data"]["class_path"].endswith("ImageFolder")


def test_printed_configuration_can_be_read_back(capsys, tmp_path):
    first = printed_config(capsys, "--config", CONFIGS / "celeba64.yaml")
    (tmp_path / "printed.yaml").write_text(yaml.safe_dump(first))
    assert printed_config(capsys, "--config", "printed.yaml") == first


def test_help_explains_every_option(capsys):
    assert command("fit", "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    for option in ("--model.lr_g", "--model.penalty_interval", "--data.crop", "--evaluation.num_images", "--name"):
        assert option in text
    assert "Discriminator steps per generator step, each on its own batch" in text


@pytest.mark.parametrize("given", [None, "ACTIVE"])
def test_idle_threads_wait_passively_unless_the_user_wants_otherwise(given):
    """OpenMP reads the policy when torch is imported: what it is at that moment is printed, and the process ends."""
    code = """
import os, sys

class Torch:
    def find_spec(self, name, *_):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"))
            sys.exit()

sys.meta_path.insert(0, Torch())
from gan_lightning.__main__ import main
main(["fit", "--nothing", "3"])
"""
    variables = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    variables |= {"OMP_WAIT_POLICY": given} if given else {}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables, check=True)
    assert result.stdout.strip() == (given or "PASSIVE")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_comes_at_once_and_without_torch(option):
    code = (
        "import sys; from gan_lightning.__main__ import main; status = main([sys.argv[1]]);"
        "assert not {'torch', 'wandb', 'lightning'} & set(sys.modules); sys.exit(status)"
    )
    result = subprocess.run([sys.executable, "-c", code, option], capture_output=True, text=True, timeout=10)
    assert result.returncode == 0, result.stderr
    assert "gan-lightning" in result.stdout


def test_a_fit_without_wandb_does_not_import_it(faces_root):
    script = Path("script.py")
    script.write_text(
        "import sys\nfrom gan_lightning.__main__ import main\nmain()\nassert 'wandb' not in sys.modules\n"
    )
    arguments = ["fit", "--config", CONFIGS / "quickstart.yaml", *SMALL, "--data.root", faces_root]
    result = run(script, *arguments, "--data.count", FACES, "--trainer.max_steps", "1")
    assert result.returncode == 0, result.stderr


# What an ordinary run prints on stderr, in this order.
SAID = r"""Seed set to 0
GPU available: .*
Already packed: .*
10 images are too few to estimate the covariance of 480 features: .*"""
TABLE = r"""
Name           Type           Params  Mode
generator      Generator      [\d.]+ K   train
discriminator  Discriminator  845     train
generator_ema  Generator      [\d.]+ K   eval
[\d,]+ of [\d,]+ parameters are trained"""
MEASURED = r"""
val/fd_random [\d.]+: 10 generated and 10 real images, [\d.]+ s"""


def test_an_ordinary_run_prints_no_needless_line(finished, faces_root):
    """Nothing that the user can do nothing about, no line twice, and no column of zeros."""
    small = ["--config", CONFIGS / "quickstart.yaml", *SMALL, "--data.root", faces_root, "--data.count", FACES]
    small += ["--model.latent_dim", "6"]

    def said(name, *words):
        done = run("gan_lightning", name, *words, "--name", f"said-{name}")
        assert done.returncode == 0, done.stderr
        return done.stderr.strip()

    fit_ends = r"\n`Trainer.fit` stopped: `max_steps=4` reached."
    assert re.fullmatch(SAID + TABLE + 3 * MEASURED + fit_ends, text := said("fit", *small)), text
    checkpoint = "runs/said-fit/checkpoints/last.ckpt"
    loaded = r"\nLoaded model weights from the checkpoint at .*"
    assert re.fullmatch(SAID + loaded + MEASURED, text := said("validate", *small, "--ckpt_path", checkpoint)), text
    tested = MEASURED.replace("val/", "test/")
    assert re.fullmatch(SAID + loaded + tested, text := said("test", *small, "--ckpt_path", checkpoint)), text
    words = ["--model", "DCGAN", "--ckpt_path", checkpoint, "--trainer.accelerator", "cpu"]
    words += ["--trainer.enable_progress_bar", "false"]
    assert re.fullmatch(r"Seed set to 0\nGPU available: .*" + loaded, text := said("predict", *words)), text


# -- what is refused, in one line -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.image_size", "48", "--data.image_size", "48"], "image_size 48 is not supported"),
        (["--data.image_size", "32"], "image_size is 32, the model's 16"),
        (["--data.channels", "1"], "channels is 1, the model's 3"),
        (["--data.batch_size", "500"], "500"),
        (["--evaluation.num_images", "5000"], "5000"),
        (["--evaluation.extractor", "inception", "--evaluation.inception_weights", "w.pth"], "w.pth"),
        (["--model.objective", "hinge", "--model.label_smoothing", "0.1"], "label_smoothing needs"),
        (["--ckpt_path", "absent.ckpt"], "absent.ckpt does not exist"),
        (["--ckpt_path", "last", "--name", "null"], "add --name NAME"),
        (["--ckpt_path", "last", "--name", "never"], "runs/never/checkpoints/last.ckpt does not exist"),
        (["--trainer.precision", "bf16-true"], "precision bf16-true is not supported"),
        (["--trainer.gradient_clip_val", "1"], "gradient"),
        (["--trainer.gradient_clip_val", "-1"], "gradient_clip_val is -1: give 0 or more; of a DCGAN, set model.gra"),
        (["--trainer.val_check_interval", "0"], "val_check_interval is 0: give a number above 0; --trainer.limit_val_"),
        (["--trainer.val_check_interval", "-0.5"], "val_check_interval is -0.5: give a number above 0"),
        (["--trainer.check_val_every_n_epoch", "0"], "check_val_every_n_epoch is 0: give a number above 0"),
        (["--trainer.check_val_every_n_epoch", "-1"], "check_val_every_n_epoch is -1: give a number above 0"),
        (["--trainer.log_every_n_steps", "-1"], "log_every_n_steps is -1: give 0 or more; 0 logs no training metrics"),
        (["--trainer.max_steps", "-2"], "`max_steps` must be a non-negative integer or -1"),
        (["--trainer.devices", "0"], "value is not a valid input using cpu accelerator"),
    ],
)
def test_settings_are_refused_before_the_first_step(faces_root, capsys, options, message):
    assert message in refusal(capsys, fit(faces_root, "--data.count", FACES, *options))
    assert not list(Path().rglob("*.ckpt"))


def test_a_root_that_is_not_there_or_not_celeba_is_refused(capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    for root in ("absent", "empty"):
        assert root in refusal(capsys, fit(tmp_path / root, config="celeba64.yaml", name=root))


def test_an_unknown_configuration_is_refused_with_the_names_of_those_that_ship(capsys):
    for name in ("celeba46", "configs/celeba46.yaml"):
        line = refusal(capsys, command("fit", "--config", name))
        assert f"the configuration {name} does not exist" in line
        assert all(known in line for known in ("celeba64", "restore/deblur", "logger/wandb"))


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("trainer: {logger: {class_path: gan_lightning.wandb_logger.SteadyWandbLogger}}", "wandb_logger"),
        ("trainer: {callbacks: [{class_path: gan_lightning.callbacks.former.Writer}]}", "former"),
        ("data: {class_path: gan_lightning.data.former.CelebA, init_args: {root: x}}", "former"),
        ("model: {class_path: gan_lightning.LatentRestoration, init_args: {former: 3}}", "former"),
    ],
)
def test_a_configuration_of_another_version_is_refused_with_how_to_go_on(capsys, tmp_path, content, name):
    (tmp_path / "old.yaml").write_text(content)
    line = refusal(capsys, command("fit", "--model", "DCGAN", "--config", "old.yaml"))
    assert name in line
    assert line.endswith("see `gan-lightning fit --config quickstart --print_config`")


def test_a_used_run_folder_is_refused_and_kept(finished, faces_root, capsys, monkeypatch):
    monkeypatch.chdir(finished.parent.parent)
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    assert "already holds a run" in refusal(capsys, fit(faces_root, "--data.count", FACES))
    assert before == {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}


def test_other_commands_and_other_runs_keep_out_of_a_used_folder(finished, faces_root, capsys, monkeypatch):
    monkeypatch.chdir(finished.parent.parent)
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    checkpoint = finished / "checkpoints" / "last.ckpt"
    small = [*SMALL, "--data.count", FACES, "--data.root", faces_root, "--name", "run"]
    measured = command("validate", "--config", CONFIGS / "quickstart.yaml", *small, "--ckpt_path", checkpoint)
    assert "already holds a run" in refusal(capsys, measured)
    elsewhere = Path("elsewhere.ckpt")
    elsewhere.write_bytes(checkpoint.read_bytes())
    assert "already holds a run" in refusal(capsys, fit(faces_root, "--data.count", FACES, "--ckpt_path", elsewhere))
    assert before == {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}


def test_validate_refuses_data_of_another_size(finished, faces_root, capsys):
    arguments = ["validate", "--config", CONFIGS / "quickstart.yaml", "--data.root", faces_root, "--data.count", FACES]
    status = command(*arguments, "--ckpt_path", finished / "checkpoints" / "best.ckpt")
    assert "image_size is 64, the model's 16" in refusal(capsys, status)


def test_a_run_folder_that_cannot_be_written_is_refused(faces_root, capsys):
    Path("runs").write_text("a file where the folder should be")
    assert "cannot be written" in refusal(capsys, fit(faces_root, "--data.count", FACES))


def test_a_checkpoint_of_something_else_is_refused(faces_root, capsys):
    torch.save({"weights": torch.zeros(3)}, "other.ckpt")
    Path("text.ckpt").write_text("no checkpoint")
    for name in ("other.ckpt", "text.ckpt"):
        assert name in refusal(capsys, fit(faces_root, "--data.count", FACES, "--ckpt_path", name, name=name))


def test_a_checkpoint_of_another_version_is_refused_with_what_is_unknown(finished, faces_root, capsys):
    content = torch.load(finished / "checkpoints" / "last.ckpt", weights_only=True)
    content["hyper_parameters"]["former_setting"] = 1
    torch.save(content, "old.ckpt")
    line = refusal(capsys, fit(faces_root, "--data.count", FACES, "--ckpt_path", "old.ckpt"))
    assert "old.ckpt is of another model or version: DCGAN has no setting former_setting; give another" in line


def test_a_diverged_run_stops_with_one_line(faces_root, capsys):
    status = fit(faces_root, "--data.count", FACES, "--model.lr_d", "1e30", "--trainer.max_steps", "50")
    assert status == 1
    assert "became NaN or infinite at step" in capsys.readouterr().err


def test_an_unknown_option_is_refused_by_name(capsys):
    assert command("fit", "--model", "DCGAN", "--model.learning_rate", "1") == 2
    assert "learning_rate" in capsys.readouterr().err


def test_the_module_runs_as_the_command_does():
    environment = os.environ | {"PYTHONPATH": str(CONFIGS.parent)}
    arguments = [sys.executable, "-m", "gan_lightning", "--version"]
    result = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=30)
    assert result.stdout.startswith("gan-lightning ")


# -- own models -------------------------------------------------------------------------------------------------------


class Small(DCGAN):
    """A model of a user's own, with fewer options."""

    def __init__(self, width: int = 4):
        super().__init__(image_size=16, latent_dim=6, base_channels=width)


def test_a_subclass_with_options_of_its_own_trains_and_resumes(faces_root):
    words = [
        "--model",
        f"{__name__}.Small",
        "--data",
        "SyntheticFaces",
        "--data.root",
        faces_root,
        "--data.count",
        FACES,
    ]
    words += ["--data.image_size", 16, "--data.batch_size", 8, "--evaluation.extractor", "random", "--name", "fit"]
    words += ["--evaluation.num_images", 6, "--trainer.accelerator", "cpu", "--trainer.val_check_interval", 1]
    assert command("fit", *words, "--trainer.max_steps", 2) == 0
    assert command("fit", *words, "--trainer.max_steps", 3, "--ckpt_path", "last") == 0
    assert torch.load("runs/fit/checkpoints/last.ckpt", weights_only=True)["global_step"] == 3


class Passing(DCGAN):
    """A model of a user's own that hands its parent's options on, and saves its own.

    Args:
        extra: An option of its own.
        kwargs: Options of DCGAN.
    """

    def __init__(self, extra: float = 0.5, **kwargs):
        super().__init__(**kwargs)
        self.save_hyperparameters()
        self.extra = extra


def test_a_subclass_that_passes_options_on_trains_resumes_is_measured_and_sampled(faces_root):
    small = ["--model.image_size", 16, "--model.latent_dim", 6, "--model.base_channels", 4, "--model.extra", 0.25]
    data = ["--data", "SyntheticFaces", "--data.root", faces_root, "--data.count", FACES, "--data.image_size", 16]
    data += ["--data.batch_size", 8, "--evaluation.extractor", "random", "--evaluation.num_images", 6]
    words = ["--model", f"{__name__}.Passing", "--trainer.accelerator", "cpu"]
    train = ["fit", *words, *small, *data, "--name", "own", "--trainer.val_check_interval", 1, "--trainer.max_steps"]
    assert command(*train, 2) == 0
    assert command(*train, 3, "--ckpt_path", "last") == 0
    checkpoint = Path("runs/own/checkpoints/last.ckpt")
    content = torch.load(checkpoint, weights_only=True)
    assert content["global_step"] == 3
    assert content["hyper_parameters"]["extra"] == 0.25
    assert command("validate", *words, *data, "--ckpt_path", checkpoint, "--name", "v") == 0
    assert command("predict", *words, "--ckpt_path", checkpoint, "--num_samples", 3, "--name", "p") == 0
    assert len(list(Path("runs/p/samples").iterdir())) == 3


@pytest.mark.parametrize("kind", [Small, Passing])
def test_a_subclass_that_was_trained_in_python_is_sampled_by_the_command_line(kind):
    """Its checkpoint has the arguments of its parent's constructor too, which a command must not give it."""
    model = kind() if kind is Small else kind(0.25, image_size=16, latent_dim=6, base_channels=4)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_steps=1, limit_val_batches=0, **quiet)
    trainer.fit(model, Batches().train_dataloader())
    trainer.save_checkpoint("own.ckpt")
    words = ["--model", f"{__name__}.{type(model).__name__}", "--ckpt_path", "own.ckpt", "--trainer.accelerator", "cpu"]
    assert command("predict", *words, "--num_samples", 2, "--name", "p") == 0
    images = [Path(f"runs/p/samples/00000{index}.png").read_bytes() for index in range(2)]
    assert images[0] != images[1]


class Batches(LightningDataModule):
    """Data of a user's own: batches alone."""

    def train_dataloader(self):
        images = torch.rand(16, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
        return DataLoader([{"image": image} for image in images], batch_size=8)

    def val_dataloader(self):
        return self.train_dataloader()


class MeasurableBatches(Batches):
    """Data of a user's own, with what the metrics need, as docs/data.md says."""

    def real_images(self, split):
        return RealImages()

    def protocol(self, split):
        return {"dataset": "own", "split": split, "content": "first version"}


class RealImages:
    def __len__(self):
        return 16

    def read(self, positions):
        images = [np.random.default_rng(position).integers(0, 256, (3, 16, 16), np.uint8) for position in positions]
        return torch.from_numpy(np.stack(images))


OWN_DATA = ["--model", "DCGAN", "--model.image_size", 16, "--model.base_channels", 4, "--model.latent_dim", 6]
OWN_DATA += ["--evaluation.extractor", "random", "--evaluation.num_images", 10, "--trainer.accelerator", "cpu"]


def test_own_data_train_and_one_line_says_what_is_left_out(capsys, caplog):
    words = [*OWN_DATA, "--data", f"{__name__}.Batches"]
    assert command("fit", *words, "--trainer.max_steps", 4, "--name", "own") == 0
    (said,) = [record.getMessage() for record in caplog.records if "real_images" in record.getMessage()]
    assert said.startswith("Batches has no real_images(split): nothing is measured, and no best checkpoint is chosen")
    run = Path("runs/own")
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"last.ckpt", "previous.ckpt"}
    history = MetricsFile(run).history()
    assert history["train/loss_d"]
    assert history["val/d_x"]
    for name in ("validate", "test"):
        measured = command(name, *words, "--ckpt_path", run / "checkpoints/last.ckpt", "--name", name)
        assert "real_images(split) and protocol(split)" in refusal(capsys, measured)


def test_own_data_with_real_images_are_measured():
    words = [*OWN_DATA, "--data", f"{__name__}.MeasurableBatches"]
    assert command("fit", *words, "--trainer.max_steps", 4, "--name", "own") == 0
    assert Path("runs/own/checkpoints/best.ckpt").is_file()
    measured = command("validate", *words, "--ckpt_path", "runs/own/checkpoints/last.ckpt", "--name", "v")
    assert measured == 0
    values = [MetricsFile(f"runs/{name}").history()["val/fd_random"][-1][1] for name in ("own", "v")]
    assert values[1] == pytest.approx(values[0], rel=1e-4)


def test_options_before_other_words_win_over_a_resumed_checkpoint(faces_root):
    """A configuration after the option, and a name that equals the command."""
    assert fit(faces_root, "--data.count", FACES, name="fit") == 0
    words = [
        "fit",
        "--model",
        "DCGAN",
        "--model.label_smoothing",
        "0.1",
        "--config",
        CONFIGS / "quickstart.yaml",
        *SMALL,
    ]
    words += ["--data.root", faces_root, "--data.count", FACES, "--trainer.max_steps", "5", "--ckpt_path", "last"]
    assert command(*words, "--name", "fit") == 0
    options = torch.load("runs/fit/checkpoints/last.ckpt", weights_only=True)["hyper_parameters"]
    assert (options["label_smoothing"], options["lr_g"]) == (0.1, 5e-4)  # the configuration sets the rate alone


def test_networks_of_a_resumed_run_cannot_change(finished, faces_root, capsys):
    more = ["--ckpt_path", finished / "checkpoints" / "last.ckpt", "--model.base_channels", "8"]
    line = refusal(capsys, fit(faces_root, "--data.count", FACES, *more))
    assert "model.base_channels is 8, but" in line
    assert "was trained with 4: the networks of a checkpoint cannot be changed" in line
    assert not Path("runs").exists(), "refused before the folder is made"
