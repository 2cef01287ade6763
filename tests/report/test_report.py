"""`gan-lightning report`: one page that compares runs."""

import base64
import io
import json
import re
import shutil
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from gan_lightning.__main__ import main
from gan_lightning.callbacks.samples import side_by_side
from gan_lightning.images import make_grid, write_png
from gan_lightning.report.charts import smoothed, thinned
from gan_lightning.report.comparison import columns, differences
from gan_lightning.report.pictures import BUDGET, MOST_GRIDS, evenly, parts, read_grids
from gan_lightning.report.png import left_columns
from gan_lightning.report.run_folder import read_metrics, read_runs, short_names

PROTOCOL = {"dataset": "faces", "split": "val", "num_images": 100, "extractor": "random-v1", "ema_decay": 0.99}


class Page(HTMLParser):
    """What a page holds: text, attributes by tag, and whether each tag is closed where it should be."""

    VOID = ("meta", "img", "input", "br", "link")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & {*self.open}:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def make_run(folder, steps=4, distance=10.0, protocol=None, grids=3, size=32, **options):
    """Write the files of a run."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    model = {"class_path": "gan_lightning.DCGAN", "init_args": {"lr_g": 2e-4, "ema_decay": 0.99, **options}}
    config = {"model": model, "data": {"init_args": {"image_size": size}}, "sample_grid": {"num_images": 4}}
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, "name": folder.name}))
    lines = ["step,images_seen,val/fd_random,train/loss_g,train/images_per_second"]
    for step in range(steps + 1):
        lines += [f"{step},{16 * step},{distance + 5 * abs(step - 3)},,", f"{step},{16 * step},,{step % 3},8"]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    summary = {"status": "finished", "g_steps": steps, "images_seen": 16 * steps, "seconds": 100.0, "alarms": []}
    summary["protocol"] = {"val/fd_random": PROTOCOL if protocol is None else protocol}
    (folder / "summary.json").write_text(json.dumps(summary))
    rng = torch.Generator().manual_seed(0)
    for step in range(grids):
        batch = torch.randint(0, 256, (4, 3, size, size), generator=rng, dtype=torch.uint8)
        sides = {"averaged": batch, "generator": batch.flip(0), "real": 255 - batch}
        picture = side_by_side({title: make_grid(images) for title, images in sides.items()})
        write_png(folder / "samples" / f"step-{step:07d}.png", picture)
    return folder


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def report(*folders, output="report.html"):
    assert main(["report", *map(str, folders), "--output", output]) == 0
    return Path(output).read_text()


def refused(capsys, *words):
    capsys.readouterr()
    assert main(["report", *map(str, words)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0].removeprefix("gan-lightning: error: ")


def table(text, label):
    """Return the rows of a table, cell by cell, without marks."""
    part = re.search(rf'aria-label="{label}">(.*?)</table>', text, flags=re.DOTALL)[1]
    rows = re.findall(r"<tr>(.*?)</tr>", part, flags=re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, flags=re.DOTALL) for row in rows]
    return [[" ".join(re.sub(r"<[^>]*>", " ", cell).split()) for cell in row] for row in cells]


def test_the_page_of_real_runs_is_whole_and_needs_no_network(finished, tmp_path, in_folder):
    other = shutil.copytree(finished, tmp_path / "other")
    text = report(finished, other)
    page = Page(text)
    assert not re.search(r"(?:https?:)?//[\w.-]+\.\w", re.sub(r"base64,[^\"]*", "", text)), "an address"
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert attributes.get(name, "#").startswith(("#", "data:image/webp;base64,")), (tag, attributes)
    targets = {attributes.get("id") for _, attributes in page.tags}
    assert {link["href"][1:] for link in page.all("a")} <= targets
    assert all(image["alt"] for image in page.all("img"))
    assert all(picture["aria-label"] for picture in page.all("svg"))
    (best,) = [c for c in columns(read_runs([finished])[0]) if c.metric == "val/fd_random"]
    summary = json.loads((finished / "summary.json").read_text())["metrics"]["val/fd_random"]
    assert best.best(0) == (summary["best"], summary["best_step"])
    assert best.last(0) == summary["last"]
    assert f"{summary['best']:.4g}" in page.text
    assert "All options are the same." in page.text
    grids = [image for image in page.all("img") if "data-step" in image]
    assert [image["data-step"] for image in grids] == ["0", "2", "4"] * 2
    assert ["hidden" not in image for image in grids] == [False, False, True] * 2


def test_ids_are_unique_and_what_refers_to_them_finds_them(in_folder):
    page = Page(report(make_run("a"), make_run("b")))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    repeated = {name for name in ids if ids.count(name) > 1}
    assert not repeated
    for _, attributes in page.tags:
        for value in attributes.values():
            for name in re.findall(r"url\(#([^)]+)\)", value or ""):
                assert name in ids


def test_what_differs_between_the_options(in_folder):
    runs, _ = read_runs([make_run("a"), make_run("b", lr_g=1e-3), make_run("c", r1=0.5)])
    assert {d.option: d.values for d in differences(runs)} == {
        "model.lr_g": ["0.0002", "0.001", "0.0002"],
        "model.r1": ["—", "—", "0.5"],
    }
    rows = table(report("a", "b", "c"), "Options of training that differ")
    assert rows[0] == ["Option", "a", "b", "c"]
    assert rows[1][1:] == ["0.0002", "0.001", "0.0002"]


def test_best_and_last_values_and_the_best_of_all(in_folder):
    text = report(make_run("a"), make_run("b", distance=7.0))
    rows = table(text, "Metrics of training")
    assert rows[2:] == [["a", "10 at 3", "15"], ["b", "7 at 3", "12"]]
    assert re.findall(r'winner">(\d+)', text) == ["7"]
    assert "Not all runs were measured in the same way" not in text


def test_distances_of_different_protocols_are_never_in_one_column(in_folder):
    others = {**PROTOCOL, "num_images": 50}
    same = {**PROTOCOL, "ema_decay": 0.5}  # of the network, not of the measurement
    make_run("a"), make_run("b", protocol=others), make_run("c", protocol=same), make_run("d", protocol={})
    text = report("a", "b", "c", "d")
    rows = table(text, "Metrics of training")
    assert rows[2:] == [
        ["a", "10 at 3", "15", "—", "—", "—", "—"],
        ["b", "—", "—", "10 at 3", "15", "—", "—"],
        ["c", "10 at 3", "15", "—", "—", "—", "—"],
        ["d", "—", "—", "—", "—", "10 at 3", "15"],
    ]
    page = Page(text)
    assert "Not all runs were measured in the same way" in page.text
    assert [page.text.count(f"protocol {letter}") > 1 for letter in "ABCD"] == [True, True, True, False]
    differs = re.findall(r'class="differs"><dt>(\w+)', text)
    assert set(differs) == {"num_images"}
    drawn = [svg["aria-label"] for svg in page.all("svg") if svg["aria-label"].startswith("val/fd_random")]
    assert not any("a " in label and "b " in label.split("last values")[1] for label in drawn if "protocol B" in label)


def test_a_folder_that_is_no_run_is_named_and_the_others_are_compared(in_folder, capsys):
    make_run("a")
    Path("none").mkdir()
    Path("file").write_text("")
    half = make_run("half")
    (half / "config.yaml").unlink()
    (half / "summary.json").write_text('{"status": ')
    content = (half / "metrics.csv").read_text()
    (half / "metrics.csv").write_text(content[: content.rindex("8") - 5])
    broken = half / "samples" / "step-0000001.png"
    broken.write_bytes(broken.read_bytes()[:100])
    text = report("a", "none", "absent", "file", "half", "a")
    told = capsys.readouterr()
    for place in (told.err, Page(text).text):
        for part in (
            "none is no run: it holds neither config.yaml nor metrics.csv nor summary.json",
            "absent does not exist",
            "file is a file: give the folder of a run",
            "config.yaml is missing",
            "summary.json cannot be read",
            "metrics.csv ends in the middle of a line",
            "samples/step-0000001.png cannot be read",
        ):
            assert part in place, part
    assert "2 runs compared in report.html" in told.out
    assert [row[0] for row in table(text, "Runs")] == ["Run", "a", "half"]
    assert "there is no run to report on" in refused(capsys, "none", "--output", "other.html")
    assert not Path("other.html").exists()


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_metrics_file_is_read_wherever_it_was_cut_off(cut):
    whole = "step,images_seen,val/fid,train/loss_g\n0,0,12.5,\n0,0,,0.25\n10,160,11.75,\n"
    notes = []
    metrics = read_metrics(whole[:-cut], notes)
    values = metrics["val/fid"].values if "val/fid" in metrics else []
    assert values in ([], [12.5], [12.5, 11.75]), "no part of a number"
    assert bool(notes) == (not whole[:-cut].endswith("\n"))


def test_damaged_lines_and_values_that_are_not_finite(in_folder):
    notes = []
    metrics = read_metrics("step,val/fid,val/x\n0,1,2\n1,oops,2\n2,nan,3\n3,4\n4,5,inf\n", notes)
    assert metrics["val/fid"].steps == [0, 2, 4]
    assert len(notes) == 2
    folder = make_run("a")
    (folder / "metrics.csv").write_text("step,images_seen,val/fid\n0,0,nan\n1,4,inf\n2,8,nan\n")
    assert "not finite" in Page(report("a")).text
    (folder / "metrics.csv").write_text("step,images_seen,val/fid\n0,0,nan\n1,4,3\n2,8,inf\n")
    assert table(report("a"), "Metrics of training")[-1][1] == "3 at 1"


def test_no_file_of_others_is_overwritten(in_folder, capsys):
    make_run("a")
    Path("mine.html").write_text("<html>mine</html>")
    assert "mine.html exists and was not written by this command" in refused(capsys, "a", "--output", "mine.html")
    assert Path("mine.html").read_text() == "<html>mine</html>"
    assert "--output a is a folder" in refused(capsys, "a", "--output", "a")
    assert "see gan-lightning report --help" in refused(capsys, "a")
    assert report("a") == report("a"), "replaced, by an equal page"


def test_what_a_run_is_called_cannot_change_the_page(in_folder):
    name = '<script>alert("x")&amp;'
    folder = make_run(name, objective="</style><b>")
    summary = json.loads((folder / "summary.json").read_text())
    summary["alarms"] = [{"name": "x", "step": 3, "reason": "<img src=x>"}]
    (folder / "summary.json").write_text(json.dumps(summary))
    page = Page(report(name, make_run("b")))
    assert len(page.all("script")) == 1
    assert name in page.text
    assert "<img src=x>" in page.text


def test_time_is_that_of_training():
    """From the logged rate: 16 images at 8 a second are two seconds. A row without a rate has the time of the last."""
    metrics = read_metrics(
        "step,images_seen,val/fid,train/images_per_second\n0,0,9,\n1,16,,8\n2,32,,4\n2,32,5,\n", notes := []
    )
    assert not notes
    assert metrics["val/fid"].seconds == [0, 6]
    assert metrics["train/images_per_second"].seconds == [2, 6]


def test_grids_are_cut_out_of_the_pictures_of_samples(in_folder):
    run = read_runs([make_run("a")])[0][0]
    with Image.open(run.grids[-1][1]) as file:
        picture = file.copy()
    found = parts(picture, run.config)
    assert len(found) == 3
    averaged, generator, real = (np.asarray(part).astype(int) for part in found)
    tiles = [(slice(2 + 34 * y, 34 + 34 * y), slice(2 + 34 * x, 34 + 34 * x)) for y in range(2) for x in range(2)]
    for place, tile in enumerate(tiles):
        assert (averaged[tile] + real[tile] == 255).all()
        assert (generator[tiles[3 - place]] == averaged[tile]).all()
    assert parts(picture, {}) == [picture], "of unknown size: as it is"
    (grids,) = read_grids([run])
    assert [picture.step for picture in grids.samples] == [0, 1, 2]
    shown = Image.open(io.BytesIO(base64.b64decode(grids.real.data.partition(",")[2])))
    assert shown.size == real.shape[1::-1]


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_left_columns_of_a_png_are_those_of_the_whole(tmp_path, mode):
    """With rows of all five filters: noise, gradients and edges make an encoder choose each of them somewhere."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:90, :120]
    smooth = np.stack([2 * x, 2 * y, x + y], axis=-1) + rng.integers(0, 3, (90, 120, 3))
    smooth[30:50] = rng.integers(0, 256, (20, 120, 3))
    smooth[50:60, 40:] = 7
    Image.fromarray(smooth.astype(np.uint8)).convert(mode).save(tmp_path / "image.png")
    with Image.open(tmp_path / "image.png") as image:
        whole = np.asarray(image)
    for count in (1, 37, 120):
        part = left_columns(tmp_path / "image.png", count)
        assert part.mode == mode
        assert (np.asarray(part) == whole[:, :count]).all()


