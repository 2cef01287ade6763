"""Learning rates of a resumed run, and schedules of two optimizers, which Lightning does not step."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch.optim.lr_scheduler import ReduceLROnPlateau

from gan_lightning.errors import InputError

CYCLED = ("base_momentum", "max_momentum")  # in groups whose betas also follow a schedule

_log = logging.getLogger(__name__)


class LearningRates:
    """Settings and schedulers of the optimizers that `configure_optimizers` returned."""

    def __init__(self, module: LightningModule, options: Sequence[str] = ("lr_g", "lr_d")) -> None:
        """Store the settings of the optimizers.

        Args:
            module: The module, in its `on_fit_start`, before Lightning restores the optimizers from a checkpoint.
            options: The module's options of the learning rates, in the order of the optimizers.
        """
        trainer = module.trainer
        self._options = options
        self._configured = [[without_parameters(group) for group in o.param_groups] for o in trainer.optimizers]
        self._schedules: list[Schedule] = []

    def settle(self, module: LightningModule) -> None:
        """Use the settings of this run, not those of the checkpoint; a schedule continues from the checkpoint.

        Args:
            module: The module, in its `on_train_start`.

        Raises:
            InputError: If the schedule of the checkpoint began at a different learning rate.
        """
        trainer = module.trainer
        self._schedules = [Schedule(config, module) for config in trainer.lr_scheduler_configs]
        scheduled = [config.scheduler.optimizer for config in trainer.lr_scheduler_configs]
        for option, optimizer, configured in zip(self._options, trainer.optimizers, self._configured, strict=True):
            follows = any(optimizer is other for other in scheduled)
            for group, settings in zip(optimizer.param_groups, configured, strict=True):
                # Without "initial_lr" the checkpoint is of a run without a schedule, so that of this run begins here.
                if follows and "initial_lr" in group:
                    check_schedule(group, settings, option)
                    kept = set(settings) if any(name in group for name in CYCLED) else {"lr", "initial_lr"}
                else:
                    kept = set()
                    group.pop("initial_lr", None)
                group.update({name: value for name, value in settings.items() if name not in kept})

    def begin_batch(self) -> None:
        """Find out whether a subclass steps its schedulers itself, as in Lightning's manual optimization."""
        for schedule in self._schedules:
            schedule.find_owner()

    def step(self, trainer: Trainer, batch_idx: int, after_generator: bool) -> None:
        """Step the schedulers whose interval ends with this batch, before any callback saves a checkpoint.

        Args:
            trainer: The trainer.
            batch_idx: Index of the batch in the epoch.
            after_generator: Whether the batch has ended an iteration of the generator.
        """
        ends_epoch = trainer.is_last_batch or batch_idx + 1 >= trainer.num_training_batches
        for schedule in self._schedules:
            if after_generator and schedule.config.interval == "step":
                schedule.step(trainer.global_step)
            elif ends_epoch and schedule.config.interval == "epoch":
                schedule.step(trainer.current_epoch + 1)


class Schedule:
    """A scheduler that is stepped either here or by a subclass.

    `interval` and `frequency` are Lightning's; a step is an iteration of the generator. If a subclass turns out to step
    its schedulers itself, the first step that was taken here is undone.
    """

    def __init__(self, config: LRSchedulerConfig, module: LightningModule) -> None:
        self.config, self._module = config, module
        self._left_at = self._position
        self._before: tuple[Any, Any] | None = None  # settings and state before our first step
        self._is_ours: bool | None = None  # unknown until the first step
        if isinstance(config.scheduler, ReduceLROnPlateau) and not is_overridden("lr_scheduler_step", module):
            self._is_ours = False
            _log.warning(
                "ReduceLROnPlateau needs a metric, which Lightning does not pass on under manual optimization: step it "
                "in on_validation_epoch_end by self.lr_schedulers().step(metric)"
            )

    @property
    def _position(self) -> int:
        return int(getattr(self.config.scheduler, "last_epoch", 0))

    def find_owner(self) -> None:
        """Leave the scheduler to the subclass if it has been stepped since the last call.

        Raises:
            InputError: If the subclass also steps it, in addition to our steps.
        """
        others = self._position - self._left_at
        if self._is_ours is None and others:
            self._is_ours = False
            if self._before is not None:
                self._take_back(others)
        elif self._is_ours and others:
            raise InputError("a scheduler is stepped twice: DCGAN steps it, leave out self.lr_schedulers().step()")
        elif self._before is not None:
            self._is_ours = True
        self._before, self._left_at = None, self._position

    def step(self, count: int) -> None:
        """Step the scheduler if the subclass does not and `frequency` divides the number of steps or epochs."""
        if self._is_ours is False or count % self.config.frequency:
            return
        scheduler = self.config.scheduler
        if self._is_ours is None:
            groups = [without_parameters(group) for group in scheduler.optimizer.param_groups]
            self._before = groups, copy.deepcopy(scheduler.state_dict())
        self._module.lr_scheduler_step(scheduler, None)
        self._left_at = self._position

    def _take_back(self, others: int) -> None:
        """Restore the state before our step, and repeat the steps of the subclass."""
        assert self._before is not None
        groups, state = self._before
        for group, settings in zip(self.config.scheduler.optimizer.param_groups, groups, strict=True):
            group.update(settings)
        self.config.scheduler.load_state_dict(state)
        for _ in range(others):
            self._module.lr_scheduler_step(self.config.scheduler, None)


def without_parameters(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a parameter group."""
    return {name: value for name, value in group.items() if name != "params"}


def check_schedule(group: Mapping[str, Any], settings: Mapping[str, Any], option: str) -> None:
    """Raise an InputError if the schedule of a checkpoint began at a learning rate other than that of this run."""
    began, given = group["initial_lr"], settings.get("initial_lr", settings["lr"])
    if began != given:
        raise InputError(
            f"{option} is {given:g}, but the schedule of the checkpoint began at {began:g} and continues from there: "
            f"leave {option} as it was, or start a new run"
        )
