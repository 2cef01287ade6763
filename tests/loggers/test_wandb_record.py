"""What W&B has of a run: read back from offline runs of a training in two parts, and of a restoration."""

import base64
import hashlib
import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from gan_lightning import DCGAN
from gan_lightning.callbacks.samples import GAP
from gan_lightning.callbacks.watch import Watch
from gan_lightning.errors import InputError
from gan_lightning.loggers import SteadyWandbLogger
from gan_lightning.loggers.metrics_file import MetricsFile
from gan_lightning.loggers.wandb_artifacts import artifact_name, fetch_checkpoint
from gan_lightning.loggers.wandb_config import describe_generator, not_yet_given, options_by_name
from tests.commands import CONFIGS, command, finished_wandb_run, fit, read_wandb_records, refusal, restore
from tests.conftest import FACES
from tests.loggers.test_wandb import server
from tests.modules.test_dcgan import TINY, train
from tests.processes import run

pytestmark = pytest.mark.usefixtures("own_folder")

LOGGED_ONCE = ("samples", "trainer/global_step")


def parts(run):
    """Return the records of each part of an offline run, in the order of time."""
    return [read_wandb_records(path) for path in sorted((run / "wandb").glob("offline-run-*/*.wandb"))]


def decoded(items):
    """Return the values of a record by name, with nested ones in dicts."""
    values = {}
    for item in items:
        *parents, name = item.nested_key or [item.key]
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = json.loads(item.value_json)
    return values


def rows(records):
    return [decoded(record.history.item) for record in records if record.WhichOneof("record_type") == "history"]


def config(records):
    values = {}
    for record in records:
        values |= decoded(record.config.update)
    return values


def summary(records):
    values = {}
    for record in records:
        values |= decoded(record.summary.update)
    return values


def started(records):
    return next(record.run for record in records if record.WhichOneof("record_type") == "run")


@pytest.fixture(scope="module")
def recorded(faces_root, tmp_path_factory):
    """Folder with a run of 4 steps of a Slurm array, resumed by its requeued job up to step 6, and a restoration."""
    folder = tmp_path_factory.mktemp("recorded")
    words = ["--data.count", FACES, "--config", "wandb", "--evaluation.metrics", "[fd,kid]"]
    words += ["--trainer.logger.tags=[faces,first]", "--trainer.logger.log_checkpoints", "true"]
    words += ["--trainer.logger.notes=about this run"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["gan-lightning"])
        patch.setenv("WANDB_DATA_DIR", str(folder / "staging"))
        patch.setenv("SLURM_ARRAY_JOB_ID", "4711")
        patch.setenv("SLURM_JOB_NAME", "rates")
        assert fit(faces_root, *words) == 0
        patch.setenv("SLURM_RESTART_COUNT", "1")
        assert fit(faces_root, *words, "--trainer.max_steps", "6") == 0
        patch.delenv("SLURM_RESTART_COUNT")
        assert restore(folder / "runs" / "run", faces_root, "deblur", "--config", "wandb") == 0
        yield folder / "runs"


def test_every_value_is_that_of_metrics_csv_to_the_last_digit(recorded):
    logged = {}
    for records in parts(recorded / "run"):
        for row in rows(records):
            for name, value in row.items():
                if name[0] != "_" and name not in LOGGED_ONCE and not isinstance(value, dict) and "samples" not in row:
                    logged.setdefault(name, []).append((row["trainer/global_step"], value))
    history = MetricsFile(recorded / "run").history()
    assert {"val/fd_random", "val/kid_random", "train/lr_g", "train/lr_d", "images_seen", "val/d_x"} <= set(history)
    assert logged == history
    assert [step for step, _ in logged["val/fd_random"]] == [0, 2, 4, 6]


def test_each_row_has_its_step_the_images_seen_and_the_learning_rates(recorded):
    for records in parts(recorded / "run"):
        for row in rows(records):
            assert row["images_seen"] == 16 * row["trainer/global_step"]
            assert (row["train/lr_g"], row["train/lr_d"]) == (5e-4, 5e-4)