def test_a_png_of_another_kind_is_left_to_pillow_and_a_damaged_one_refused(tmp_path):
    Image.new("RGBA", (8, 8)).save(tmp_path / "alpha.png")
    Image.new("P", (8, 8)).save(tmp_path / "palette.png")
    Image.new("I;16", (8, 8)).save(tmp_path / "deep.png")
    assert [left_columns(tmp_path / f"{name}.png", 4) for name in ("alpha", "palette", "deep")] == [None] * 3
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(tmp_path / "x.png")
    whole = (tmp_path / "x.png").read_bytes()
    for cut in (0, 20, 60, len(whole) - 40):
        (tmp_path / "x.png").write_bytes(whole[:cut])
        with pytest.raises((ValueError, zlib.error, struct.error)):
            left_columns(tmp_path / "x.png", 4)


def test_pictures_stay_within_the_budget_however_many_there_are(in_folder):
    runs, _ = read_runs([make_run("a", grids=6, size=128), make_run("b", grids=6, size=128)])
    full, small = (
        [picture for of_run in read_grids(runs, budget) for picture in of_run.samples] for budget in (BUDGET, 150_000)
    )
    assert len(full) == len(small) == 12
    assert sum(len(picture.data) for picture in small) * 3 / 4 < 150_000 < sum(len(picture.data) for picture in full)
    assert evenly(range(1000), MOST_GRIDS)[0] == 0
    assert evenly(range(1000), MOST_GRIDS)[-1] == 999
    assert len(evenly(range(1000), MOST_GRIDS)) == MOST_GRIDS


