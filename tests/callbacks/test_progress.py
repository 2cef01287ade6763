"""The progress bar is updated by the clock, in each of Lightning's loops, and no more often than the user wants."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from gan_lightning.callbacks import progress
from gan_lightning.callbacks.progress import ProgressBar

LOOPS = ("train", "validation", "test", "predict")


def updates(bar: ProgressBar, loop: str, batches: int, seconds: float, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the batches of one loop after which the bar has changed, on a clock that moves on with each batch."""
    now, changed = 100.0, []
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    monkeypatch.setattr(bar, "get_metrics", lambda *_: {})
    tqdm = Tqdm(total=batches, file=io.StringIO())
    setattr(bar, {"validation": "val"}.get(loop, loop) + "_progress_bar", tqdm)
    for batch_idx in range(batches):
        now += seconds
        before = tqdm.n
        getattr(bar, f"on_{loop}_batch_end")(SimpleNamespace(), SimpleNamespace(), None, None, batch_idx)
        if tqdm.n != before:
            changed.append(tqdm.n)
    return changed


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("terminal", "interval"), [(True, 0.1), (False, 10.0)])
def test_the_bar_is_drawn_by_the_clock_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, interval: float, loop: str
) -> None:
    monkeypatch.setattr(progress.sys.stdout, "isatty", lambda: terminal)
    drawn = updates(ProgressBar(), loop, 1000, interval / 100, monkeypatch)
    assert drawn[0] == 1
    assert drawn[-1] == 1000
    assert 9 <= len(drawn) <= 12


def test_a_slower_rate_of_the_users_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert updates(ProgressBar(refresh_rate=7), "train", 20, 60, monkeypatch) == [7, 14, 20]


def test_an_error_begins_on_a_line_of_its_own() -> None:
    bar, file = ProgressBar(), io.StringIO()
    bar.predict_progress_bar = Tqdm(total=3, file=file)
    bar.on_exception(SimpleNamespace(), SimpleNamespace(), RuntimeError())  # type: ignore[arg-type]
    assert file.getvalue().endswith("\n")
