"""The scripts behind the figures: each can be asked for its help, and says how its table was made."""

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
# What the scripts import.
SHARED = (
    "report",
    "tutorial",
    "cuda_trace",
    "gpu_environment",
    "gpu_setup",
    "gpu_training",
    "gpu_runs",
    "gpu_restoration",
)
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
    for needed in ("- command: `python benchmarks/", "- commit: ", "- versions: python 3", "- hardware: "):
        assert needed in text
    script = text.split("- command: `python benchmarks/")[1].split(".py")[0]
    assert script in SCRIPTS
    assert "\n| --- |" in text or "\n| ---: |" in text
