"""Checkpoints are complete or absent, whatever happens while they are written, and the previous one is kept."""

import contextlib
import errno
import os
import resource
from pathlib import Path

import pytest
import torch

from gan_lightning.errors import StorageError
from gan_lightning.resume.checkpoint_io import WholeCheckpoints


def content(step):
    return {"step": step, "weights": torch.full((50_000,), float(step))}


def step_of(path):
    loaded = torch.load(path, weights_only=True)
    assert (loaded["weights"] == loaded["step"]).all()
    return loaded["step"]


@contextlib.contextmanager
def no_file_larger_than(size):
    """Limit the size of files, so that a larger write fails as it does on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_the_previous_last_checkpoint_is_kept(tmp_path):
    writer, last, previous = WholeCheckpoints(), tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    for step in (1, 2, 3):
        writer.save_checkpoint(content(step), last)
        assert step_of(last) == step
        assert step_of(previous) == step - 1 if step > 1 else not previous.exists()
    writer.save_checkpoint(content(9), tmp_path / "best.ckpt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt", "previous.ckpt"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("call", range(8))
def test_at_every_moment_one_of_the_two_is_whole(tmp_path, monkeypatch, links, call):
    """The process ends before its n-th call of the file system, and another one resumes."""
    writer, last, previous = WholeCheckpoints(), tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    for step in (1, 2):
        writer.save_checkpoint(content(step), last)
    calls = 0

    def counted(function):
        def count_first(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls > call:  # all later calls fail too: a dead process cleans nothing up
                raise Killed
            return function(*arguments, **options)

        return count_first

    def no_links(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patch:
        for owner, name in ((Path, "replace"), (Path, "unlink"), (os, "fsync"), (torch, "save")):
            patch.setattr(owner, name, counted(getattr(owner, name)))
        patch.setattr(Path, "hardlink_to", counted(Path.hardlink_to) if links else no_links)
        with contextlib.suppress(Killed):
            writer.save_checkpoint(content(3), last)
    whole = [path for path in (last, previous) if path.exists()]
    assert max(step_of(path) for path in whole) >= 2
    assert last in whole or not links
    again = WholeCheckpoints()
    again.load_checkpoint(whole[0])
    again.save_checkpoint(content(4), last)
    assert step_of(last) == 4
    assert step_of(previous) >= 2 or not links


def test_a_last_checkpoint_that_was_not_resumed_does_not_become_the_previous_one(tmp_path):
    """It may be damaged, and previous.ckpt may have been resumed instead."""
    writer, last, previous = WholeCheckpoints(), tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    for step in (1, 2):
        writer.save_checkpoint(content(step), last)
    last.write_bytes(last.read_bytes()[:999])
    assert step_of(previous) == 1
    again = WholeCheckpoints()
    again.load_checkpoint(previous)
    again.save_checkpoint(content(3), last)
    assert (step_of(last), step_of(previous)) == (3, 1)


def test_a_full_disk_leaves_the_existing_checkpoints_and_no_partial_file(tmp_path):
    writer, last = WholeCheckpoints(), tmp_path / "last.ckpt"
    for step in (1, 2):
        writer.save_checkpoint(content(step), last)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with no_file_larger_than(100_000), pytest.raises(StorageError, match=r"last\.ckpt could not be written") as caught:
        writer.save_checkpoint(content(3), last)
    assert "the previous one is unchanged" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    writer.save_checkpoint(content(3), last)
    assert step_of(tmp_path / "previous.ckpt") == 2


def test_the_message_has_the_reason_from_the_system(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"No space left on device.*there is no previous one: free disk space"):
        WholeCheckpoints().save_checkpoint(content(1), tmp_path / "best.ckpt")
    assert not list(tmp_path.iterdir())


def test_other_errors_are_not_reported_as_errors_of_the_disk(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(RuntimeError, match="CUDA error"):
        WholeCheckpoints().save_checkpoint(content(1), tmp_path / "best.ckpt")
    assert not list(tmp_path.iterdir())