def test_restorations_stand_apart_from_trainings(in_folder):
    make_run("training")
    for name, sigma in (("blur-2", 2.0), ("blur-3", 3.0)):
        folder = Path(name)
        folder.mkdir()
        degradation = {"class_path": "gan_lightning.degradations.GaussianBlur", "init_args": {"sigma": sigma}}
        model = {"degradation": degradation, "generator_ckpt": "training/checkpoints/best.ckpt"}
        config = {"model": {"class_path": "gan_lightning.LatentRestoration", "init_args": model}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "metrics.csv").write_text(f"step,test/psnr,test/psnr_median\n0,{20 + sigma},21\n")
        write_png(folder / "panel" / "face <1>.png", torch.zeros(3, 20, 90))
    text = report("training", "blur-2", "blur-3")
    rows = table(text, "Metrics of restoration")
    assert rows[2:] == [["blur-2", "22", "—"], ["blur-3", "—", "23"]], "not of the same degraded images"
    assert [row[0] for row in table(text, "Metrics of training")[2:]] == ["training"]
    page = Page(text)
    assert "Generator: training/checkpoints/best.ckpt" in page.text
    assert sum("Restoration of face <1>" in (image["alt"] or "") for image in page.all("img")) == 2


def test_names_are_as_short_as_they_can_be():
    paths = [Path("/x/runs/a"), Path("/x/runs/b"), Path("/y/runs/b")]
    assert short_names(paths) == ["a", "x/runs/b", "y/runs/b"]


