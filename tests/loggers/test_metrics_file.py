"""metrics.csv: logged metrics are read back unchanged, in any order and across restarts."""

import pytest

from gan_lightning.errors import StorageError
from gan_lightning.loggers.metrics_file import MetricsFile
from tests.resume.test_checkpoint_io import no_file_larger_than


def test_columns_can_be_added_later_and_nothing_is_lost(tmp_path):
    log = MetricsFile(tmp_path / "run")
    log.log_metrics({"a": 1.0}, step=0)
    log.log_metrics({"b": 2.5, "a": 3.0}, step=10)
    log.log_metrics({"b": float("nan")}, step=20)
    history = log.history()
    assert history["a"] == [(0, 1.0), (10, 3.0)]
    assert history["b"][0] == (10, 2.5)
    assert history["b"][1][1] != history["b"][1][1]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["metrics.csv"]


def test_a_resumed_run_appends_to_the_file(tmp_path):
    MetricsFile(tmp_path).log_metrics({"a": 1.0}, step=1)
    again = MetricsFile(tmp_path)
    again.log_metrics({"c": 2.0}, step=2)
    assert again.history() == {"a": [(1, 1.0)], "c": [(2, 2.0)]}
    assert again.path.read_text().splitlines()[0] == "step,a,c"


def test_values_are_read_back_to_the_last_digit(tmp_path):
    log = MetricsFile(tmp_path)
    log.log_metrics({"a": 0.1 + 0.2}, step=1)
    assert log.history()["a"] == [(1, 0.1 + 0.2)]


def text(log):
    return log.path.read_text()


def test_rewinding_to_a_number_of_rows_restores_the_file(tmp_path):
    """Columns of later rows are removed too, so that the file ends up as if the run had never stopped."""
    log = MetricsFile(tmp_path)
    log.log_metrics({"a": 1.0}, step=1)
    log.log_metrics({"a": 2.0}, step=2)
    then = text(log)
    log.log_metrics({"b": 3.0}, step=2)
    log.log_metrics({"a": 4.0}, step=3)
    later = text(log)
    again = MetricsFile(tmp_path)
    assert again.rows == 4
    again.rewind(rows=2)
    assert (text(again), again.rows) == (then, 2)
    assert (tmp_path / "metrics-before-resume-1.csv").read_text() == later
    again.log_metrics({"b": 3.0}, step=2)
    again.log_metrics({"a": 4.0}, step=3)
    assert text(again) == later


def test_rows_up_to_a_step_are_kept_if_their_number_is_unknown(tmp_path):
    log = MetricsFile(tmp_path)
    for step in (1, 2, 3):
        log.log_metrics({"a": float(step)}, step=step)
    log.rewind(None, step=2)
    assert log.history() == {"a": [(1, 1.0), (2, 2.0)]}
    log.rewind(None)
    assert log.rows == 2


def test_a_full_disk_leaves_no_partial_row(tmp_path):
    log = MetricsFile(tmp_path)
    log.log_metrics({"a": 1.0}, step=1)
    before = text(log)
    for metrics in ({"a": 0.1234567890123}, {"new": 1.0}):
        with (
            no_file_larger_than(len(before) + 5),
            pytest.raises(StorageError, match=r"metrics\.csv could not be written"),
        ):
            log.log_metrics(metrics, step=2)
        assert text(log) == before
    log.log_metrics({"a": 2.0}, step=2)
    assert log.history() == {"a": [(1, 1.0), (2, 2.0)]}
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]
