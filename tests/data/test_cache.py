"""The folder of derived data, and its locks."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from gan_lightning.data.cache import default_cache_dir, exclusive


def hold(path: Path, seconds: float) -> None:
    with exclusive(path):
        (path.parent / "held").touch()
        time.sleep(seconds)


def holder(path: Path, seconds: float) -> multiprocessing.process.BaseProcess:
    """Start a process that holds the lock when this returns."""
    process = multiprocessing.get_context("spawn").Process(target=hold, args=(path, seconds), daemon=True)
    process.start()
    deadline = time.monotonic() + 60
    while not (path.parent / "held").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return process


def test_one_process_waits_for_another_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "x.lock"
    process = holder(path, 1)
    with caplog.at_level(logging.INFO), exclusive(path) as held:
        process.join(10)
        assert held
        assert process.exitcode == 0
    lines = [record.getMessage() for record in caplog.records if record.name == "gan_lightning.data.cache"]
    assert lines == [f"Waiting for another process that holds {path}"]


def test_a_killed_process_holds_no_lock(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    process = holder(tmp_path / "x.lock", 600)
    process.kill()
    process.join()
    with caplog.at_level(logging.INFO), exclusive(tmp_path / "x.lock") as held:
        assert held
    assert "Waiting" not in caplog.text


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_locks_are_unsupported_the_body_runs_and_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", unsupported)
    for _ in range(2):  # no marker is left behind that the second would wait for
        with exclusive(tmp_path / "x.lock") as held:
            assert not held


def test_a_folder_that_cannot_be_written_to_has_no_lock(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with exclusive(tmp_path / "file" / "x.lock") as held:
        assert not held


def test_default_cache_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAN_LIGHTNING_CACHE", "/own")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert default_cache_dir() == Path("/own")
    monkeypatch.delenv("GAN_LIGHTNING_CACHE")
    assert default_cache_dir() == Path("/xdg/gan-lightning")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir() == Path.home() / ".cache/gan-lightning"
