"""The tables of the recipes, the configurations that came of them, and the commands of `make reproduce-celeba`."""

import importlib
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from PIL import Image

from gan_lightning.__main__ import main
from tests.commands import CONFIGS, SMALL

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture
def table(monkeypatch):
    """Return the module that makes the tables, without its header."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module = importlib.import_module("recipe_table")
    monkeypatch.setattr(module, "print_header", lambda *lines: None)  # at exit it prints how long that took
    return module


@pytest.fixture
def rows(table):
    """Return rows of the finalists and of both starts, with distances that are easy to tell."""
    rows = []
    for number, recipe in enumerate([*table.FINALISTS, "first guess", "first guess + hinge", "second guess"]):
        for data in table.DATA:
            for seed in table.SEEDS if recipe in table.FINALISTS else [0]:
                rows += run(recipe, data, seed, 8 / 2**number + seed)
    return rows


def run(recipe, data, seed, distance, budget=60_000, limit=""):
    """Return the rows of a run, which ends with a distance, and twice it in the features of the classifier."""
    return [
        {"recipe": recipe, "data": data, "seed": str(seed), "budget": str(budget), "limit": limit, "settings": "one",
         "images": str(budget * point // 6), "fd_random": str(distance + 6 - point),
         "fd_classifier": str(2 * distance + 6 - point), "precision": "0.5", "recall": str(0.1 * (seed + 1)),
         "density": "1.5", "coverage": "0.25"}
        for point in range(1, 7)
    ]  # fmt: skip


def cells(printed, heading):
    """Return the cells of the table under a heading, by line."""
    section = printed.split(f"## {heading}")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][2:]
    return [line.strip("| ").split(" | ") for line in lines]


def test_finalists_have_means_over_their_seeds_and_ratios_to_the_tutorial(table, rows, capsys):
    table.print_tables(rows)
    found = {tuple(line[:2]): line[2:] for line in cells(capsys.readouterr().out, "60,000 images seen")}
    assert len(found) == 6
    assert found["chosen", "faces"] == [
        "3.00 (2.00 to 4.00)", "0.333", "6.00 (4.00 to 8.00)", "0.333", "0.500", "0.200", "1.500", "0.250", "3"
    ]  # fmt: skip


def test_a_round_is_at_seed_0_with_ratios_to_its_start_and_names_what_was_not_run(table, rows, capsys):
    rows += run("second guess + batch 16", "faces", 0, 1) + run("second guess + batch 16", "digits", 0, 4)
    rows += run("first guess + no penalty", "faces", 0, 1)  # but not of the digits
    table.print_tables(rows)
    printed = capsys.readouterr().out
    assert [line[:6] for line in cells(printed, "First round")] == [
        ["hinge", "0.500", "0.500", "0.500", "0.500", "0.500"],
        ["**first guess**", "1.00", "1.00", "1.00", "1.00", "1.00"],
    ]
    missing = printed.split("Not run from this start")[1].splitlines()[0]
    assert "no penalty" in missing
    assert "hinge;" not in missing
    second = {line[0]: line[1:6] for line in cells(printed, "Second round")}
    assert second["batch 16"] == ["8.00", "1.00", "4.00", "4.00", "16.0"]
    assert second[table.CHOSEN.removeprefix("second guess + ")][1:3] == ["2.00", "8.00"]


def test_the_best_and_the_last_of_a_long_run_and_few_images(table, rows, capsys):
    long = run(table.CHOSEN, "faces", 0, 1, budget=180_000)
    long[2]["fd_random"] = "0.5"
    few = run(table.CHOSEN, "faces", 0, 1, limit="500")
    few += run(f"{table.CHOSEN} + color, translation", "faces", 0, 3, limit="500")
    table.print_tables([*rows, *long, *few])
    printed = capsys.readouterr().out
    assert cells(printed, "180,000 images seen")[0][:5] == ["chosen", "faces", "0.500 at 90,000", "1.00", "2.00"]
    assert cells(printed, "500 training images")[1][:4] == [
        "chosen + color, translation", "faces", "3.00 (3.00 to 3.00)", "3.00"
    ]  # fmt: skip


def test_an_incomplete_run_and_two_settings_are_refused(table, rows, tmp_path):
    for made in (table.print_tables, lambda rows: table.draw(rows, tmp_path / "curves.png")):
        with pytest.raises(ValueError, match=r"recipe='second guess'.*is incomplete: expected 6 rows but got 5"):
            made(rows[:-1])
        with pytest.raises(ValueError, match="two different settings"):
            made([*rows[:-1], rows[-1] | {"settings": "other"}])
    assert not list(tmp_path.iterdir())


@pytest.mark.drawn
def test_curves_are_drawn(table, rows, tmp_path):
    table.draw(rows, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width == table.WIDTH * table.DPI


def test_the_committed_tables_are_those_of_the_committed_measurements(table, monkeypatch, capsys):
    recipes = importlib.import_module("recipes")
    table.print_tables(recipes.read(RESULTS / "recipes.csv"))
    committed = (RESULTS / "recipes.md").read_text()
    body = committed[committed.index("\n## ") + 1 : committed.index("Made in ")]
    assert body == capsys.readouterr().out


def test_the_page_quotes_the_committed_tables():
    page, committed = (path.read_text() for path in (ROOT / "docs" / "recipes.md", RESULTS / "recipes.md"))
    quoted = re.findall(r"[\d.,]+ \([\d.,]+ to [\d.,]+\)", page)
    assert len(quoted) == 16
    assert [text for text in quoted if f"| {text} |" not in committed] == []


def test_the_measurements_are_of_the_recipes_as_they_are_now(table):
    """The CSV file has a digest of the options of each run."""
    recipes = importlib.import_module("recipes")
    rows = recipes.read(RESULTS / "recipes.csv")
    for run, settings in {(row["recipe"], row["budget"], row["settings"]): row["settings"] for row in rows}.items():
        data = recipes.DataSet("faces", Path(), 10_000, 64)
        task = recipes.Task(run[0], data, 0, int(run[1]), None, 64, 4000, "cpu", None)
        assert task.key[-1] == settings, run


@pytest.mark.parametrize("name", ["quickstart", "image_folder64", "celeba64"])
def test_configurations_have_the_chosen_recipe(table, name):
    """Only that of long runs on much data has larger batches and a longer average."""
    chosen = importlib.import_module("recipe_arms").recipe(table.CHOSEN)
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    options = config["model"]["init_args"] | {"batch_size": config["data"]["init_args"]["batch_size"]}
    for key, value in chosen.items():
        default = {"objective": "non_saturating", "r2": 0.0}.get(key)
        own = {"batch_size": 64, "ema_half_life": 20_000}.get(key, value) if name == "celeba64" else value
        found = options.get(key, default)
        assert (tuple(found) if isinstance(found, list) else found) == own, key


def outside_of_make():
    """The environment without what `make test` tells a make below it, which then prints where it is."""
    return {name: value for name, value in os.environ.items() if name not in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS")}


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(("given", "said"), [([], "DATA is missing"), (["DATA=/none"], "DATA=/none does not exist")])
def test_reproducing_celeba_without_its_data_is_refused_first(given, said):
    command = ["make", "reproduce-celeba", *given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=outside_of_make())
    assert done.returncode == 2
    assert said in done.stderr
    assert not done.stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_commands_that_reproduce_celeba_run(own_folder, faces_root):
    """On a smaller scale: training, the measurements of both checkpoints, and all again, as if resumed."""
    command = ["make", "--dry-run", "reproduce-celeba", f"DATA={faces_root}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = re.findall(r"^\S*gan-lightning (.*)$", done.stdout, re.MULTILINE)
    assert [re.findall(r"--name \S+", line)[0][-1] for line in lines] == [*"000111222"]
    fit, last, best = lines[:3]
    for line in (fit, last, best, f"{fit} --ckpt_path last", last, best):
        words = [word.replace("50000", "10") for word in shlex.split(line)]
        assert main([*words, *SMALL]) == 0
    assert len(list(Path("runs/celeba-0").glob("validate-*"))) == 4