def test_the_summary_has_the_best_value_beside_the_last_one(recorded):
    """Of the whole run, too, which W&B does not know in its second part."""
    for records in parts(recorded / "run"):
        metrics = [record.metric for record in records if record.metric.name]
        # Until 0.30, W&B also writes each metric that the pattern of all others has found.
        defined = {metric.name: metric for metric in metrics if not getattr(metric, "expanded_from_glob", False)}
        assert {"val/fd_random", "val/kid_random"} <= set(defined)
        assert not {"train/loss_g", "train/loss_d", "train/d_x", "val/d_x"} & set(defined)
        for name in ("val/fd_random", "val/kid_random"):
            assert defined[name].summary.min
            assert defined[name].summary.last
            assert defined[name].step_metric == "trainer/global_step"
    history = MetricsFile(recorded / "run").history()
    last = summary(parts(recorded / "run")[-1])
    for name in ("val/fd_random", "val/kid_random"):
        values = [value for _, value in history[name]]
        assert last[name] == {"min": min(values), "last": values[-1]}
    assert (last["g_steps"], last["images_seen"], last["status"]) == (6, 96, "finished")
    assert last["peak_memory_bytes"]["host"] > 50e6
    assert isinstance(last["train/loss_g"], float)


def test_a_requeued_offline_job_is_one_run_whose_rows_go_on(recorded):
    first, second = parts(recorded / "run")
    assert started(first).run_id == started(second).run_id
    assert started(second).resume
    numbers = [[row["_step"] for row in rows(records)] for records in (first, second)]
    assert max(numbers[0]) < min(numbers[1])
    assert all(later > earlier for part in numbers for earlier, later in itertools.pairwise(part))


def test_the_run_says_what_it_is(recorded):
    of_run = started(parts(recorded / "run")[0])
    assert (of_run.job_type, of_run.run_group, list(of_run.tags)) == ("fit", "rates-4711", ["faces", "first"])
    assert (of_run.display_name, of_run.notes) == ("run", "about this run")
    assert started(parts(recorded / "restored")[0]).job_type == "test"


def leaves(value, name=""):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{name}.{key}" if name else key)
    else:
        yield name, value


def test_the_configuration_has_each_option_once_by_its_name_and_no_nulls(recorded):
    options = config(parts(recorded / "run")[0])
    named = dict(leaves(options))
    assert named["model.lr_g"] == 5e-4
    assert named["data.batch_size"] == 16
    assert named["trainer.max_steps"] == 4
    assert not [name for name, value in named.items() if value is None]
    own = {name.rpartition(".")[2] for name in named if name.startswith(("model.", "data."))}
    assert not own & set(options), "hyperparameters that Lightning logs again"
    assert not [name for name in named if "init_args" in name]


def test_the_configuration_has_what_options_do_not_say(recorded):
    facts = config(parts(recorded / "run")[0])["run"]
    assert (facts["precision"], facts["devices"], facts["world_size"], facts["nodes"]) == ("32-true", 1, 1, 1)
    assert (facts["global_batch"], facts["accelerator"]) == (16, "cpu")
    assert facts["versions"].keys() >= {"torch", "lightning", "python", "gan-lightning"}
    assert facts["memory_bytes"]["host"] > 1e8
    assert facts["hardware"]["cores"] >= 1


def test_the_protocol_of_each_metric_is_a_set_of_keys(recorded):
    options = config(parts(recorded / "run")[0])
    for name in ("val/fd_random", "val/kid_random"):
        protocol = options[f"protocol/{name}"]
        expected = {"num_images": 10, "extractor": "random-v1", "split": "val", "crop": 178}
        assert protocol | expected == protocol
    assert options["protocol/val/kid_random"]["subset_size"] == 10


def test_pictures_have_captions_and_show_both_generators_and_real_images(recorded):
    pictures = [row["samples"] for records in parts(recorded / "run") for row in rows(records) if "samples" in row]
    assert [picture["captions"] for picture in pictures] == [
        [f"step {step}: averaged, generator, real"] for step in (0, 2, 4, 6)
    ]
    with Image.open(recorded / "run/samples/step-0000004.png") as picture:
        assert picture.width > 3 * (2 * 18 + 2) + 2 * GAP - 1
        right = picture.convert("L").crop((picture.width - 30, 20, picture.width, picture.height))
        left = picture.convert("L").crop((2, 20, 30, picture.height))
    assert len(set(right.tobytes())) > len(set(left.tobytes())), "faces are real, and the generator is untrained"


