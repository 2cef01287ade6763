"""metrics.csv: what is logged can be read back, whatever the order and over restarts."""

from gan_lightning.loggers import MetricsFile


def test_columns_may_come_later_and_nothing_is_lost(tmp_path):
    log = MetricsFile(tmp_path / "run")
    log.log_metrics({"a": 1.0}, step=0)
    log.log_metrics({"b": 2.5, "a": 3.0}, step=10)
    log.log_metrics({"b": float("nan")}, step=20)
    history = log.history()
    assert history["a"] == [(0, 1.0), (10, 3.0)]
    assert history["b"][0] == (10, 2.5)
    assert history["b"][1][1] != history["b"][1][1]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["metrics.csv"]


def test_a_resumed_run_goes_on_with_the_file(tmp_path):
    MetricsFile(tmp_path).log_metrics({"a": 1.0}, step=1)
    again = MetricsFile(tmp_path)
    again.log_metrics({"c": 2.0}, step=2)
    assert again.history() == {"a": [(1, 1.0)], "c": [(2, 2.0)]}
    assert again.path.read_text().splitlines()[0] == "step,a,c"


def test_values_come_back_to_the_last_digit(tmp_path):
    log = MetricsFile(tmp_path)
    log.log_metrics({"a": 0.1 + 0.2}, step=1)
    assert log.history()["a"] == [(1, 0.1 + 0.2)]
