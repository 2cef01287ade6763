"""Properties of the machine."""

import os

import pytest

from gan_lightning.hardware import count_cores, hardware, peak_memory


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system does not bind processes to cores")
def test_only_cores_that_this_process_may_use_are_counted():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert count_cores() == hardware()["cores"] == 1
    finally:
        os.sched_setaffinity(0, before)
    assert count_cores() == len(before)


def test_memory_is_in_bytes_and_only_grows():
    before = peak_memory()["host"]
    block = bytearray(b"x") * (before + 50_000_000)
    assert peak_memory()["host"] >= len(block)
