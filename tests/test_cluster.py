"""Jobs of a scheduler: a name common to all processes, the warning before the time limit, and resuming."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from gan_lightning import DCGAN
from gan_lightning.__main__ import main
from gan_lightning.errors import InputError
from gan_lightning.loggers.metrics_file import MetricsFile
from gan_lightning.resume.jobs import job_stamp, requeue, requeued_when_warned, runs_again
from gan_lightning.run import run_folder
from tests.commands import CONFIGS, SMALL
from tests.conftest import FACES
from tests.processes import Process, free_port

ROOT = CONFIGS.parent
TORCHRUN = Path(torch.__file__).parent / "distributed" / "run.py"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(own_folder, monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_")) or name in ("GAN_LIGHTNING_RUN", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name)


@pytest.fixture
def scontrol(tmp_path):
    """Return an environment with a `scontrol` that writes its arguments to a file."""
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/requeued\n')
    program.chmod(0o755)
    return {"PATH": f"{program.parent}:{os.environ['PATH']}"}


def task(rank=0, tasks=1, job="4711", again=0):
    """Return the environment that Slurm gives to a task of a job."""
    known = {"JOB_ID": job, "JOB_NAME": "gan", "NTASKS": tasks, "NTASKS_PER_NODE": tasks, "NNODES": 1, "NODEID": 0}
    known |= {"PROCID": rank, "LOCALID": rank, "NODELIST": "127.0.0.1", "RESTART_COUNT": again}
    return {f"SLURM_{name}": str(value) for name, value in known.items()} | {"MASTER_ADDR": "127.0.0.1"}


def fit_words(faces_root, *more):
    words = ["fit", "--config", CONFIGS / "quickstart.yaml", *SMALL, "--data.root", faces_root, "--data.count", FACES]
    return [str(word) for word in [*words, *more]]


def start(words, environment, program="gan_lightning"):
    """Start a program, which may start Python processes itself."""
    shared = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return Process(program, *words, environment=shared | environment)


def finish(*processes):
    """Wait for processes, and return what they printed."""
    outputs = ["".join(text or "" for text in process.communicate(timeout=200)) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(outputs)
    return outputs


def last(run):
    return torch.load(Path("runs") / run / "checkpoints" / "last.ckpt", weights_only=True)


def start_with_signal(words, environment, step, number):
    """Start a training that gets a signal in the middle of a step, between D's update and G's."""
    return start([step, int(number), *words], environment, Path(__file__).with_name("signal_at_step.py"))


def train_in_slurm(words, ranks, again=0, job="4711", signal_at=None, **environment):
    """Run the tasks that `srun` would start; return their outputs."""
    given = [*words, "--trainer.devices", str(ranks), "--trainer.strategy", "ddp" if ranks > 1 else "auto"]
    environment["MASTER_PORT"] = str(free_port())  # by default that of the job's number
    tasks = [task(rank, ranks, job, again) | environment for rank in range(ranks)]
    if signal_at is None:
        return finish(*[start(given, one) for one in tasks])
    return finish(*[start_with_signal(given, one, signal_at, signal.SIGUSR1) for one in tasks])


def assert_same_state(one, other):
    for name, tensor in one["state_dict"].items():
        assert tensor.equal(other["state_dict"][name]), name
    for left, right in zip(one["optimizer_states"], other["optimizer_states"], strict=True):
        torch.testing.assert_close(left["state"], right["state"], rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "step"), [(1, 6), (2, 4)])
def test_a_warned_job_is_requeued_and_ends_like_an_uninterrupted_one(faces_root, scontrol, tmp_path, ranks, step):
    """Step 6 is the last of an epoch, and validation is due after it."""
    words = fit_words(faces_root, "--trainer.max_steps", 9, "--trainer.val_check_interval", 3)
    words += ["--data.batch_size", str(16 // ranks)]
    train_in_slurm(words, ranks, job="1", **scontrol)
    outputs = train_in_slurm(words, ranks, signal_at=step, **scontrol)
    assert (tmp_path / "requeued").read_text() == "requeue 4711\n"
    assert "Slurm has requeued job 4711" in outputs[0]
    stopped_at = last("fit-4711")["global_step"]
    assert step <= stopped_at <= step + 1  # ranks agree during a step
    train_in_slurm(words, ranks, again=1, **scontrol)
    assert_same_state(last("fit-1"), last("fit-4711"))
    assert last("fit-4711")["global_step"] == 9
    rows = [MetricsFile(f"runs/{run}").history()["val/fd_random"] for run in ("fit-1", "fit-4711")]
    assert rows[0] == rows[1]
    assert [step for step, _ in rows[0]] == [0, 3, 6, 9]


@pytest.mark.slow
def test_a_warning_outside_slurm_ends_the_training_and_calls_no_scheduler(faces_root, scontrol, tmp_path):
    words = fit_words(faces_root, "--name", "run", "--trainer.max_steps", 100000)
    outputs = finish(start_with_signal(words, scontrol, 3, signal.SIGUSR1))
    assert last("run")["global_step"] == 3
    assert not (tmp_path / "requeued").exists(), outputs


@pytest.mark.slow
def test_devices_and_ddp_are_the_only_options_needed(faces_root):
    words = fit_words(faces_root, "--trainer.devices", 2, "--trainer.strategy", "ddp", "--data.batch_size", 8)
    finish(start(words, {}))  # Lightning launches the second rank
    (run,) = Path("runs").iterdir()
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["devices"], summary["images_seen"]) == (2, 4 * 16)


SRUN = """
import os, subprocess, sys
words = sys.argv[1:]
while words[0].startswith("--"):
    option = words.pop(0)
    if option.startswith("--ntasks="):
        os.environ["SLURM_NTASKS"] = option.partition("=")[2]
