"""All ranks start from the checkpoint that rank 0 has found."""

from types import SimpleNamespace

import pytest

from gan_lightning import InputError, distributed
from gan_lightning.resume.same_start import check_same_start


def check(monkeypatch, found, path="run/last.ckpt", step=3):
    monkeypatch.setattr(distributed, "gather", lambda own: [own, *found])
    check_same_start(SimpleNamespace(ckpt_path=path), step)


def test_copies_on_different_disks_are_the_same_checkpoint(monkeypatch):
    check(monkeypatch, ["last.ckpt of step 3"] * 2)
    check(monkeypatch, ["no checkpoint"], path=None, step=7)


@pytest.mark.parametrize("other", ["last.ckpt of step 2", "previous.ckpt of step 2", "no checkpoint"])
def test_a_node_that_sees_another_file_is_named_in_one_line(monkeypatch, other):
    said = f"rank 2 starts from {other}, but rank 0 from last.ckpt of step 3"
    with pytest.raises(InputError, match=said):
        check(monkeypatch, ["last.ckpt of step 3", other])
