"""What commands do with a run: its own checkpoints, other data, other metrics, trials, loggers, several processes."""

import contextlib
import json
import logging
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from gan_lightning import DCGAN
from gan_lightning.loggers.metrics_file import MetricsFile
from tests.commands import CONFIGS, SMALL, command, finished_wandb_run, fit, refusal
from tests.conftest import FACES
from tests.processes import run_ranks

pytestmark = pytest.mark.usefixtures("own_folder")


def train(faces_root, *more, **options):
    return fit(faces_root, "--data.count", FACES, *more, **options)


def measure(name, faces_root, *more):
    small = [*SMALL, "--data.count", FACES, "--data.root", faces_root]
    return command(name, "--config", CONFIGS / "quickstart.yaml", *small, *more)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- checkpoints of a run ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["validate", "test", "predict"])
def test_untrained_networks_are_measured_only_if_asked_for(faces_root, capsys, name):
    assert f"{name} needs trained networks" in refusal(capsys, measure(name, faces_root, "--name", "m"))
    assert not Path("runs").exists()
    assert measure(name, faces_root, "--name", "m", "--ckpt_path", "untrained") == 0


@pytest.mark.parametrize("which", ["last", "best"])
def test_a_runs_own_checkpoint_is_measured_inside_its_folder(copied_run, faces_root, capsys, which):
    before = contents(copied_run)
    for _ in range(2):
        assert measure("validate", faces_root, "--name", "run", "--ckpt_path", which) == 0
    first, second = sorted(copied_run.glob(f"validate-{which}-*"))
    assert f"The results are in runs/run/validate-{which}-" in capsys.readouterr().out
    step = torch.load(copied_run / "checkpoints" / f"{which}.ckpt", weights_only=True)["global_step"]
    expected = dict(MetricsFile(copied_run).history()["val/fd_random"])[step]
    for folder in (first, second):
        metrics = json.loads((folder / "summary.json").read_text())["metrics"]
        assert metrics["val/fd_random"]["last"] == pytest.approx(expected, rel=1e-5)
    assert before == {path: path.read_bytes() for path in before}
    assert train(faces_root, "--ckpt_path", "last", "--trainer.max_steps", "5") == 0


def test_mistakes_in_the_name_of_a_checkpoint_are_one_line(copied_run, faces_root, capsys):
    for given, said in (
        (["--ckpt_path", "best"], "--ckpt_path best needs the run that it belongs to: add --name NAME"),
        (["--ckpt_path", "best", "--name", "never"], "runs/never/checkpoints/best.ckpt does not exist"),
        (["--ckpt_path", "runs/run", "--name", "m"], "is a folder: give a checkpoint in it, such as runs/run/checkp"),
        (["--ckpt_path", "http://127.0.0.1:9/x.ckpt", "--name", "m"], "x.ckpt cannot be fetched"),
    ):
        assert said in refusal(capsys, measure("validate", faces_root, *given))
    assert not Path("runs/never").exists()


def test_the_end_of_a_run_without_validation_is_its_best(faces_root, recwarn):
    more = ["--trainer.max_steps", "2", "--trainer.val_check_interval", "100"]
    assert train(faces_root, *more) == 0
    assert torch.load("runs/run/checkpoints/best.ckpt", weights_only=True)["global_step"] == 2
    assert not [str(warning.message) for warning in recwarn if "monitor" in str(warning.message)]


# -- resumed on other data, or measured in another way ----------------------------------------------------------------


@pytest.mark.drawn  # the curves too are as before
def test_a_run_is_not_resumed_on_other_images(copied_run, faces_root, capsys, caplog):
    before = contents(copied_run)
    more = ["--ckpt_path", "last", "--trainer.max_steps", "5", "--data.crop", "150"]
    line = refusal(capsys, train(faces_root, *more))
    assert "runs/run was trained on other images (crop: 178 -> 150): resume it with the same data, or" in line
    assert "--name NEW --ckpt_path runs/run/checkpoints/last.ckpt" in line
    assert contents(copied_run) == before
    more[1] = "runs/run/checkpoints/last.ckpt"
    assert train(faces_root, *more, name="new") == 0
    assert "last.ckpt was trained on other images than this run (crop: 178 -> 150)" in caplog.text
    assert Path("runs/new/checkpoints/best.ckpt").exists()


def test_a_copy_of_the_images_is_the_same_data(copied_run, faces_root, tmp_path):
    shutil.copytree(faces_root, tmp_path / "copied")
    assert train(tmp_path / "copied", "--ckpt_path", "last", "--trainer.max_steps", "5") == 0