def test_a_thinned_curve_keeps_its_peaks_and_a_smoothed_one_its_mean():
    x = np.arange(5000.0)
    y = np.zeros(5000)
    y[[17, 2500, 4999]] = 3, -7, 1
    kept_x, kept_y = thinned(x, y)
    assert len(kept_x) <= 165
    assert (kept_x[kept_y != 0] == [17, 2500, 4999]).all()
    assert np.allclose(smoothed(np.full(100, 2.5)), 2.5)
    assert np.allclose(smoothed(x)[500:-500], x[500:-500])


def test_many_runs_have_colors_of_their_own_and_no_torch_is_loaded(in_folder):
    import subprocess
    import sys

    folders = [str(make_run(f"run-{number}", grids=1)) for number in range(12)]
    code = (
        "import sys; from gan_lightning.__main__ import main; "
        f"assert main(['report', *{folders!r}, '--output', 'many.html']) == 0; "
        "assert not {'torch', 'lightning'} & {*sys.modules}"  # seconds, of which a page takes few
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = Path("many.html").read_text()
    assert ".mark-11 { --color: var(--run-1); }" in text
    assert "mark-11 dash-1" in text
    assert "mark-9 dash-0" in text


def test_the_help_fits_a_screen(capsys):
    assert main(["report", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 30
    assert max(map(len, lines)) <= 120
