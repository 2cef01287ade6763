"""The scripts behind the figures: each can be asked for its help, and says how its table was made."""

import ast
import importlib
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
# What the scripts import.
SHARED = (
    "browser",
    "environment",
    "reference_methods",
    "report",
    "tutorial",
    "cuda_trace",
    "dead_leaves",
    "gpu_environment",
    "gpu_graphs",
    "gpu_setup",
    "gpu_training",
    "gpu_runs",
    "gpu_restoration",
    "recipe_arms",
    "recipe_data",
    "recipe_table",
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
    for needed in ("- command: `", "- commit: ", "- versions: python 3", "- hardware: "):
        assert needed in text
    command = text.split("- command: `")[1].split("`")[0]
    if command.startswith("make "):
        assert f"\n{command.split()[1]}:" in (BENCHMARKS.parent / "Makefile").read_text()
    else:
        assert command.removeprefix("python benchmarks/").split(".py")[0] in SCRIPTS
    assert "\n| --- |" in text or "\n| ---: |" in text


def test_every_planted_bug_applies(monkeypatch):
    """A refactoring that rewrites a line which a bug changes, or renames a test that should see it, fails here."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    planted = importlib.import_module("planted_bugs")
    assert planted.check(planted.BUGS) == []
    stale = planted.Bug(
        "stale", "gan_lightning/seeding.py", "no such text", "", "tests/test_seeding.py::test_of_no_one"
    )
    assert len(planted.check([stale])) == 2


def test_a_step_asks_torch_for_little_more_than_plain_torch(monkeypatch):
    """Of 299 operations 200 have a kernel; one more for each layer would be more than the margin. Versions differ."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    profile = importlib.import_module("step_profile")
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    ours = [int(cell) for cell in profile.operations_of_a_step(images, "bf16-mixed").cells()]
    plain_step = profile.PlainStep(profile.Setup("cpu", profile.Sizes(), None), len(images), "bf16-mixed")
    plain = [int(cell) for cell in profile.of_call(plain_step).cells()]
    more = [one - other for one, other in zip(ours, plain, strict=True)]
    assert [number <= limit for number, limit in zip(more, (30, 16, 0, 1), strict=True)] == [True] * 4, (ours, plain)


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name != "planted_bugs"])  # which starts the tests alone
def test_no_script_lets_idle_threads_spin(name):
    """OpenMP reads its wait policy when torch is imported."""
    imports = [
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.parse((BENCHMARKS / f"{name}.py").read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    foreign = [module for module in imports if module.split(".")[0] not in sys.stdlib_module_names]
    assert foreign[0] in ("environment", "gpu_environment")


@pytest.mark.parametrize("given", [None, "ACTIVE"])
def test_the_wait_policy_of_the_user_wins(given):
    code = "import environment, os, sys; assert 'torch' not in sys.modules; print(os.environ['OMP_WAIT_POLICY'])"
    variables = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    variables |= {"PYTHONPATH": str(BENCHMARKS)} | ({"OMP_WAIT_POLICY": given} if given else {})
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables, check=True)
    assert result.stdout.strip() == (given or "PASSIVE")


@pytest.mark.slow
def test_the_benchmark_of_a_busy_machine_runs():
    """A training step and a restoration, each alone and beside a process that keeps a core busy."""
    command = [sys.executable, BENCHMARKS / "busy_machine.py", "--quick", "--repeats", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith(("| restoration", "| training"))]
    assert len(rows) == 2
    assert all(float(alone) > 0 and float(beside) > 0 for _, alone, beside, *_ in rows)


@pytest.mark.slow
def test_the_benchmark_of_a_gpu_runs_on_a_cpu(tmp_path):
    """Every part runs from end to end on small networks; what only a GPU can tell says so."""
    command = [sys.executable, BENCHMARKS / "gpu.py", "--device", "cpu", "--quick", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    log = (tmp_path / "gpu_log.txt").read_text()
    assert done.returncode == 0, done.stdout[-3000:] + log[-3000:]
    assert "Parts that failed or were ended: none; rows that failed: 0." in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {
        "train_cpu.md",
        "checks_cpu.md",
        "restoration_cpu.md",
        "gpu_log.txt",
    }
    tables = "".join(path.read_text() for path in sorted(tmp_path.glob("*.md")))
    assert tables.count("- command: `python benchmarks/gpu.py --device cpu --quick") == 3
    for found in ("needs CUDA", "| the tutorial's | bf16-mixed |", "stopped and resumed | equal to the bit |"):
        assert found in tables


def test_a_part_that_fails_or_hangs_leaves_its_rows_and_does_not_stop_the_next(tmp_path, monkeypatch):
    """A crash, a hang and an exception each end one part alone."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    gpu = importlib.import_module("gpu")
    setup = gpu.Setup("cpu", gpu.QUICK, tmp_path)
    runner = gpu.Runner(setup, tmp_path, minutes=1)

    def crash(setup):
        print("a row", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    def hang(setup):
        print("a row", flush=True)
        time.sleep(60)

    def fail(setup):
        raise ValueError("of no use")

    assert runner.run("crash", crash, 30).startswith("a row\n")
    assert "ended after its limit" in runner.run("hang", hang, 2.5)
    assert "FAILED: ValueError: of no use" in runner.run("fail", fail, 30)
    assert "part fine: " in runner.run("fine", lambda setup: print("a row"), 30)
    assert runner.failed == ["crash", "hang", "fail"]


def test_a_trace_is_summarized(monkeypatch):
    """Overlapping kernels are busy once; copies, waits and launches are counted by their names."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    cuda_trace = importlib.import_module("cuda_trace")
    events = [
        {"cat": "kernel", "name": "conv", "ts": 0.0, "dur": 1000.0},
        {"cat": "kernel", "name": "conv", "ts": 500.0, "dur": 1000.0},
        {"cat": "kernel", "name": "add", "ts": 3000.0, "dur": 500.0},
        {"cat": "gpu_memcpy", "name": "Memcpy DtoH (Device -> Pinned)", "ts": 3400.0, "dur": 600.0},
        {"cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": 0.0, "dur": 5.0},
        {"cat": "cuda_runtime", "name": "cudaStreamSynchronize", "ts": 0.0, "dur": 5.0},
        {"cat": "cpu_op", "name": "aten::add", "ts": 0.0, "dur": 5.0},
        {"ph": "M", "name": "process_name"},
    ]
    summary = cuda_trace.summarize_trace(events)
    assert (summary.kernels, summary.launches, summary.synchronizations) == (3, 1, 1)
    assert summary.busy_ms == pytest.approx(2.5)
    assert dict(summary.copies) == {"DtoH": 1}
    assert summary.slowest(1) == [("conv", 2.0, 2)]


def test_a_synchronization_is_counted_at_the_line_of_the_package(monkeypatch):
    """Of a warning deep in torch the innermost line of ours is named."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    cuda_trace = importlib.import_module("cuda_trace")
    stack = [
        traceback.FrameSummary("/x/gan_lightning/modules/dcgan.py", 7, "step", line="loss.item()"),
        traceback.FrameSummary("/torch/site-packages/torch/_tensor.py", 9, "item", line="return"),
    ]
    assert cuda_trace.calling_line(stack) == "gan_lightning/modules/dcgan.py:7 `loss.item()`"
    lightning = traceback.FrameSummary("/torch/site-packages/lightning/result.py", 3, "metrics", line="to_item(x)")
    assert cuda_trace.calling_line([lightning, stack[1]]) == "site-packages/lightning/result.py:3 `to_item(x)`"
    assert cuda_trace.calling_line(stack[1:]) == "site-packages/torch/_tensor.py:9 `return`"