tasks = int(os.environ["SLURM_NTASKS"])
own = [os.environ | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(tasks)]
sys.exit(max([process.wait() for process in [subprocess.Popen(words, env=one) for one in own]]))
"""


@pytest.fixture
def slurm(scontrol, tmp_path, monkeypatch, faces_root):
    """Return the environment of a Slurm job of two tasks, with data and configurations where the docs have them."""
    for name, content in {
        "srun": SRUN,
        "gan-lightning": "from gan_lightning.__main__ import main; exit(main())",
    }.items():
        program = tmp_path / "bin" / name
        program.write_text(f"#!{sys.executable}\n{content}\n")
        program.chmod(0o755)
    Path("configs").symlink_to(CONFIGS)
    job = {name: value for name, value in task(0, 2).items() if name not in ("SLURM_PROCID", "SLURM_LOCALID")}
    shared = {"GAN_LIGHTNING_CACHE": str(tmp_path / "shared"), "TMPDIR": str(tmp_path / "disk")}
    return job | scontrol | shared | {"SLURM_CPUS_PER_TASK": "1", "MASTER_PORT": str(free_port())}


def commands_of_the_page(program):
    lines = [line.strip() for line in (ROOT / "docs" / "cluster.md").read_text().splitlines()]
    return [shlex.split(line) for line in lines if line.startswith(f"{program} ")]


def with_our_data(words, faces_root):
    return [str(faces_root) if word == "/data/celeba" else word for word in words]


@pytest.mark.slow
def test_the_batch_file_trains_from_packed_data_on_the_nodes_disk(faces_root, slurm, tmp_path):
    batch_file = CONFIGS / "cluster" / "slurm.sbatch"
    subprocess.run(["bash", "-n", batch_file], check=True)
    data = ["--config", "configs/celeba64.yaml", "--data.root", faces_root]
    finish(start(["pack", *map(str, data), "--data.image_size", "16"], slurm))
    shown = next(words for words in commands_of_the_page("sbatch") if words[1] == "configs/cluster/slurm.sbatch")
    assert shown[2:] == [str(word).replace(str(faces_root), "/data/celeba") for word in data]
    words = [*with_our_data(shown[2:], faces_root), *SMALL, "--data.batch_size", "8"]
    copies = tmp_path / "disk" / "gan-lightning-4711"
    (copies / ".copy-celeba-0").mkdir(parents=True)  # left by a job that was killed while it copied
    (tmp_path / "shared" / ".celeba-1.node-7.part").mkdir()  # another job is packing this one
    environment = os.environ | slurm | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    (output,) = finish(subprocess.Popen(["bash", batch_file, *words], env=environment, **pipes))
    summary = json.loads(Path("runs/gan-4711/summary.json").read_text())
    assert (summary["devices"], summary["g_steps"], summary["images_seen"]) == (2, 4, 4 * 2 * 8)
    (pack,) = (tmp_path / "shared").glob("celeba-*")
    assert f"in {copies / pack.name}" in output, "packed again"
    assert "Already packed" in output
    assert not copies.exists(), "the copy outlives the job"
    assert list((tmp_path / "shared" / "statistics").iterdir()), "statistics of real images outlive the job"


def test_the_head_of_the_batch_file_is_as_documented():
    head = [line.split() for line in (CONFIGS / "cluster" / "slurm.sbatch").read_text().splitlines()]
    options = dict(words[1].lstrip("-").partition("=")[::2] for words in head if words[:1] == ["#SBATCH"])
    assert options["ntasks-per-node"] == options["gpus-per-node"]
    assert options["signal"].startswith("SIGUSR1@")
    assert "requeue" in options
    assert options["open-mode"] == "append"


@pytest.mark.slow
def test_the_torchrun_lines_of_the_page_train_on_one_node_and_on_two(faces_root):
    """Two nodes of one process each and one node of two processes: all processes agree on one name."""
    Path("configs").symlink_to(CONFIGS)
    one_node, two_nodes = commands_of_the_page("torchrun")
    small = [*SMALL, "--data.batch_size", "8"]
    words = [*with_our_data(one_node[1:], faces_root), *small, "--trainer.devices", "2"]
    words[words.index("--nproc_per_node") + 1] = "2"
    finish(start(words, {}, TORCHRUN))
    (first,) = Path("runs").iterdir()
    address = f"127.0.0.1:{free_port()}"
    words = [*with_our_data(two_nodes[1:], faces_root), *small, "--trainer.devices", "1"]
    words[words.index("--nproc_per_node") + 1] = "1"
    words = [address if word == "NODE:29500" else word for word in words]
    finish(start(words, {}, TORCHRUN), start(words, {}, TORCHRUN))
    (second,) = set(Path("runs").iterdir()) - {first}
    for run in (first, second):
        assert json.loads((run / "summary.json").read_text())["devices"] == 2
    assert_same_state(last(first.name), last(second.name))


def test_the_command_of_the_sweep_runs(faces_root):
    """W&B replaces ${args} by the sampled options, each as --NAME=VALUE."""
    Path("configs").symlink_to(CONFIGS)
    sweep = yaml.safe_load((CONFIGS / "cluster" / "sweep.yaml").read_text())
    drawn = [f"--{name}={p.get('max') or p['values'][-1]}" for name, p in sweep["parameters"].items()]
    assert sweep["command"][:2] == ["${env}", "gan-lightning"]
    assert sweep["command"][-1] == "${args}"
    words = [
        *sweep["command"][2:-1],
        *drawn,
        *SMALL,
        "--data.root",
        str(faces_root),
        "--trainer.logger.offline",
        "true",
    ]
    assert main([*words, "--name", "sweep", "--evaluation.extractor", "random"]) == 0
    config = yaml.safe_load(Path("runs/sweep/config.yaml").read_text())["model"]["init_args"]
    assert (config["lr_g"], config["r1"]) == (0.001, 10.0)


class Store:
    """The key-value store of a torchrun launcher, in this process."""

    def __init__(self):
        self.server = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True)

    def environment(self):
        return {
            "TORCHELASTIC_RUN_ID": "none",
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.server.port),
        }


def set_environment(monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def test_processes_of_torchrun_take_the_string_of_the_first(monkeypatch):
    store = Store()
    set_environment(monkeypatch, store.environment())
    assert [job_stamp(own) for own in ("first", "second", "first again")] == ["first"] * 3


def test_without_a_shared_store_the_rendezvous_id_names_the_run(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "evening")
    assert job_stamp("own") == "evening"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(InputError, match="add --name"):
        run_folder(None, None, "fit")


def test_the_slurm_job_names_the_run(monkeypatch):
    assert job_stamp("own") == "own"
    set_environment(monkeypatch, task())
    assert run_folder(None, None, "fit") == Path("runs/fit-4711")


@pytest.mark.parametrize(
    ("name", "value", "again"),
    [
        ("SLURM_RESTART_COUNT", "1", True),
        ("SLURM_RESTART_COUNT", "0", False),
        ("TORCHELASTIC_RESTART_COUNT", "2", True),
        ("TORCHELASTIC_RESTART_COUNT", "", False),
    ],
)
def test_a_job_knows_whether_it_runs_again(monkeypatch, name, value, again):
    monkeypatch.setenv(name, value)
    assert runs_again() is again


def test_a_requeued_job_without_a_checkpoint_starts_again(faces_root, monkeypatch):
    Path("runs/run").mkdir(parents=True)
    Path("runs/run/metrics.csv").write_text("step,val/fd_random\n0,9.5\n")
    words = fit_words(faces_root, "--name", "run")
    assert main(words) == 2  # taken
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert main(words) == 0
    assert last("run")["global_step"] == 4


def test_a_warning_ends_predict_after_the_batch_and_requeues_the_job(scontrol, faces_root, monkeypatch, tmp_path):
    """Lightning's own loop would continue predicting until the job is killed."""
    assert main(fit_words(faces_root, "--name", "run")) == 0
    set_environment(monkeypatch, task() | scontrol)
    predict = DCGAN.predict_step

    def warned(self, batch, batch_idx):
        os.kill(os.getpid(), signal.SIGUSR1)
        return predict(self, batch, batch_idx)

    monkeypatch.setattr(DCGAN, "predict_step", warned)
    words = ["predict", "--num_samples", "200", "--ckpt_path", "runs/run/checkpoints/last.ckpt", "--name", "drawn"]
    with pytest.raises(SystemExit):
        main([*words, *(word for word in fit_words(faces_root)[1:])])
    assert len(list(Path("runs/drawn/samples").iterdir())) == 64  # the batch under way
    assert (tmp_path / "requeued").read_text() == "requeue 4711\n"


