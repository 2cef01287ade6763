"""`gan-lightning app`: its options, and what it says before it serves anything."""

import re
import signal
import socket
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

from gan_lightning.commands import app as app_command
from gan_lightning.commands.app import HELP, free_port, is_loopback, parse
from gan_lightning.errors import InputError
from tests.commands import command, refusal
from tests.processes import Process

pytestmark = pytest.mark.usefixtures("own_folder")


def test_the_help_names_every_option(capsys):
    assert command("app") == 0
    assert capsys.readouterr().out == HELP
    options = vars(parse(["--generator", "G.ckpt"]))
    assert {f"--{name}" for name in options} | {"--help"} == set(re.findall(r"^  (?:-h, )?(--\w+)", HELP, re.MULTILINE))
    assert (options["host"], options["port"]) == ("127.0.0.1", 7860)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "7860"], "--generator"),
        (["--generator", "G.ckpt", "--share"], "unrecognized arguments: --share"),
        (["--generator", "G.ckpt", "--port", "-1"], "--port is -1: give 0 or more"),
        (["--generator", "G.ckpt", "--port", "70000"], "--port is 70000: give 65535 or less"),
        (["--generator", "G.ckpt", "--max_megabytes", "0"], "--max_megabytes is 0.0: give 0.1 or more"),
        (["--generator", "no.ckpt", "--port", "0"], "no.ckpt"),
        (["--generator", "G.ckpt", "--host", "192.0.2.1"], "--host 192.0.2.1 is not an address of this machine"),
        (["--generator", "faces64", "--port", "0", "--device", "cuda:99"], "--device cuda:99 cannot be used here"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys):
    assert message in refusal(capsys, command("app", *words))


def test_a_port_in_use_is_one_line(capsys):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        line = refusal(capsys, command("app", "--generator", "faces64", "--port", port))
    assert f"--port {port} is in use: give another one, such as --port " in line
    assert free_port("127.0.0.1", 0) > 1023


def test_a_missing_extra_is_named(monkeypatch, capsys):
    monkeypatch.setattr(app_command, "find_spec", lambda name: None)
    line = refusal(capsys, command("app", "--generator", "faces64"))
    assert line.endswith("gradio, which makes the page, is not installed: pip install 'gan-lightning[app]'")


def test_an_address_that_others_reach_is_pointed_out(monkeypatch, capsys):
    monkeypatch.setattr("gan_lightning.app.server.serve", lambda options, port: 0)
    for host, lines in (("0.0.0.0", 1), ("127.0.0.1", 0), ("localhost", 0)):
        assert command("app", "--generator", "faces64", "--host", host, "--port", "0") == 0
        assert len(capsys.readouterr().err.splitlines()) == lines
    assert [is_loopback(host) for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost")] == [True] * 4
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "example.org"))
    with pytest.raises(InputError, match="is no address"):
        free_port("no host at all", 0)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_ended_and_leaves_nothing(number):
    process = Process("gan_lightning", "app", "--generator", "faces64", "--port", 0)
    try:
        until = time.monotonic() + 200
        while not (found := re.search(r"open (http://127\.0\.0\.1:\d+)", process.output()[0])):
            assert time.monotonic() < until
            assert process.poll() is None, process.output()
            time.sleep(0.2)
        with urllib.request.urlopen(found[1], timeout=60) as answer:
            assert b"Restore a photograph" in answer.read()
        assert list(Path(tempfile.gettempdir()).glob(f"gan-lightning-app-{process.pid}-*"))
        process.send_signal(number)
        assert process.wait(60) == 0
    finally:
        process.kill()
    assert process.output()[1] == ""
    assert not list(Path(tempfile.gettempdir()).glob(f"gan-lightning-app-{process.pid}-*"))
    assert not any(Path(sys.modules["gan_lightning.app"].__file__).parent.glob("*.pyi"))  # which gradio may write
