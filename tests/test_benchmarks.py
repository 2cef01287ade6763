"""The scripts behind the figures: each can be asked for its help, and says how its table was made."""

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SHARED = ("report", "tutorial")  # what the scripts import
SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("*.py") if path.stem not in SHARED)
TABLES = sorted((BENCHMARKS / "results").glob("*.md"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_explains_itself(name, monkeypatch, capsys):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    script = importlib.import_module(name)
    with pytest.raises(SystemExit) as stop:
        script.main()
    assert stop.value.code == 0
    assert script.__doc__.splitlines()[0] in capsys.readouterr().out


@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.stem)
def test_every_table_says_how_it_was_made(table):
    text = table.read_text()
    for needed in ("- command: `", "- commit: ", "- versions: python 3", "- hardware: "):
        assert needed in text
    command = text.split("- command: `")[1].split("`")[0]
    if command.startswith("make "):
        assert f"\n{command.split()[1]}:" in (BENCHMARKS.parent / "Makefile").read_text()
    else:
        assert command.removeprefix("python benchmarks/").split(".py")[0] in SCRIPTS
    assert "\n| --- |" in text or "\n| ---: |" in text