def test_summary_and_curves_are_uploaded(recorded):
    for folder in (recorded / "run" / "wandb").glob("offline-run-*"):
        assert json.loads((folder / "files" / "summary.json").read_text())["status"] == "finished"
        assert (folder / "files" / "curves.png").is_file()
    uploaded = [file.path for records in parts(recorded / "run") for r in records for file in r.files.files]
    assert {"summary.json", "curves.png"} <= set(uploaded)


def test_checkpoints_are_artifacts_named_after_the_run(recorded):
    artifacts = [record.artifact for record in parts(recorded / "run")[-1] if record.artifact.type == "model"]
    assert [artifact.name for artifact in artifacts] == ["run", "run"]
    for artifact, alias, name in zip(artifacts, ("best", "latest"), ("best.ckpt", "last.ckpt"), strict=True):
        assert alias in artifact.aliases
        (content,) = artifact.manifest.contents
        digest = hashlib.md5((recorded / "run/checkpoints" / name).read_bytes()).digest()
        assert (content.path, content.digest) == (name, base64.b64encode(digest).decode())
    assert "best" not in artifacts[1].aliases


def test_a_restoration_names_the_run_of_its_generator_and_shows_images_in_its_table(recorded):
    (records,) = parts(recorded / "restored")
    facts, identity = config(records)["generator"], started(parts(recorded / "run")[0]).run_id
    assert (facts["run"], facts["wandb_id"]) == ("run", identity)
    assert facts["checkpoint"].endswith("run/checkpoints/best.ckpt")
    (artifact,) = [record.artifact for record in records if record.artifact.type == "run_table"]
    contents = {content.path: content.local_path for content in artifact.manifest.contents}
    table = json.loads(Path(contents["restoration/images.table.json"]).read_text())
    assert table["columns"][:2] == ["panel", "name"]
    assert len(table["data"]) == 2
    for row in table["data"]:
        assert row[0]["_type"] == "image-file"
        with (
            Image.open(contents[row[0]["path"]]) as shown,
            Image.open(recorded / f"restored/panel/{row[1]}.png") as panel,
        ):
            assert shown.tobytes() == panel.tobytes()
    last = summary(records)
    assert isinstance(last["test/psnr"], float), "measured once: nothing beside it"


def test_an_alarm_is_an_alert(tmp_path):
    watch = Watch()
    options = {"logger": SteadyWandbLogger(save_dir=tmp_path, offline=True), "log_every_n_steps": 25}
    train(DCGAN(**TINY, lr_d=1e-12), 200, tmp_path, callbacks=[watch], limit_val_batches=0, **options)
    options["logger"].experiment.finish()
    (alarm,) = watch.alarms
    _, records = finished_wandb_run(tmp_path / "wandb")
    (alert,) = [record.alert for record in records if record.WhichOneof("record_type") == "alert"]
    assert (alert.title, alert.text) == ("Discriminator at chance", f"step {alarm.step}: {alarm.reason}")


# -- parts without a run ----------------------------------------------------------------------------------------------


def test_options_are_named_as_on_the_command_line():
    model = {"class_path": "DCGAN", "init_args": {"lr_g": 1.0, "gradient_clip": None, "inversion": {"refine": None}}}
    given = {"model": model, "ckpt_path": None, "trainer": {"callbacks": [model, None]}}
    named = {"class_path": "DCGAN", "lr_g": 1.0}
    assert options_by_name(given) == {"model": named, "trainer": {"callbacks": [named, None]}}


def test_hyperparameters_are_logged_unless_the_command_has_them():
    options = {"model": {"lr_g": 1.0}, "data": {"crop": 178}}
    params = {"lr_g": 1.0, "crop": 178, "own": 3, "nothing": None, "_instantiator": "x"}
    assert not_yet_given(params, options) == {"own": 3}
    assert not_yet_given(params, {}) == params


