"""Errors meant for the user, wherever in a chain of exceptions they are."""

import sys

import pytest

from gan_lightning.__main__ import main
from gan_lightning.errors import EXTRAS, InputError, first_line, mistake_behind
from tests.commands import CONFIGS, SMALL
from tests.test_package import PROJECT, distribution_name


def chained(cause):
    error = ValueError("a parser's own words")
    error.__cause__ = cause
    return error


def test_the_error_of_a_user_is_found_behind_others():
    mistake = InputError("one line")
    assert mistake_behind(chained(chained(mistake))) is mistake
    assert mistake_behind(ValueError("a bug")) is None
    assert mistake_behind(None) is None


@pytest.mark.parametrize("package", EXTRAS)
def test_a_missing_package_is_reported_with_its_extra(package):
    missing = ModuleNotFoundError(f"No module named '{package}'", name=package)
    extra = EXTRAS[package]
    assert str(mistake_behind(chained(missing))) == (
        f"{package} is not installed: pip install 'gan-lightning[{extra}]'"
    )
    assert package in [distribution_name(line) for line in PROJECT["optional-dependencies"][extra]]


def test_a_bug_is_not_taken_for_a_missing_package():
    handled = ValueError("a bug, in code that tried an import before")
    handled.__context__ = ModuleNotFoundError("No module named 'tensorboard'", name="tensorboard")
    assert mistake_behind(handled) is None
    assert mistake_behind(chained(ModuleNotFoundError("No module named 'gan_lightning.x'"))) is None


def test_a_logger_without_its_package_is_an_error_of_one_line(tmp_path, monkeypatch, faces_root, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gan-lightning"])
    for name in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
        monkeypatch.setattr(f"lightning.fabric.loggers.tensorboard.{name}", False)
    words = ["fit", "--config", str(CONFIGS / "quickstart.yaml"), *SMALL, "--data.root", str(faces_root)]
    words += ["--trainer.logger", "TensorBoardLogger", "--trainer.logger.save_dir", "logs", "--name", "run"]
    assert main(words) == 2
    message = capsys.readouterr().err
    assert "gan-lightning: error: tensorboard is not installed: pip install 'gan-lightning[tensorboard]'" in message
    assert "Traceback" not in message
    assert not list((tmp_path / "runs").rglob("*.*"))


def test_a_store_without_its_package_is_not_taken_for_a_wrong_address(tmp_path, monkeypatch):
    litdata = pytest.importorskip("litdata")
    from gan_lightning.data.decode import CropResize
    from gan_lightning.data.streaming import StreamedSplit

    def fail(*arguments, **options):
        raise ModuleNotFoundError("Requirement 'google.cloud.storage' not met. HINT: Try running `pip install ...`")

    monkeypatch.setattr(litdata.StreamingDataset, "__init__", fail)
    with pytest.raises(InputError, match=r"^gs://bucket/faces cannot be streamed: Requirement 'google") as raised:
        StreamedSplit("gs://bucket/faces", CropResize(16, None, 3), str(tmp_path))
    assert "give the folder or address" not in str(raised.value)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("what is wrong\nand more"), "what is wrong"),
        (OSError("\n first, after an empty line\n"), "first, after an empty line"),
        (KeyError(), "KeyError()"),
    ],
)
def test_the_first_line_of_an_error_is_never_empty(error, line):
    assert first_line(error) == line
