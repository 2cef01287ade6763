"""All private parts of Lightning and torch that this package needs, each behind its own function.

Both libraries may remove them at any time: since Lightning 2.0, its loops are internal as a whole, including attributes
without an underscore. tests/resume/test_lightning_internals.py states what breaks if one of them is removed.
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
    """Return whether Lightning validates after the batch that it counted last.

    A checkpoint must state whether the run that resumes from it validates before its next step. The answer depends on
    intervals in batches, epochs and minutes, on the end of the data and on early stopping; only Lightning's own
    method covers all of them.
    """
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def batch_is_processed(trainer: Trainer) -> bool:
    """Return whether the training step of every started batch has returned.

    A training step without an update of the generator does not change `global_step`; only these counters show whether
    it has ended.
    """
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress.total
    return bool(progress.processed == progress.ready)


def set_max_steps(trainer: Trainer, max_steps: int) -> None:
    """Change the number of steps at which a running fit ends.

    `Trainer.max_steps` is read-only. A run that was stopped after its last step and before its last validation is
    resumed with one more step allowed, because Lightning would otherwise skip the fit, including the validation.
    """
    trainer.fit_loop.epoch_loop.max_steps = max_steps


def count_steps_for_loggers(trainer: Trainer, steps: int) -> None:
    """Set the x-axis of values logged at the start of the next batch, such as those of LearningRateMonitor.

    Lightning counts batches on this axis and adds one after each; there is no public way to change that.
    """
    trainer.fit_loop.epoch_loop._batches_that_stepped = steps - 1


def count_optimizer_step(trainer: Trainer, number: int = 1) -> None:
    """Count an optimizer step that was taken without Lightning, for example by a CUDA graph.

    `Trainer.global_step` is the number of these steps. Under manual optimization only `LightningOptimizer.step`
    increments it, which would take another step.

    Args:
        trainer: The trainer.
        number: 1, or -1 for a step that was counted but not taken.
    """
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    for tracker in (progress.total, progress.current):
        tracker.ready += number
        tracker.completed += number


def skip_sigterm_broadcast(trainer: Trainer) -> None:
    """Stop Lightning from sending rank 0's SIGTERM to the other ranks before every batch.

    The broadcast waits for the device at every step. `StepSignals`, which receives the signals of all ranks, replaces
    it.
    """
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def ignore_dead_workers_in_signals() -> None:
    """Stop torch from raising errors about dead data workers in a signal handler.

    The handler could raise in the middle of a step or while a checkpoint is saved. Without it, the error is raised
    while waiting for the next batch, at most five seconds later. torch installs the handler once, together with the
    first worker; therefore it is installed here before it is removed. This only works in the main thread.
    """
    signal_handling._set_SIGCHLD_handler()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def set_ddp_defaults(strategy: DDPStrategy, **defaults: Any) -> None:
    """Set arguments of DistributedDataParallel that the user has not set.

    DDPStrategy accepts them only in its constructor, which runs before the module is known, but `--trainer.strategy
    ddp` must work for two networks without further options.

    Args:
        strategy: The trainer's strategy, before it wraps the module.
        defaults: Arguments of DistributedDataParallel, by name.
    """
    for name, value in defaults.items():
        strategy._ddp_kwargs.setdefault(name, value)


def uses_sync_batchnorm(strategy: Strategy) -> bool:
    """Return whether Lightning will replace batch normalization by SyncBatchNorm.

    The trainer does not store its argument `sync_batchnorm`, and there is no hook between the replacement of the layers
    and their rejection by DistributedDataParallel on CPUs.
    """
    return getattr(strategy, "_layer_sync", None) is not None


def set_default_timeout(strategy: Strategy, timeout: timedelta) -> None:
    """Set how long a rank waits for the others in a collective, unless set by the user.

    DDPStrategy accepts the timeout only in its constructor, but `--trainer.strategy ddp` must work without options.

    Args:
        strategy: The trainer's strategy, before the process group exists.
        timeout: Limit of every wait.
    """
    if getattr(strategy, "_timeout", None) == default_pg_timeout:
        strategy._timeout = timeout  # type: ignore[attr-defined]


def runs_in_this_process(strategy: Strategy) -> bool:
    """Return whether this process is one of the ranks, and not the parent that forks or spawns all of them.

    The parent waits for its workers, and never belongs to their process group.
    """
    return getattr(strategy, "_start_method", "popen") == "popen"


def default_store() -> Any:
    """Return the store of the process group, or None if there is no group yet.

    Rank 0 serves it until the process group is destroyed and there is no other reference to it.
    """
    return distributed_c10d._get_default_store() if distributed_c10d.is_initialized() else None
