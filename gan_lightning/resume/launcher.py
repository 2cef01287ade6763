"""Detection of the launcher of this process, and a check that the Trainer uses all launched processes.

Without this check, each of several processes would train on its own in the same run folder, because Lightning asks the
launcher only if several devices are requested.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_only

from gan_lightning.errors import InputError

INTERACTIVE = ("bash", "interactive")  # names of Slurm jobs in which Lightning ignores Slurm
MPI_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK")
MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")  # Open MPI; MPICH and Intel MPI


@dataclass(frozen=True)
class Launch:
    """Processes that a launcher started for one command.

    Attributes:
        launcher: Name of the launcher.
        processes: Number of processes on all nodes.
        per_node: Number of processes on this node, if known.
    """

    launcher: str
    processes: int
    per_node: int | None = None


def is_first_process() -> bool:
    """Return whether this process writes the run folder: the first of its job, or the only one.

    Lightning knows the rank of an MPI process only once the Trainer exists, which is too late.
    """
    if (launch := find_launch()) is not None and launch.launcher == "MPI":
        return next((rank for name in MPI_RANKS if (rank := _number(name)) is not None), 0) == 0
    node = 0 if {"RANK", "SLURM_PROCID"} & os.environ.keys() else int(os.environ.get("NODE_RANK") or 0)
    return getattr(rank_zero_only, "rank", 0) == 0 and node == 0


def is_interactive_job() -> bool:
    """Return whether this is an interactive Slurm shell, in which commands are started one by one without `srun`."""
    return os.environ.get("SLURM_JOB_NAME") in INTERACTIVE


def find_launch() -> Launch | None:
    """Return the launch of this process, looking for launchers in Lightning's order; None if there is none."""
    known = os.environ
    if "TORCHELASTIC_RUN_ID" in known and "WORLD_SIZE" in known:
        return Launch("torchrun", int(known["WORLD_SIZE"]), _number("LOCAL_WORLD_SIZE"))
    if {"SLURM_NTASKS", "SLURM_PROCID"} <= known.keys() and not is_interactive_job():
        if (tasks := _number("SLURM_STEP_NUM_TASKS")) is None:
            # `srun` sets the step. Its absence in a batch job means that the batch script itself runs the command.
            in_script = known.get("ENVIRONMENT") == "BATCH" and "SLURM_STEP_ID" not in known
            tasks = 1 if in_script else int(known["SLURM_NTASKS"])
        nodes = _number("SLURM_STEP_NUM_NODES") or _number("SLURM_NNODES") or 1
        return Launch("Slurm", tasks, tasks // nodes if tasks % nodes == 0 else None)
    if "WORLD_SIZE" in known and {"RANK", "LOCAL_RANK"} & known.keys():
        return Launch("the launcher (WORLD_SIZE)", int(known["WORLD_SIZE"]), _number("LOCAL_WORLD_SIZE"))
    if (size := next((size for name in MPI_SIZES if (size := _number(name))), None)) is not None:
        return Launch("MPI", size)
    return None


def check_launch(trainer: Trainer) -> None:
    """Check that the trainer uses exactly the launched processes.

    Raises:
        InputError: If the numbers differ, or Lightning would start the processes a second time.
    """
    launch, expected = find_launch(), trainer.num_devices * trainer.num_nodes
    environment = getattr(trainer.strategy, "cluster_environment", None)
    waits = environment is not None and environment.creates_processes_externally  # Lightning starts none itself
    if "NODE_RANK" in os.environ and launch is not None and launch.processes == trainer.num_nodes and not waits:
        launch = None  # one process on each node, from which Lightning starts the others
    if launch is not None and launch.processes > 1:
        if launch.processes != expected:
            raise InputError(f"{_difference(launch, expected)}: {_remedy(launch)}")
        if not waits:
            raise InputError(
                f"{launch.launcher} has started {launch.processes} processes, and Lightning does not know their ranks "
                f"({'install mpi4py' if launch.launcher == 'MPI' else 'set LOCAL_RANK'}), so that each would start all "
                "others again: use torchrun, or start one process"
            )
    elif launch is not None and expected > 1 and waits:
        start = "start the command with `srun`" if launch.launcher == "Slurm" else f"start {expected} processes"
        raise InputError(f"{_difference(launch, expected)}: {start}, or set --trainer.devices 1")
    rank = getattr(rank_zero_only, "rank", 0)
    if trainer.is_global_zero and not is_first_process():
        raise InputError(
            f"this is process {rank} of several (RANK, LOCAL_RANK or SLURM_PROCID), but the Trainer "
            "expects one: set --trainer.devices and --trainer.strategy ddp, or unset these variables"
        )


def _difference(launch: Launch, expected: int) -> str:
    started = "1 process" if launch.processes == 1 else f"{launch.processes} processes"
    return f"{launch.launcher} has started {started} of this command, but the Trainer expects {expected}"


def _remedy(launch: Launch) -> str:
    local = launch.per_node or launch.processes
    nodes = launch.processes // local
    more = f" --trainer.num_nodes {nodes}" if nodes > 1 else ""
    return f"set --trainer.devices {local}{more} --trainer.strategy ddp, or start one process"


def _number(name: str) -> int | None:
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else None
