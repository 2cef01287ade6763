"""Every private part of Lightning and torch that this package needs, each behind a function of its own.

Neither library promises to keep them: since Lightning 2.0 its loops are internal as a whole, the attributes without an
underscore included. tests/resume/test_lightning_internals.py names what breaks when one of them is gone.
"""

from __future__ import annotations

import signal
from datetime import timedelta
from typing import Any

from lightning import Trainer
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch.distributed import distributed_c10d
from torch.distributed.constants import default_pg_timeout
from torch.utils.data._utils import signal_handling


def validation_is_due(trainer: Trainer) -> bool:
    """Return whether Lightning validates after the batch that it has counted last.

    A checkpoint has to know whether the run that resumes it validates before its next step. The answer depends on
    intervals in batches, epochs and minutes, on the end of the data and on early stopping; only Lightning's own
    method covers all of them.
    """
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def batch_is_processed(trainer: Trainer) -> bool:
    """Return whether the training step of every batch that was begun has returned.

    A training step without an update of the generator leaves `global_step` as it was; these counters alone tell
    whether it has ended.
    """
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress.total
    return bool(progress.processed == progress.ready)


def set_max_steps(trainer: Trainer, max_steps: int) -> None:
    """Change the number of steps that a running fit ends at.

    `Trainer.max_steps` is read-only. A run that was stopped after its last step and before its last validation is
    resumed with one more step allowed, because Lightning would otherwise skip the fit, and the validation with it.
    """
    trainer.fit_loop.epoch_loop.max_steps = max_steps


def count_steps_for_loggers(trainer: Trainer, steps: int) -> None:
    """Set the x-axis of what Lightning logs at the start of the next batch, as LearningRateMonitor does.

    Lightning counts batches for it, and there is no public way to change that. It adds one after the batch.
    """
    trainer.fit_loop.epoch_loop._batches_that_stepped = steps - 1


def count_optimizer_step(trainer: Trainer, number: int = 1) -> None:
    """Count a step of an optimizer that was taken without Lightning, as by a CUDA graph.

    `Trainer.global_step` is the number of these steps. Under manual optimization only `LightningOptimizer.step` adds to
    it, which would take another step.

    Args:
        trainer: The trainer.
        number: 1, or -1 for a step that was counted and not taken.
    """
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    for tracker in (progress.total, progress.current):
        tracker.ready += number
        tracker.completed += number


def skip_sigterm_broadcast(trainer: Trainer) -> None:
    """Stop Lightning from sending rank 0's SIGTERM to the other ranks before every batch.

    It waits for the device at every step, and `StepSignals`, which receives the signals of all ranks, replaces it.
    """
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def ignore_dead_workers_in_signals() -> None:
    """Stop torch from raising errors about dead data workers in a signal handler.

    Such an error comes in the middle of a step, or of the saving of a checkpoint. Without the handler it comes when
    the next batch is waited for, at most five seconds later. torch installs the handler once, together with the first
    worker; therefore it is installed here before it is removed. Works in the main thread only.
    """
    signal_handling._set_SIGCHLD_handler()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def set_ddp_defaults(strategy: DDPStrategy, **defaults: Any) -> None:
    """Set arguments of DistributedDataParallel that the user has not set.

    DDPStrategy takes them in its constructor alone, which runs before the module is known: `--trainer.strategy ddp`
    has to work for two networks without further options.

    Args:
        strategy: The trainer's strategy, before it wraps the module.
        defaults: Arguments of DistributedDataParallel, by name.
    """
    for name, value in defaults.items():
        strategy._ddp_kwargs.setdefault(name, value)


def uses_sync_batchnorm(strategy: Strategy) -> bool:
    """Return whether Lightning is going to replace batch normalization by SyncBatchNorm.

    The trainer does not keep its argument `sync_batchnorm`, and the layers are replaced right before
    DistributedDataParallel refuses them on CPUs, with no hook in between.
    """
    return getattr(strategy, "_layer_sync", None) is not None


def set_default_timeout(strategy: Strategy, timeout: timedelta) -> None:
    """Set how long a rank waits for the others in a collective, unless the user has.

    DDPStrategy takes the timeout in its constructor alone, and `--trainer.strategy ddp` has to work as it is.

    Args:
        strategy: The trainer's strategy, before the ranks have met.
        timeout: Limit of every wait.
    """
    if getattr(strategy, "_timeout", None) == default_pg_timeout:
        strategy._timeout = timeout  # type: ignore[attr-defined]


def runs_in_this_process(strategy: Strategy) -> bool:
    """Return whether this process is one of the ranks, rather than one that forks or spawns all of them.

    Such a process waits for its workers, and never belongs to their process group.
    """
    return getattr(strategy, "_start_method", "popen") == "popen"


def default_store() -> Any:
    """Return the store through which the ranks have met; None if they have not.

    Rank 0 serves it until the process group is destroyed and nobody holds it any more.
    """
    return distributed_c10d._get_default_store() if distributed_c10d.is_initialized() else None
