"""Sweeps: each configuration is run with the very command lines that an agent of W&B builds of it."""

import itertools
import re
from pathlib import Path

import pytest
import wandb
import yaml

from gan_lightning import DCGAN
from gan_lightning.loggers.metrics_file import MetricsFile
from tests.commands import CONFIGS, SMALL, command, finished_wandb_run, refusal
from tests.conftest import FACES
from tests.modules.test_dcgan import TINY, train

pytestmark = pytest.mark.usefixtures("own_folder")

SWEEPS = sorted((CONFIGS / "sweeps").glob("*.yaml"))


def drawn(sweep, place):
    """Return one of the settings that a sweep may draw: the first (0) or the last (-1) value of each parameter."""
    return {
        name: {"value": (p["values"] if "values" in p else [p["min"], p["max"]])[place]}
        for name, p in sweep["parameters"].items()
    }


def words_of_agent(sweep, settings):
    """Return the words that W&B's agent runs, without the program."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    words = create_sweep_command(sweep["command"])
    arguments = create_sweep_command_args({"args": settings})
    whole = [
        ["/usr/bin/env"] if word == "${env}" else arguments["args"] if word == "${args}" else [word] for word in words
    ]
    words = list(itertools.chain.from_iterable(whole))
    assert words[:2] == ["/usr/bin/env", "gan-lightning"]
    return words[2:]


def small(faces_root):
    return [*SMALL, "--data.root", faces_root, "--trainer.max_steps", "2"]


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    """Checkpoint of a small GAN."""
    folder = tmp_path_factory.mktemp("generator")
    trainer = train(DCGAN(**TINY), 1, folder, logger=False)
    trainer.save_checkpoint(folder / "generator.ckpt")
    return folder / "generator.ckpt"


@pytest.fixture
def agent(monkeypatch):
    """The environment that an agent gives to a process; W&B reads it once, so that earlier tests must be forgotten."""
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep-17")
    monkeypatch.setenv("WANDB_RUN_ID", "abcd1234")
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_command_line_of_an_agent_runs_and_the_metric_is_logged(path, place, faces_root, generator):
    sweep = yaml.safe_load(path.read_text())
    words = [*words_of_agent(sweep, drawn(sweep, place)), "--name", "run", "--trainer.logger.offline", "true"]
    if words[0] == "test":
        words += ["--model.generator_ckpt", generator, "--data.root", faces_root, "--data.count", FACES]
        words += ["--data.image_size", 16, "--data.eval_batch_size", 2, "--trainer.limit_test_batches", 1]
        words += ["--model.inversion.num_steps", 2, "--trainer.accelerator", "cpu"]
    else:
        words += small(faces_root)
    assert command(*words) == 0
    measured = sweep["metric"]["name"].replace("fid", "fd_random")  # no Inception weights here
    assert MetricsFile("runs/run").history()[measured]
    given = yaml.safe_load(Path("runs/run/config.yaml").read_text())
    for name, setting in drawn(sweep, place).items():
        value = given
        for part in name.split("."):
            value = value["init_args"][part] if isinstance(value, dict) and "init_args" in value else value[part]
        assert value == setting["value"], name
    _, records = finished_wandb_run(Path("runs/run/wandb"))
    (of_run, *_) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert (of_run.run_id, of_run.run_group) == ("abcd1234", "sweep-17")


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_sweeps_have_seeds_and_nothing_that_the_documentation_advises_against(path):
    sweep = yaml.safe_load(path.read_text())
    names = set(sweep["parameters"])
    assert names & {"seed_everything", "model.seed"}
    penalties = {"model.r1", "model.r2", "model.gradient_penalty"}  # with batch normalization in D
    assert not names & penalties or "model.discriminator_normalization" in names
    assert sweep["method"] in ("grid", "random", "bayes")
    assert sweep["metric"]["goal"] == ("maximize" if "psnr" in sweep["metric"]["name"] else "minimize")
    comments = "\n".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    assert f"wandb sweep configs/sweeps/{path.name}" in comments


def test_at_least_one_sweep_draws_null():
    sweeps = [yaml.safe_load(path.read_text()) for path in SWEEPS]
    words = [word for sweep in sweeps for word in words_of_agent(sweep, drawn(sweep, 0))]
    assert "--model.gradient_clip=None" in words
    assert "--model.inversion.latent_weight=None" in words


def test_a_sweep_with_an_option_that_does_not_exist_is_one_line(faces_root, capsys):
    sweep = yaml.safe_load((CONFIGS / "sweeps" / "rates.yaml").read_text())
    sweep["parameters"] = {"model.learning_rate_g": {"values": [1e-4]}}
    line = refusal(capsys, command(*words_of_agent(sweep, drawn(sweep, 0)), *small(faces_root)))
    assert re.search(r"no option (model\.)?learning_rate_g", line)
    assert not Path("runs").exists()


def test_sweeps_are_no_configurations_of_the_command(capsys):
    line = refusal(capsys, command("fit", "--config", "rates"))
    assert "the configuration rates does not exist" in line
    assert "sweeps" not in line