def set_best(path, value):
    """Let a checkpoint have a best value that no later one can reach."""
    content = torch.load(path, weights_only=True)
    (state,) = [state for key, state in content["callbacks"].items() if key.startswith("ModelCheckpoint")]
    state["best_model_score"] = state["kth_value"] = torch.tensor(value)
    state["best_k_models"] = dict.fromkeys(state["best_k_models"], torch.tensor(value))
    torch.save(content, path)


@pytest.mark.parametrize("options", [["--evaluation.num_images", "8"], ["--evaluation.metrics", "[kid]"]])
def test_the_best_checkpoint_is_never_chosen_among_unlike_distances(copied_run, faces_root, caplog, options):
    set_best(copied_run / "checkpoints/last.ckpt", 0.0)
    former = (copied_run / "checkpoints/best.ckpt").read_bytes()
    assert train(faces_root, "--ckpt_path", "last", "--trainer.max_steps", "6", *options) == 0
    assert torch.load(copied_run / "checkpoints/best.ckpt", weights_only=True)["global_step"] == 6
    assert (copied_run / "checkpoints/best-before-resume-1.ckpt").read_bytes() == former
    assert "the best checkpoint is chosen again; the former one is kept as best-before-resume-1.ckpt" in caplog.text


def test_a_run_that_was_moved_keeps_its_best_checkpoint(copied_run, faces_root, caplog):
    """The paths in its checkpoints are those of the folder that it was trained in."""
    set_best(copied_run / "checkpoints/last.ckpt", 0.0)
    former = (copied_run / "checkpoints/best.ckpt").read_bytes()
    assert train(faces_root, "--ckpt_path", "last", "--trainer.max_steps", "6") == 0
    assert (copied_run / "checkpoints/best.ckpt").read_bytes() == former
    assert "chosen again" not in caplog.text


# -- trials and loggers -----------------------------------------------------------------------------------------------


def test_a_trial_is_quick_and_leaves_nothing_behind(copied_run, faces_root, capsys, caplog):
    before = contents(copied_run)
    more = ["--evaluation.num_images", "5000", "--evaluation.split", "all", "--trainer.fast_dev_run", "true"]
    with caplog.at_level(logging.INFO, logger="gan_lightning"):
        assert train(faces_root, *more) == 0
        assert measure("validate", faces_root, *more, "--name", "run", "--ckpt_path", "best") == 0
        assert train(faces_root, *more, name="new") == 0
    assert contents(copied_run) == before
    assert [path.name for path in Path("runs").iterdir()] == ["run"]
    assert "nothing was kept" in capsys.readouterr().out
    assert "16 generated and 16 real images" in caplog.text


def test_no_logger_means_no_metrics_file(faces_root):
    assert train(faces_root, "--trainer.logger", "false") == 0
    assert {path.name for path in Path("runs/run").iterdir()} == {
        "config.yaml",
        "summary.json",
        "samples",
        "checkpoints",
    }
    assert train(faces_root, "--trainer.logger", "true", name="default") == 0
    assert MetricsFile("runs/default").history()["val/fd_random"]


def test_a_part_without_a_logger_loses_no_rows_of_the_others(copied_run, faces_root):
    for steps, logger in ((6, "false"), (8, "true")):
        more = ["--trainer.max_steps", steps, "--trainer.logger", logger]
        assert train(faces_root, "--ckpt_path", "last", *more) == 0
    assert [step for step, _ in MetricsFile(copied_run).history()["val/fd_random"]] == [0, 2, 4, 8]


class Logs(DCGAN):
    """A model with the lines that the documentation of TensorBoard and of W&B shows."""

    def on_train_batch_end(self, *_):
        self.logger.experiment.add_scalar("own/scalar", 1.5, self.global_step)
        self.logger.experiment.log({"own/value": torch.tensor(2.5), "own/picture": object()})
        self.logger.experiment.add_image("own/image", torch.zeros(3, 4, 4), self.global_step)


def test_code_for_other_loggers_runs_without_them(faces_root, caplog):
    assert train(faces_root, "--model", f"{__name__}.Logs", "--trainer.max_steps", "2") == 0
    history = MetricsFile("runs/run").history()
    assert history["own/scalar"] == [(1, 1.5), (2, 1.5)]
    assert history["own/value"] == [(1, 2.5), (2, 2.5)]
    ignored = [record.getMessage() for record in caplog.records if "is ignored" in record.getMessage()]
    assert [message.split()[0] for message in ignored] == [
        "logger.experiment.log",
        "logger.experiment.add_image",
    ]


