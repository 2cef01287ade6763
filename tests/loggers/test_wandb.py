"""W&B unreachable at the start, lost in the middle, or broken: the run continues, warns once, and keeps its log."""

import functools
import logging
import os
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from gan_lightning import DCGAN
from gan_lightning.loggers.metrics_file import MetricsFile
from gan_lightning.loggers.wandb import SteadyWandbLogger
from tests.commands import CONFIGS, fit, read_wandb_records
from tests.conftest import FACES
from tests.modules.test_dcgan import TINY, train
from tests.processes import run

HERE = Path(__file__).parent


@contextmanager
def server(behaviour):
    """Run a stand-in for W&B's server; yield its port and process."""
    process = subprocess.Popen([sys.executable, HERE / "wandb_server.py", behaviour], stdout=subprocess.PIPE, text=True)
    try:
        yield int(process.stdout.readline()), process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def train_online(folder, port, *victims, key="0" * 40, **limits):
    """Train ten steps with W&B's server at a local port; return the process and the seconds it took, by name."""
    environment = {name: None for name in os.environ if name.startswith("WANDB_")}
    environment |= {"WANDB_BASE_URL": f"http://127.0.0.1:{port}", "HOME": str(folder)}
    environment |= {"WANDB_API_KEY": key} if key else {}
    environment |= {f"WANDB_{name.upper()}": str(value) for name, value in limits.items()}
    script = HERE / "train_with_wandb.py"
    result = run(script, folder, *victims, environment=environment, folder=folder, timeout=150)
    seconds = {name: float(value) for name, value in re.findall(r"(\w+) took ([\d.]+)", result.stdout)}
    return result, seconds


def steps_logged(path):
    """Return the steps at which a file of W&B's has a loss."""
    steps = []
    for record in read_wandb_records(path):
        items = {(item.nested_key[0] if item.nested_key else item.key): item.value_json for item in record.history.item}
        if "train/loss_g" in items:
            steps.append(int(items["trainer/global_step"]))
    return steps


def check_whole_log(folder, pattern):
    everything = list(range(1, 11))
    assert [step for step, _ in MetricsFile(folder).history()["train/loss_g"]] == everything
    (path,) = (folder / "wandb").glob(pattern)
    assert steps_logged(path) == everything


@pytest.mark.slow
def test_a_server_unreachable_at_the_start_costs_seconds_and_no_metrics(tmp_path):
    """One server refuses connections and one never answers; both are tried at once to save time."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = free.getsockname()[1]
    folders = [tmp_path / "closed", tmp_path / "silent"]
    for folder in folders:
        folder.mkdir()
    with server("silent") as (silent, _), ThreadPoolExecutor() as executor:
        results = list(executor.map(lambda *given: train_online(*given, init_timeout=2), folders, (closed, silent)))
    for folder, (result, seconds) in zip(folders, results, strict=True):
        assert result.returncode == 0, result.stderr
        said = [line for line in result.stderr.splitlines() if "cannot be reached" in line]
        assert len(said) == 1
        assert "logged offline; upload it later with `wandb sync" in said[0]
        assert seconds["start"] < 2 + 20, "W&B's login takes ten more"
        assert seconds["finish"] < 5
        check_whole_log(folder, "offline-run-*/*.wandb")


@pytest.mark.slow
def test_a_server_that_answers_gets_the_run(tmp_path):
    with server("answering") as (port, _):
        result, _ = train_online(tmp_path, port)
    assert result.returncode == 0, result.stderr
    assert "cannot be reached" not in result.stderr
    assert "wandb sync" not in result.stderr
    check_whole_log(tmp_path, "run-*/*.wandb")


@pytest.mark.slow
def test_a_server_lost_in_the_middle_ends_nothing_and_loses_nothing(tmp_path):
    with server("answering") as (port, process):
        result, seconds = train_online(tmp_path, port, process.pid, finish_timeout=4)
    assert result.returncode == 0, result.stderr
    assert seconds["finish"] < 15
    assert "Use `wandb sync`" in result.stderr
    check_whole_log(tmp_path, "run-*/*.wandb")


@pytest.mark.slow
def test_training_continues_after_wandbs_own_process_dies_and_warns_once(tmp_path):
    with server("answering") as (port, _):
        result, _ = train_online(tmp_path, port, "service")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("training continues; metrics.csv has the metrics") == 1
    assert len(MetricsFile(tmp_path).history()["train/loss_g"]) == 10


def test_a_missing_key_is_reported_before_the_first_step(tmp_path):
    result, _ = train_online(tmp_path, 1, key=None)
    assert result.returncode != 0
    assert "InputError: W&B: No API key configured." in result.stderr
    assert "--trainer.logger.init_args.offline true" in result.stderr
    assert not (tmp_path / "metrics.csv").exists()


@pytest.mark.parametrize("name", ["WandbLogger", "lightning.pytorch.loggers.WandbLogger"])
@pytest.mark.usefixtures("own_folder")
def test_lightnings_own_logger_is_made_steady(faces_root, monkeypatch, name):
    finished = []
    monkeypatch.setattr(SteadyWandbLogger, "finish", lambda self: finished.append(self.experiment.finish()))
    assert fit(faces_root, "--data.count", FACES, "--trainer.logger", name, "--trainer.logger.offline", "true") == 0
    assert len(finished) == 1


class Broken:
    """A run of W&B's whose every method fails."""

    id = name = "broken"

    @property
    def config(self):
        raise OSError("no space left on device\nand more lines")

    def log(self, *arguments, **options):
        raise RuntimeError("broken")

    finish = log_artifact = log


def test_whatever_the_logger_raises_is_reported_once_and_training_continues(tmp_path, caplog):
    logger = SteadyWandbLogger(experiment=Broken(), save_dir=str(tmp_path))
    with caplog.at_level(logging.WARNING, logger="gan_lightning"):
        logger.log_hyperparams({"a": 1})
        trainer = train(DCGAN(**TINY), 4, tmp_path, logger=logger, log_every_n_steps=1)
        logger.log_image("samples", ["no such file"], step=4)
        logger.finish()
    assert trainer.global_step == 4
    said = [record.getMessage() for record in caplog.records if "W&B" in record.getMessage()]
    assert said == ["W&B failed (no space left on device): training continues; metrics.csv has the metrics"]


def test_a_resumed_run_keeps_its_id_online_and_offline(faces_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    identities, original = [], SteadyWandbLogger.__init__

    @functools.wraps(original)
    def noted(self, *args, **kwargs):
        identities.append(kwargs.get("id"))
        original(self, *args, **(kwargs | {"offline": True}))  # no test may wait for a server

    monkeypatch.setattr(SteadyWandbLogger, "__init__", noted)
    logger = ["--data.count", FACES, "--config", CONFIGS / "logger" / "wandb.yaml", "--trainer.logger.offline"]
    fit(faces_root, *logger, "false")
    fit(faces_root, *logger, "false", "--ckpt_path", "last", "--trainer.max_steps", "6")
    fit(faces_root, *logger, "false", name="other")
    fit(faces_root, *logger, "true", name="third")
    fit(faces_root, *logger, "true", "--ckpt_path", "last", "--trainer.max_steps", "6", name="third")
    first, resumed, other, offline, offline_resumed = identities
    assert first is not None
    assert first == resumed != other
    assert offline is not None  # `wandb sync` joins the parts of one id
    assert offline == offline_resumed
    assert offline not in (first, other)
