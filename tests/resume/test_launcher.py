"""A launcher and the Trainer have to agree on the number of processes, whoever has launched them."""

import os
from types import SimpleNamespace

import pytest

from gan_lightning import InputError
from gan_lightning.resume import launcher
from gan_lightning.resume.jobs import job_stamp
from gan_lightning.resume.launcher import check_launch, find_launch, is_first_process

KNOWN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "ENVIRONMENT")
TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "RANK": 0, "LOCAL_RANK": 0}
SLURM = {"SLURM_JOB_ID": 4711, "SLURM_JOB_NAME": "gan", "SLURM_NTASKS": 2, "SLURM_PROCID": 0, "SLURM_NNODES": 1}
SCRIPT = {**SLURM, "ENVIRONMENT": "BATCH"}  # a batch script, without `srun`
LAUNCHED_BY_LIGHTNING = {"WORLD_SIZE": 2, "LOCAL_RANK": 1, "NODE_RANK": 0}
MPI = {"OMPI_COMM_WORLD_SIZE": 2, "OMPI_COMM_WORLD_RANK": 0}


@pytest.fixture(autouse=True)
def launched(monkeypatch):
    """Return a function that sets the environment of a process, and its rank as Lightning reads it."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_", "OMPI_", "PMI_")) or name in KNOWN:
            monkeypatch.delenv(name)

    def launch(environment, rank=0):
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setattr(launcher.rank_zero_only, "rank", rank)

    return launch


def trainer(devices=1, nodes=1, waits=None, first=True):
    """Return what the check reads of a trainer: `waits` is None for a strategy of a single device."""
    environment = None if waits is None else SimpleNamespace(creates_processes_externally=waits)
    strategy = SimpleNamespace(cluster_environment=environment) if environment else SimpleNamespace()
    return SimpleNamespace(num_devices=devices, num_nodes=nodes, strategy=strategy, is_global_zero=first)


@pytest.mark.parametrize(
    ("environment", "asked", "said"),
    [
        (TORCHRUN, trainer(), "torchrun has started 2 processes of this command, but the Trainer expects 1: set "),
        (TORCHRUN, trainer(), "--trainer.devices 2 --trainer.strategy ddp"),
        (TORCHRUN | {"WORLD_SIZE": 8}, trainer(2, 1, waits=True), "--trainer.devices 2 --trainer.num_nodes 4 "),
        (TORCHRUN | {"WORLD_SIZE": 1}, trainer(8, waits=True), "1 process of .* expects 8: start 8 processes"),
        (SLURM, trainer(), "Slurm has started 2 processes"),
        (SLURM | {"SLURM_NTASKS": 16, "SLURM_NNODES": 2}, trainer(), "devices 8 --trainer.num_nodes 2 "),
        (SCRIPT, trainer(2, waits=True), "1 process of .* expects 2: start the command with `srun`"),
        ({"WORLD_SIZE": 2, "RANK": 1}, trainer(), "WORLD_SIZE. has started 2 processes"),
        ({"WORLD_SIZE": 2, "RANK": 0}, trainer(2, waits=False), "set LOCAL_RANK"),
        (MPI, trainer(), "MPI has started 2 processes"),
        (MPI, trainer(2, waits=False), "install mpi4py"),
        ({"PMI_SIZE": 3}, trainer(), "MPI has started 3 processes"),
    ],
)
def test_processes_that_the_trainer_does_not_know_of_are_refused(launched, environment, asked, said):
    launched(environment)
    with pytest.raises(InputError, match=said):
        check_launch(asked)


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, trainer()),
        ({}, trainer(4, waits=False)),  # which Lightning launches
        (LAUNCHED_BY_LIGHTNING, trainer(2, waits=True, first=False)),
        (TORCHRUN, trainer(2, waits=True)),
        (TORCHRUN | {"WORLD_SIZE": 4}, trainer(2, 2, waits=True)),
        (SLURM, trainer(2, waits=True)),
        (SLURM | {"SLURM_NTASKS": 1}, trainer()),
        (SCRIPT, trainer()),
        (SLURM | {"SLURM_STEP_NUM_TASKS": 1, "SLURM_STEP_ID": 4294967290}, trainer()),  # the shell of `salloc`
        (SLURM | {"SLURM_JOB_NAME": "interactive"}, trainer(2, waits=False)),
        ({"SLURM_JOB_ID": 4711, "SLURM_PROCID": 0}, trainer(2, waits=False)),  # no --ntasks: Lightning ignores Slurm
        (SLURM | TORCHRUN | {"SLURM_NTASKS": 1}, trainer(2, waits=True)),  # one torchrun on each node
        ({"WORLD_SIZE": 2}, trainer()),  # of something else
        (MPI, trainer(2, waits=True)),
        ({"WORLD_SIZE": 2, "RANK": 1, "NODE_RANK": 1}, trainer(8, 2, waits=False, first=False)),  # of Kubernetes
    ],
)
def test_what_agrees_is_left_alone(launched, environment, asked):
    launched(environment)
    check_launch(asked)


def test_a_later_process_is_never_a_run_of_its_own(launched):
    launched({"LOCAL_RANK": 1}, rank=1)
    with pytest.raises(InputError, match="process 1 of several"):
        check_launch(trainer())


def test_the_first_process_is_that_of_the_first_node(launched):
    launched({"NODE_RANK": 1})
    assert not is_first_process()
    launched({"RANK": 0})
    assert is_first_process()
    launched({"RANK": 3}, rank=3)
    assert not is_first_process()


@pytest.mark.parametrize(("rank", "first"), [(0, True), (3, False)])
def test_mpi_has_one_first_process_though_lightning_knows_no_rank_yet(launched, rank, first):
    for size, number in (("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"), ("PMI_SIZE", "PMI_RANK")):
        launched({size: 4, number: rank})
        assert is_first_process() is first


@pytest.mark.parametrize("environment", [MPI, {"WORLD_SIZE": 2, "RANK": 1}])
def test_processes_that_share_nothing_get_no_default_name(launched, environment):
    """Each would choose a time of its own, and write to a folder of its own."""
    launched(environment)
    assert job_stamp("own") is None


def test_commands_in_an_interactive_job_do_not_share_its_number(launched):
    launched(SLURM)
    assert job_stamp("own") == "4711"
    launched({"SLURM_JOB_NAME": "interactive"})
    assert job_stamp("own") == "own"
    assert find_launch() is None
