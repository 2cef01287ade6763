from __future__ import annotations

import pytest

from gan_lightning.callbacks import progress
from gan_lightning.callbacks.progress import ProgressBar


@pytest.mark.parametrize(("terminal", "interval"), [(True, 0.1), (False, 10.0)])
def test_the_bar_is_drawn_by_the_clock_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, interval: float
) -> None:
    now = 100.0
    monkeypatch.setattr(progress.sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    bar, drawn = ProgressBar(), []
    for batch in range(1, 1001):
        now += interval / 100
        if bar._should_update(batch, 1000):
            drawn.append(batch)
    assert drawn[0] == 1
    assert drawn[-1] == 1000
    assert 9 <= len(drawn) <= 12


def test_a_slower_rate_of_the_users_is_kept() -> None:
    bar = ProgressBar(refresh_rate=7)
    assert not bar._should_update(6, 100)
    assert bar._should_update(7, 100)
