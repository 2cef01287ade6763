"""Lightning's counters in a checkpoint, made those of a run that stands between two batches."""

from __future__ import annotations

from typing import Any

COUNTERS = ("ready", "started", "processed", "completed")


def set_to_batch_boundary(fit_loop: dict[str, Any], batches_in_epoch: float, validation_due: bool) -> None:
    """Count the batch that the counters are in the middle of as done; say whether validation comes before the next.

    Lightning saves from hooks that lie within a batch, an epoch or a validation, and its counters then tell of
    something begun. A resumed run would take half a validation, leave one out, or begin a new epoch early.

    Args:
        fit_loop: State of the fit loop, as it is in a checkpoint; it is changed in place.
        batches_in_epoch: Batches of a whole epoch.
        validation_due: Whether validation is to be done, from its first batch, before training goes on.
    """
    batches = fit_loop["epoch_loop.batch_progress"]
    for progress in (batches["total"], batches["current"]):
        progress.update(dict.fromkeys(COUNTERS, progress["ready"]))

    epochs, within = fit_loop["epoch_progress"], 0 < batches["current"]["ready"] < batches_in_epoch
    for progress in (epochs["total"], epochs["current"]):
        if within:  # `max_steps` ends a run within an epoch, which Lightning then takes for a whole one
            progress.update(started=progress["ready"], processed=progress["ready"] - 1, completed=progress["ready"] - 1)

    if validation_due:  # as if it had been stopped in its first batch
        validation = fit_loop["epoch_loop.val_loop.batch_progress"]
        validation["total"].update(ready=1, started=1, processed=0, completed=0)
        validation["current"].update(dict.fromkeys(COUNTERS, 0))
        validation["is_last_batch"] = False
