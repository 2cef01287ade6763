"""A file is either unchanged or complete, never partial."""

import socket
import subprocess
import sys

import pytest

from gan_lightning.atomic import atomic_path


@pytest.mark.parametrize("durable", [False, True])
def test_the_file_appears_when_the_block_ends(tmp_path, durable):
    target = tmp_path / "made on the way" / "file.txt"
    with atomic_path(target, durable=durable) as beside:
        beside.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


def test_an_error_leaves_the_former_file_and_nothing_beside_it(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("former")

    def fail():
        with atomic_path(target) as beside:
            beside.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fail()
    assert target.read_text() == "former"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_a_kill_in_the_block_leaves_the_former_file(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("former")
    script = (
        "import os, signal, sys; from gan_lightning.atomic import atomic_path\n"
        "with atomic_path(sys.argv[1]) as beside:\n"
        "    beside.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script, target]).returncode == -9
    assert target.read_text() == "former"


def test_processes_with_the_same_number_on_hosts_of_the_same_name_write_to_different_files(tmp_path):
    """As in containers, whose processes are all number 1."""
    with atomic_path(tmp_path / "file") as one, atomic_path(tmp_path / "file") as other:
        assert one != other
        assert socket.gethostname() in one.name
        one.write_text("one")
        other.write_text("other")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["x" * 255, "写" * 85])
def test_a_temporary_name_is_never_longer_than_the_file_system_allows(tmp_path, name):
    with atomic_path(tmp_path / name) as beside:
        beside.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]
