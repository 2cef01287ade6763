"""Table of the networks at the start of a training."""

from __future__ import annotations

import logging
from typing import Any

from lightning.pytorch.callbacks import ModelSummary

_log = logging.getLogger(__name__)


class NetworkTable(ModelSummary):
    """Lightning's summary of a model, without rows of modules without parameters and without empty columns."""

    @staticmethod
    def summarize(
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        model_size: float,
        total_training_modes: dict[str, int],
        total_flops: int,
        **kwargs: Any,
    ) -> None:
        """Log the table, and the number of trained parameters."""
        parameters = next((cells for name, cells in summary_data if name == "Params"), [])
        rows = [row for row, count in enumerate(parameters) if str(count).strip() != "0"]
        columns = [[name.strip(), *(str(cells[row]).strip() for row in rows)] for name, cells in summary_data]
        columns = [column for column in columns if column[0] and not set(column[1:]) <= {"0", "?"}]
        widths = [max(map(len, column)) for column in columns]
        lines = [
            "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in zip(*columns, strict=True)
        ]
        trained = f"{trainable_parameters:,} of {total_parameters:,} parameters are trained"
        _log.info("%s", "\n".join([*lines, trained]))