def test_the_users_logger_is_the_modules_logger(faces_root):
    assert train(faces_root, "--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", ".") == 0
    (folder,) = Path("runs/run/run").iterdir()
    assert (folder / "metrics.csv").exists()
    assert Path("runs/run/config.yaml").exists()
    assert MetricsFile("runs/run").history()["val/fd_random"]


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize(
    ("logger", "said"),
    [
        ("{class_path: WandbLogger, init_args: {offline: true, log_model: true}}", "log_model=True and offline=True"),
        ("{class_path: MLFlowLogger}", "MLFlowLogger: Requirement 'mlflow"),
    ],
)
def test_a_logger_that_cannot_be_made_is_one_line(faces_root, capsys, as_list, logger, said):
    listed = "[{class_path: CSVLogger, init_args: {save_dir: .}}, " + logger + "]" if as_list else logger
    Path("logger.yaml").write_text(f"trainer: {{logger: {listed}}}\n")
    assert said in refusal(capsys, train(faces_root, "--config", "logger.yaml"))
    assert not Path("runs").exists()


# -- what W&B is told -------------------------------------------------------------------------------------------------


class Ends(DCGAN):
    """A model whose second step ends in another way."""

    def on_train_batch_end(self, *_):
        if self.global_step < 2:
            return
        if os.environ["HOW"] == "error":
            raise RuntimeError("broken")
        os.kill(os.getpid(), int(os.environ["HOW"]))


@pytest.mark.parametrize(
    ("how", "exit_code", "status"),
    [
        ("error", 1, "failed"),
        ("diverged", 1, "failed"),
        (str(int(signal.SIGTERM)), 143, "stopped"),
        (str(int(signal.SIGINT)), 255, "stopped"),
        ("well", 0, "finished"),
    ],
)
def test_wandb_is_told_how_a_run_has_ended(faces_root, monkeypatch, how, exit_code, status):
    monkeypatch.setenv("HOW", how)
    more = ["--config", CONFIGS / "logger" / "wandb.yaml"]
    more += ["--model", f"{__name__}.Ends"] if how.isdigit() or how == "error" else []
    more += ["--model.lr_d", "1e30", "--trainer.max_steps", "50"] if how == "diverged" else []
    with pytest.raises(RuntimeError, match="broken") if how == "error" else contextlib.nullcontext():
        train(faces_root, *more)
    _, records = finished_wandb_run(Path("runs/run/wandb"))
    (ended,) = [record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit"]
    stated = [item.value_json for record in records for item in record.summary.update if item.key == "status"]
    preempting = [record for record in records if record.WhichOneof("record_type") == "preempting"]
    assert (ended, stated[-1]) == (exit_code, json.dumps(status))
    assert json.loads(Path("runs/run/summary.json").read_text())["status"] == status
    assert bool(preempting) == (exit_code == 143)


# -- processes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [[], ["--name", "run"]])
def test_processes_of_torchrun_that_the_trainer_does_not_know_of_write_nothing(faces_root, more):
    words = ["fit", "--config", CONFIGS / "quickstart.yaml", *SMALL, "--data.root", faces_root, "--data.count", FACES]
    ranks = run_ranks("gan_lightning", *words, *more, ranks=2, environment={"OMP_NUM_THREADS": "1"})
    assert [rank.returncode for rank in ranks] == [2, 2]
    for rank in ranks:
        assert "torchrun has started 2 processes of this command, but the Trainer expects 1" in rank.stderr
    assert not Path("runs").exists()


@pytest.mark.slow
def test_two_ranks_measure_a_run_in_one_folder_and_keep_its_former_best(faces_root):
    small = [*SMALL, "--data.root", faces_root, "--data.count", FACES, "--data.batch_size", "8", "--name", "run"]
    small += ["--trainer.devices", "2", "--trainer.strategy", "ddp"]

    def start(name, *more):
        words = [name, "--config", CONFIGS / "quickstart.yaml", *small, *more]
        ranks = run_ranks("gan_lightning", *words, ranks=2, environment={"OMP_NUM_THREADS": "1"})
        assert [rank.returncode for rank in ranks] == [0, 0], ranks[0].stderr + ranks[1].stderr
        return ranks

    start("fit")
    ranks = start("fit", "--ckpt_path", "last", "--trainer.max_steps", "6", "--evaluation.num_images", "8")
    assert sum("kept as best-before-resume-1.ckpt" in rank.stderr for rank in ranks) == 1
    assert len(list(Path("runs/run/checkpoints").glob("best-before-resume-*"))) == 1
    start("validate", "--ckpt_path", "best")
    (folder,) = Path("runs/run").glob("validate-best-*")
    assert json.loads((folder / "summary.json").read_text())["devices"] == 2
