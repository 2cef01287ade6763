"""Position of a training within steps and validations, for signals, errors and checkpoints."""

from __future__ import annotations

from lightning import Trainer

from gan_lightning.resume.lightning_internals import batch_is_processed, validation_is_due


class TrainingPosition:
    """Record of whether a step is running, and whether a validation must come before the next one."""

    def __init__(self, trainer: Trainer) -> None:
        """Start before the first step.

        Args:
            trainer: Trainer whose position is tracked.
        """
        self._trainer = trainer
        self._failed = False
        self._step_under_way: int | None = None  # the value of `global_step` when it started
        self._validated_batch = -1  # the batch before the last validation

    def begin_step(self) -> None:
        """Record that a batch has been passed to the training step."""
        self._step_under_way = self._trainer.global_step

    def end_step(self) -> None:
        """Record that the training step has returned."""
        self._step_under_way = None

    def end_validation(self) -> None:
        """Record that the current networks have been validated."""
        self._validated_batch = self._trainer.fit_loop.total_batch_idx

    def fail(self) -> None:
        """Record that an error or a signal has stopped the run."""
        self._failed = True

    @property
    def step_is_whole(self) -> bool:
        """Whether all networks have taken the current step, even if its last hooks have not run yet."""
        updated = self._step_under_way is not None and self._trainer.global_step > self._step_under_way
        return updated or batch_is_processed(self._trainer)

    @property
    def can_stop(self) -> bool:
        """Whether neither a step is running nor a checkpoint is being written."""
        writing = getattr(self._trainer.strategy.checkpoint_io, "writing", False)
        return self._step_under_way is None and self.step_is_whole and not writing

    @property
    def validation_is_due(self) -> bool:
        """Whether the networks have to be validated before the next step."""
        if self._trainer.validating and not self._failed:  # asked by a hook at the end of the validation
            return False
        return self._trainer.fit_loop.total_batch_idx != self._validated_batch and validation_is_due(self._trainer)