def test_a_generator_without_a_run_is_named_by_its_file(tmp_path):
    assert describe_generator(tmp_path / "G.ckpt") == {"checkpoint": str(tmp_path / "G.ckpt")}
    assert describe_generator("runs/demo/checkpoints/best.ckpt")["run"] == "demo"


def test_names_of_artifacts_have_no_other_signs():
    assert artifact_name("demo/validate best é") == "demo-validate-best-"


# -- checkpoints from W&B ---------------------------------------------------------------------------------------------


class Stored:
    """W&B's public interface, with one artifact."""

    def __init__(self, source, **options):
        self.source = source

    def artifact(self, path):
        if path != "team/faces/run:best":
            raise ValueError(f"artifact {path} not found\nand more lines")
        return SimpleNamespace(name="run:v3", digest="0123", download=self.download)

    def download(self, root):
        folder = type(self.source)(root)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "best.ckpt").write_bytes(self.source.read_bytes())


@pytest.fixture
def stored(recorded, monkeypatch):
    source = recorded / "run/checkpoints/best.ckpt"
    monkeypatch.setattr("wandb.Api", lambda **options: Stored(source, **options))
    return source


def test_a_run_starts_from_a_checkpoint_of_wandb(stored, faces_root):
    more = ["--ckpt_path", "wandb:team/faces/run:best", "--trainer.max_steps", "7", "--data.count", FACES]
    assert fit(faces_root, *more, name="next") == 0
    steps = [step for step, _ in MetricsFile("runs/next").history()["train/loss_g"]]
    assert steps[-1] == 7
    assert steps[0] > 1, "steps go on from those of the checkpoint"


def test_samples_are_drawn_from_a_checkpoint_of_wandb(stored, tmp_path):
    words = ["predict", "--model", "DCGAN", "--ckpt_path", "wandb:team/faces/run:best", "--trainer.accelerator", "cpu"]
    assert command(*words, "--num_samples", "2", "--name", "drawn") == 0
    assert len(list((tmp_path / "runs/drawn/samples").iterdir())) == 2


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("wandb:team/faces/other:best", "cannot be downloaded (artifact team/faces/other:best not found)"),
        ("wandb:faces/run:best", "names no checkpoint of W&B: expected wandb:ENTITY/PROJECT/NAME:best"),
        ("wandb:team/faces/run", "names no checkpoint of W&B: expected wandb:ENTITY/PROJECT/NAME:best"),
    ],
)
def test_a_checkpoint_that_wandb_does_not_have_is_one_line(stored, faces_root, capsys, reference, said):
    line = refusal(capsys, fit(faces_root, "--ckpt_path", reference, "--data.count", FACES))
    assert f"{reference} {said}" in line


FETCH = """\
import sys
from gan_lightning.loggers.wandb_artifacts import fetch_checkpoint
fetch_checkpoint(sys.argv[1])
"""


@pytest.mark.parametrize(("key", "said"), [(None, "No API key configured"), ("0" * 40, "not found")])
def test_wandb_itself_is_asked_and_its_refusal_is_one_line(tmp_path, key, said):
    (tmp_path / "fetch.py").write_text(FETCH)
    with server("answering") as (port, _):
        environment = {"WANDB_BASE_URL": f"http://127.0.0.1:{port}", "HOME": str(tmp_path), "WANDB_API_KEY": key}
        result = run(tmp_path / "fetch.py", "wandb:team/faces/run:best", environment=environment, timeout=60)
    assert result.returncode != 0
    assert InputError.__name__ in result.stderr.splitlines()[-1]
    assert said in result.stderr.splitlines()[-1]


def test_an_artifact_that_is_no_checkpoint_is_refused(stored, monkeypatch):
    monkeypatch.setattr(Stored, "download", lambda self, root: None)
    with pytest.raises(InputError, match="has 0 files that end in"):
        fetch_checkpoint("wandb:team/faces/run:best", str(stored.parent.parent / "other-cache"))


def test_configurations_are_found_beside_a_folder_of_the_same_name(capsys, tmp_path):
    (tmp_path / "wandb").mkdir()
    assert command("fit", "--config", CONFIGS / "quickstart.yaml", "--config", "wandb", "--print_config") == 0
    assert "SteadyWandbLogger" in capsys.readouterr().out
