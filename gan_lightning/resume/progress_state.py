"""Lightning's counters in a checkpoint, set to those of a run between two batches.

The keys and the meaning of the counters are internal to Lightning; tests/resume/test_lightning_internals.py checks
them.
"""

from __future__ import annotations

from typing import Any

COUNTERS = ("ready", "started", "processed", "completed")


def set_to_batch_boundary(fit_loop: dict[str, Any], batches_in_epoch: float, validation_due: bool) -> None:
    """Count the current batch as finished, and set whether validation comes before the next one.

    Lightning saves from hooks within a batch, an epoch or a validation, and its counters then describe an unfinished
    one. A run resumed from them would repeat half a validation, skip one, or start a new epoch too early.

    Args:
        fit_loop: State of the fit loop in a checkpoint; changed in place.
        batches_in_epoch: Number of batches in a whole epoch.
        validation_due: Whether a validation, from its first batch, must precede further training.
    """
    batches = fit_loop["epoch_loop.batch_progress"]
    for progress in (batches["total"], batches["current"]):
        progress.update(dict.fromkeys(COUNTERS, progress["ready"]))

    epochs, within = fit_loop["epoch_progress"], 0 < batches["current"]["ready"] < batches_in_epoch
    for progress in (epochs["total"], epochs["current"]):
        if within:  # Lightning counts an epoch as completed when `max_steps` ends a run within it
            progress.update(started=progress["ready"], processed=progress["ready"] - 1, completed=progress["ready"] - 1)

    if validation_due:  # as if the validation had been interrupted in its first batch
        validation = fit_loop["epoch_loop.val_loop.batch_progress"]
        validation["total"].update(ready=1, started=1, processed=0, completed=0)
        validation["current"].update(dict.fromkeys(COUNTERS, 0))
        validation["is_last_batch"] = False