def test_a_failed_requeue_is_reported(scontrol, monkeypatch, caplog, tmp_path):
    set_environment(monkeypatch, task() | scontrol | {"SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "2"})
    assert requeue()
    assert (tmp_path / "requeued").read_text() == "requeue 40_2\n"
    (tmp_path / "bin" / "scontrol").write_text("#!/bin/sh\necho no such job >&2\nexit 1\n")
    assert not requeue()
    assert "no such job" in caplog.text


def test_a_warning_before_the_training_ends_the_command_at_once(scontrol, monkeypatch, tmp_path):
    set_environment(monkeypatch, task() | scontrol)
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(SystemExit), requeued_when_warned():
        os.kill(os.getpid(), signal.SIGUSR1)
    assert (tmp_path / "requeued").read_text() == "requeue 4711\n"
    assert signal.getsignal(signal.SIGUSR1) == before


def test_only_the_first_task_requeues_and_only_after_a_warning(scontrol, monkeypatch, tmp_path):
    set_environment(monkeypatch, task(rank=1, tasks=2) | scontrol)
    with pytest.raises(SystemExit), requeued_when_warned():
        os.kill(os.getpid(), signal.SIGUSR1)
    set_environment(monkeypatch, task())
    with pytest.raises(SystemExit), requeued_when_warned():
        raise SystemExit
    assert not (tmp_path / "requeued").exists()
