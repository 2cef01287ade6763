"""What a restoration leaves in its folder, also when it is interrupted and run again."""

import csv
import json
import logging
import os
import re
import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.loggers import Logger
from PIL import Image
from safetensors import safe_open
from torch.utils.data import DataLoader

from gan_lightning import ImageFolder
from gan_lightning.callbacks import restoration_progress
from gan_lightning.callbacks.restoration_pictures import (
    SMALLEST_SIDE,
    TITLE_HEIGHT,
    color_map,
    draw_losses,
    draw_panel,
    error_map,
    losses_figure,
    make_panel,
    panel_scale,
    psnr,
)
from gan_lightning.callbacks.restoration_progress import RestorationProgress
from gan_lightning.callbacks.restoration_writer import (
    RestorationWriter,
    describe_unexplained,
    latent_steps,
    until_it_stopped,
)
from gan_lightning.data.photos import photo_loader
from gan_lightning.degradations import Downsample, GaussianBlur, SquareMask
from gan_lightning.errors import InputError
from gan_lightning.images import to_uint8, write_png
from gan_lightning.inversion import InversionSettings
from gan_lightning.metrics.restoration import image_errors
from gan_lightning.modules.restoration import LatentRestoration
from gan_lightning.modules.restoration_store import Record, RestorationStore
from gan_lightning.networks.dcgan import Generator
from tests.figures import leave_figures_undrawn
from tests.processes import run_ranks

SIZE, LATENT, COUNT = 16, 6, 4
QUICK = InversionSettings(solver="lbfgs", num_searches=1, num_steps=6, start="random", refine_steps=4, noise_level=0.0)
TWO = replace(QUICK, num_searches=2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("generator") / "generator.pt"
    generator = Generator(SIZE, latent_dim=LATENT, base_channels=4)
    for parameter in generator.parameters():  # as drawn, its images are all but gray
        parameter.data *= 4
    torch.save(generator.state_dict(), path)
    return str(path)


def faces():
    coarse = torch.rand(COUNT, 3, 2, 2, generator=torch.Generator().manual_seed(1)) - 0.5  # faint: a search explains it
    images = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear")
    return [{"image": image, "index": torch.tensor(10 + row)} for row, image in enumerate(images)]


def restore(checkpoint, folder, *callbacks, degradation=None, logger=False, inversion=QUICK, drawn=False, **options):
    """Restore the faces; figures are composed, and drawn if asked to."""
    trainer = Trainer(
        accelerator="cpu",
        logger=logger,
        callbacks=[RestorationWriter(intermediate_every=3), *callbacks],
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=folder,
        enable_progress_bar=any(isinstance(callback, RestorationProgress) for callback in callbacks),
    )
    module = LatentRestoration(checkpoint, degradation or SquareMask(SIZE, 4), inversion=inversion, **options)
    with pytest.MonkeyPatch.context() as patch:
        if not drawn:
            leave_figures_undrawn(patch.setattr)
        (metrics,) = trainer.test(module, DataLoader(faces(), batch_size=2), verbose=False)
    return metrics


@pytest.fixture(scope="module")
def finished(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, restore(checkpoint, folder, drawn=True)


NAMES = [f"{10 + row:06d}" for row in range(COUNT)]


def as_made(path):
    """Return the pictures of a panel of 16 px faces as they were before they were enlarged, without the titles."""
    scale, whole = panel_scale((SIZE, SIZE)), pixels(path)[:, TITLE_HEIGHT:]
    small = whole[:, ::scale, ::scale]
    assert torch.equal(small.repeat_interleave(scale, 1).repeat_interleave(scale, 2), whole)
    return small


def pixels(path):
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)


def test_a_run_writes_all_it_promises(finished):
    folder, _ = finished
    for kind in ("target", "degraded", "restored", "panel"):
        assert sorted(path.stem for path in (folder / kind).iterdir()) == NAMES
    assert {path.name for path in folder.iterdir() if path.is_file()} == {
        "images.csv",
        "latents.safetensors",
        "losses.png",
    }
    assert not list(folder.rglob("*.part*"))
    for row, face in enumerate(faces()):
        assert torch.equal(pixels(folder / "target" / f"{NAMES[row]}.png"), to_uint8(face["image"]))
    steps = {path.name for path in (folder / "intermediate" / NAMES[0]).iterdir()}
    assert {"latent-0000.png", "latent-0003.png", "latent-0006.png", "features-0000.png"} <= steps


def test_the_table_has_a_row_an_image_whose_mean_is_what_was_logged(finished):
    folder, metrics = finished
    with (folder / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == NAMES
    assert {row["converged"] for row in rows} == {"False"}  # ten steps are never enough
    assert {row["num_steps"] for row in rows} == {"10"}
    for name in ("psnr", "ssim_hole", "l1_degraded"):
        assert np.mean([float(row[name]) for row in rows]) == pytest.approx(metrics[f"test/{name}"], rel=1e-4)


def test_latents_and_losses_are_kept(finished):
    folder, _ = finished
    with safe_open(folder / "latents.safetensors", "pt") as file:
        assert file.get_tensor("latent").shape == (COUNT, LATENT)
        assert json.loads(file.metadata()["names"]) == NAMES
    for record in RestorationStore(folder).read():
        history = record.tensors["history"]
        assert 1 < len(history) <= 11
        assert float(history.min()) < float(history[0])


APART = {"degradation": SquareMask(SIZE, 12), "inversion": replace(TWO, num_steps=2, refine_steps=0)}


@pytest.fixture(scope="module")
def twice(checkpoint, tmp_path_factory):
    folder, logger = tmp_path_factory.mktemp("twice"), Kept()
    return folder, restore(checkpoint, folder, logger=logger, keep_searches=True, **APART), logger


def test_several_searches_leave_their_spread_and_themselves(twice, finished):
    folder, metrics, logger = twice
    assert sorted(path.stem for path in (folder / "spread").iterdir()) == NAMES
    with (folder / "images.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    for name in NAMES:
        found = [pixels(folder / "searches" / name / f"{number}.png") for number in range(2)]
        assert len(list((folder / "searches" / name).iterdir())) == 2
        panel, spread = as_made(folder / "panel" / f"{name}.png"), pixels(folder / "spread" / f"{name}.png")
        assert panel.shape == (3, SIZE + 4, 5 * (SIZE + 2) + 2)
        assert torch.equal(panel[:, 2:-2, -SIZE - 2 : -2], spread)
        differ = (found[0].float() - found[1]).abs().mean(0) > 3
        assert spread.sum(0)[differ].float().mean() > spread.sum(0)[~differ].float().mean()
        assert 0 < float(rows[name]["spread"]) < 0.25
    for metric in ("spread_rank", "spread_rank_hole"):
        mean = np.mean([float(row[metric]) for row in rows.values()])
        assert mean == pytest.approx(metrics[f"test/{metric}"], rel=1e-4)
    explained = [row["explained"] for row in rows.values()]
    assert metrics["test/explained"] == explained.count("True") / COUNT > 0
    columns, _ = logger.tables["restoration/images"]
    assert {"explained", "spread", "spread_rank"} <= set(columns)
    assert {"spread/*.png", "searches/*/*.png"} <= set(logger.files)
    alone, _ = finished
    assert not (alone / "spread").exists()
    assert not (alone / "searches").exists()
    assert as_made(alone / "panel" / f"{NAMES[0]}.png").shape[2] == 4 * (SIZE + 2) + 2
    with (alone / "images.csv").open() as file:
        assert not [column for column in next(csv.reader(file)) if "spread" in column]


def test_a_folder_without_the_searches_is_refused_where_they_are_to_be_kept(twice, checkpoint):
    with pytest.raises(InputError, match="other settings"):
        restore(checkpoint, twice[0], **APART)


class Interrupt(Callback):
    """Stops the run in its second batch, as Ctrl-C or a walltime would."""

    def on_test_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if batch_idx == 1:
            raise RuntimeError("walltime")


def test_an_interrupted_run_goes_on_where_it_stopped(finished, checkpoint, tmp_path):
    whole, expected = finished
    with pytest.raises(RuntimeError, match="walltime"):
        restore(checkpoint, tmp_path, Interrupt())
    assert [record.name for record in RestorationStore(tmp_path).read()] == NAMES[:2]
    assert (tmp_path / "images.csv").is_file()
    kept = (tmp_path / "restored" / f"{NAMES[0]}.png").stat().st_mtime_ns
    (tmp_path / "records" / ".000013.safetensors.1.part").write_bytes(b"cut off")
    metrics = restore(checkpoint, tmp_path)
    assert (tmp_path / "restored" / f"{NAMES[0]}.png").stat().st_mtime_ns == kept
    for kind in ("restored", "panel"):
        for name in NAMES:
            assert (tmp_path / kind / f"{name}.png").read_bytes() == (whole / kind / f"{name}.png").read_bytes()
    del expected["test/seconds_per_image"], metrics["test/seconds_per_image"]
    assert metrics == pytest.approx(expected, rel=1e-5)


def test_the_next_batch_is_restored_while_one_is_written(checkpoint, tmp_path, monkeypatch):
    """Writing may last until the next batch is restored, and no longer; in the end all is there."""
    from gan_lightning.callbacks import restoration_writer

    original, events = restoration_writer.write_image, []

    def slow(store, restored, place, metrics):
        if place == 0:
            time.sleep(0.5)
        original(store, restored, place, metrics)
        events.append(f"written {restored.names[place]}")

    class Watcher(Callback):
        def on_test_batch_start(self, trainer, module, batch, *rest):
            events.append(f"begun {batch['index'][0]}")

    monkeypatch.setattr(restoration_writer, "write_image", slow)
    restore(checkpoint, tmp_path / "run", Watcher())
    assert events.index("begun 12") < events.index("written 000010")
    assert sorted(record.name for record in RestorationStore(tmp_path / "run").read()) == NAMES


@pytest.mark.parametrize("batch", [0, 1])
def test_what_cannot_be_written_ends_the_run_and_keeps_the_rest(batch, checkpoint, finished, tmp_path):
    (tmp_path / "restored").mkdir(parents=True)
    (tmp_path / "restored" / f"{NAMES[2 * batch]}.png").mkdir()  # a folder where a file is to be
    with pytest.raises(OSError, match=NAMES[2 * batch]):
        restore(checkpoint, tmp_path)
    missing = {NAMES[2 * batch]} | (set(NAMES[2:]) if batch == 0 else set())
    assert {record.name for record in RestorationStore(tmp_path).read()} == set(NAMES) - missing
    (tmp_path / "restored" / f"{NAMES[2 * batch]}.png").rmdir()
    restore(checkpoint, tmp_path)
    assert (tmp_path / "images.csv").read_bytes() == (finished[0] / "images.csv").read_bytes()


def test_a_folder_of_other_settings_is_refused(checkpoint, tmp_path):
    restore(checkpoint, tmp_path)
    with pytest.raises(InputError, match="other settings"):
        restore(checkpoint, tmp_path, inversion=replace(QUICK, num_steps=7))
    with pytest.raises(InputError, match="other settings"):
        restore(checkpoint, tmp_path, degradation=SquareMask(SIZE, 5))


def test_a_folder_of_other_measures_is_refused(checkpoint, tmp_path):
    restore(checkpoint, tmp_path)
    network = torch.jit.trace(torch.nn.Flatten(), torch.zeros(1, 3, SIZE, SIZE))
    network.save(tmp_path / "identity.pt")
    with pytest.raises(InputError, match="other settings"):
        restore(checkpoint, tmp_path, identity_network=str(tmp_path / "identity.pt"))


@pytest.mark.parametrize("earlier", [None, 2])
def test_a_folder_of_an_earlier_version_is_refused_in_one_line(earlier, checkpoint, tmp_path):
    restore(checkpoint, tmp_path)
    settings = tmp_path / "records" / "settings.json"
    known = json.loads(settings.read_text())
    del known["format"]
    settings.write_text(json.dumps(known if earlier is None else {"format": earlier} | known))
    with pytest.raises(InputError, match=r"by an earlier version.*choose another folder \(--name\)") as caught:
        restore(checkpoint, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("command", ["test", "predict"])
def test_a_folder_of_other_images_is_refused(checkpoint, tmp_path, command):
    """Equal names are no equal images: a run that goes on would take them for finished."""

    def run(seed):
        for row in range(5):
            write_png(tmp_path / "images" / f"{row}.png", torch.rand(3, SIZE, SIZE, generator=seed) * 2 - 1)
        data = ImageFolder(str(tmp_path / "images"), image_size=SIZE, split_fractions=(0.4, 0.2, 0.4))
        trainer = Trainer(
            accelerator="cpu",
            logger=False,
            callbacks=[RestorationWriter()],
            default_root_dir=tmp_path / "run",
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        getattr(trainer, command)(LatentRestoration(checkpoint, inversion=QUICK), datamodule=data)
        return [path.stat().st_mtime_ns for path in sorted((tmp_path / "run" / "restored").iterdir())]

    written = run(torch.Generator().manual_seed(0))
    assert run(torch.Generator().manual_seed(0)) == written
    with pytest.raises(InputError, match="holds other images"):
        run(torch.Generator().manual_seed(1))


@pytest.mark.parametrize("given", [False, True])
def test_a_plain_trainer_writes_too_and_a_writer_that_is_given_wins(checkpoint, tmp_path, given):
    """A run without a writer would compute everything and write nothing."""
    callbacks = [RestorationWriter(intermediate_every=2)] if given else [Interrupt()]
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=callbacks,
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        limit_test_batches=1,
    )
    module = LatentRestoration(checkpoint, inversion=QUICK)
    for _ in range(2):  # the second time, everything is finished
        trainer.test(module, DataLoader(faces(), batch_size=2), verbose=False)
        for kind in (RestorationWriter, RestorationProgress):
            assert sum(isinstance(callback, kind) for callback in trainer.callbacks) == 1
    assert callbacks[0] in trainer.callbacks
    assert sorted(path.stem for path in (tmp_path / "restored").iterdir()) == NAMES[:2]
    steps = {path.stem for path in tmp_path.glob("intermediate/*/latent-*.png")}
    assert steps == ({"latent-0000", "latent-0002", "latent-0004", "latent-0006"} if given else set())


def test_a_second_run_of_a_module_writes_to_its_own_folder(checkpoint, tmp_path):
    module = LatentRestoration(checkpoint, inversion=QUICK)
    for name in ("one", "two"):
        trainer = Trainer(
            accelerator="cpu",
            logger=False,
            callbacks=[RestorationWriter(intermediate_every=6)],
            default_root_dir=tmp_path / name,
            enable_progress_bar=False,
        )
        trainer.test(module, DataLoader(faces(), batch_size=4), verbose=False)
        for path in (tmp_path / "one").glob("intermediate/*/*.png"):
            path.unlink()
    assert len(list((tmp_path / "two").glob("intermediate/*/*.png"))) == 3 * COUNT  # of latents two, of features one
    assert not list((tmp_path / "one").glob("intermediate/*/*.png"))


def test_broken_records_are_named(checkpoint, tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "000010.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"000010\.safetensors is not a record"):
        restore(checkpoint, tmp_path)


def test_photographs_get_no_target(checkpoint, tmp_path):
    for row, face in enumerate(faces()):
        write_png(tmp_path / "photos" / f"face {row}.png", Downsample(2)(face["image"][None])[0])
    module = LatentRestoration(checkpoint, Downsample(2), inversion=QUICK)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=[RestorationWriter(), RestorationProgress()],
        default_root_dir=tmp_path / "run",
    )
    trainer.predict(module, photo_loader(tmp_path / "photos", module.photo_format, 3))
    names = [f"{row:06d}-face {row}" for row in range(COUNT)]
    assert sorted(path.stem for path in (tmp_path / "run" / "restored").iterdir()) == names
    assert not (tmp_path / "run" / "target").exists()
    with (tmp_path / "run" / "images.csv").open() as file:
        assert {"name", "loss", "converged", "num_steps", "noise_level", "explained"} == set(next(csv.DictReader(file)))


class Kept(Logger):
    """Takes what W&B's logger takes."""

    name, version = "kept", "0"

    def __init__(self):
        super().__init__()
        self.images, self.tables, self.files = {}, {}, []

    @property
    def experiment(self):
        return self

    def save(self, *given, **options):
        self.files += [os.path.relpath(path, options["base_path"]) for path in given]

    def log_metrics(self, metrics, step=None):
        self.metrics = metrics

    def log_hyperparams(self, params, *args, **kwargs):
        pass

    def log_image(self, key, images, step=None):
        self.images[key] = images

    def log_table(self, key, columns, data):
        self.tables[key] = (columns, data)


def predict(checkpoint, photos, folder, logger=False, **options):
    trainer = Trainer(
        accelerator="cpu",
        logger=logger,
        callbacks=[RestorationWriter(intermediate_every=6)],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = LatentRestoration(checkpoint, **({"inversion": QUICK} | options))
    trainer.predict(module, photo_loader(photos, module.photo_format, 3))
    with (folder / "images.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def save_photos(folder, names):
    for name, face in zip(names, faces(), strict=False):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            Image.fromarray(to_uint8(face["image"]).permute(1, 2, 0).numpy()).save(file, "PNG")


def test_names_of_any_length_fit_into_the_file_system(checkpoint, tmp_path):
    names = ["a portrait of a woman " * 11 + ".png", "写" * 80 + ".png", "写" * 79 + "真.png", "a.png"]
    save_photos(tmp_path / "photos", names)
    rows = predict(checkpoint, tmp_path / "photos", tmp_path / "run")
    assert [row["photograph"] for row in rows] == sorted(names)
    restored = sorted(path.stem for path in (tmp_path / "run" / "restored").iterdir())
    assert restored == [row["name"] for row in rows]
    assert restored[0] == "000000-a portrait of a woman " + restored[0].partition("woman ")[2]
    assert max(len(name.encode()) for name in restored) <= 230
    kept = (tmp_path / "run" / "restored" / f"{restored[0]}.png").stat().st_mtime_ns
    assert predict(checkpoint, tmp_path / "photos", tmp_path / "run") == rows
    assert (tmp_path / "run" / "restored" / f"{restored[0]}.png").stat().st_mtime_ns == kept


def test_names_in_any_encoding_reach_every_output(checkpoint, tmp_path):
    """Latin-1, as old archives unpack to; a line break; what matplotlib takes for a formula; an unknown script."""
    names = [os.fsdecode(name) for name in (b"caf\xe9.png", b"two\nlines.png", b"a$\\frac$_.png", "ഛായ.png".encode())]
    save_photos(tmp_path / "photos", names)
    logger = Kept()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Glyph")
        options = {"inversion": TWO, "keep_searches": True, "logger": logger}
        rows = predict(checkpoint, tmp_path / "photos", tmp_path / "run", **options)
    assert [row["name"] for row in rows] == [r"000000-a$\frac$_", "000001-caf_", "000002-two_lines", "000003-ഛായ"]
    assert [row["photograph"] for row in rows] == [r"a$\frac$_.png", r"caf\xe9.png", r"two\nlines.png", "ഛായ.png"]
    for kind in ("degraded", "restored", "spread", "panel", "records", "intermediate", "searches"):
        stems = {path.stem for path in (tmp_path / "run" / kind).iterdir()} - {"settings"}
        assert stems == {row["name"] for row in rows}
    json.dumps(logger.tables["restoration/images"], ensure_ascii=False).encode()  # as W&B does
    with safe_open(tmp_path / "run" / "latents.safetensors", "pt") as file:
        assert json.loads(file.metadata()["names"]) == [row["name"] for row in rows]


def test_photographs_of_one_name_are_written_apart(checkpoint, tmp_path):
    names = ["a/1.png", "a/1.jpg", "b/1.png", "b/A.png"]
    save_photos(tmp_path / "photos", names)
    rows = predict(checkpoint, tmp_path / "photos", tmp_path / "run")
    assert [row["photograph"] for row in rows] == sorted(names)
    assert [row["name"] for row in rows] == ["000000-1", "000001-1", "000002-1", "000003-A"]
    assert len(list((tmp_path / "run" / "restored").iterdir())) == 4


def test_records_of_an_earlier_version_need_no_source(checkpoint, tmp_path):
    """It was added without a new format: runs that were interrupted before go on."""
    save_photos(tmp_path / "photos", ["a.png", "b.png"])
    predict(checkpoint, tmp_path / "photos", tmp_path / "run")
    store = RestorationStore(tmp_path / "run")
    for record in store.read():
        assert record.source == f"{record.name[-1]}.png"
        store.write(record.name, record.tensors, record.metrics)
    assert [record.source for record in store.read()] == [None, None]
    assert [row["name"] for row in predict(checkpoint, tmp_path / "photos", tmp_path / "run")] == [
        "000000-a",
        "000001-b",
    ]


def test_photographs_that_nothing_explains_are_named_at_the_end(checkpoint, tmp_path, caplog):
    (tmp_path / "photos").mkdir()
    for name in "bcd":
        Image.new("RGB", (SIZE, SIZE), (128, 128, 128)).save(tmp_path / "photos" / f"{name}.png")
    for name, seed in ((b"a.png", 0), (b"caf\xe9.png", 1)):
        rough = np.random.default_rng(seed).choice([0, 255], (SIZE, SIZE, 3)).astype(np.uint8)
        with open(os.path.join(os.fsencode(tmp_path / "photos"), name), "wb") as file:
            Image.fromarray(rough).save(file, "PNG")
    with caplog.at_level(logging.WARNING, "gan_lightning"):
        rows = predict(checkpoint, tmp_path / "photos", tmp_path / "run", degradation=SquareMask(SIZE, 4))
    assert [row["explained"] for row in rows] == ["False", "True", "True", "False", "True"]
    (message,) = [record.getMessage() for record in caplog.records if "explained" in record.getMessage()]
    assert message == (
        r"2 of 5 photographs are not explained by this generator: a.png, caf\xe9.png; they are restored without it"
    )


def test_a_warning_names_up_to_five_photographs_and_counts_the_rest():
    def records(missed):
        return [Record(f"{n:06d}", {}, {"explained": n >= missed, "noise_level": n / 100}) for n in range(20)]

    assert describe_unexplained(records(0), lambda noise_level: True) is None
    message = describe_unexplained(records(1), lambda noise_level: True)
    assert message == "1 of 20 photographs is not explained by this generator: 000000; it is restored without it"
    message = describe_unexplained(records(9), lambda noise_level: noise_level > 0)
    assert message.endswith("by this generator: 000000, 000001, 000002, 000003, 000004 and 4 more")


def test_loggers_get_all_that_they_can_take(checkpoint, tmp_path):
    logger = Kept()
    restore(checkpoint, tmp_path, logger=logger)
    assert set(logger.images) == {"restoration/panels", "restoration/losses"}
    columns, rows = logger.tables["restoration/images"]
    assert [row[columns.index("name")] for row in rows] == NAMES
    assert logger.files[:2] == ["latents.safetensors", "images.csv"]
    sent = {path.relative_to(tmp_path).as_posix() for pattern in logger.files for path in tmp_path.glob(pattern)}
    for name in NAMES:
        assert {f"{kind}/{name}.png" for kind in ("target", "degraded", "restored", "panel")} <= sent
        assert f"intermediate/{name}/latent-0003.png" in sent
    assert "test/psnr" in logger.metrics


def test_steps_are_shown_on_the_progress_bar(checkpoint, tmp_path, capsys):
    from lightning.pytorch.callbacks import TQDMProgressBar

    restore(checkpoint, tmp_path, RestorationProgress(), TQDMProgressBar())
    assert "2 images, latent step" in capsys.readouterr().out


def test_the_steps_of_a_blur_estimate_are_shown_but_are_no_results(checkpoint, tmp_path, monkeypatch, capsys):
    from lightning.pytorch.callbacks import TQDMProgressBar

    monkeypatch.setattr(restoration_progress, "SECONDS_BETWEEN", 0)
    options = {"degradation": GaussianBlur(1.0), "blind_blur": True}
    restore(checkpoint, tmp_path, RestorationProgress(), TQDMProgressBar(), **options)
    shown = capsys.readouterr().out
    assert [int(step) for step in re.findall(r"2 images, blur step (\d+), loss", shown)][:3] == [0, 1, 2]
    written = {path.name.split("-")[0] for path in tmp_path.glob("intermediate/*/*.png")}
    assert written == {"latent", "features"}


def test_the_curve_of_a_blind_deblurring_is_drawn(checkpoint, tmp_path):
    logger = Kept()
    restore(checkpoint, tmp_path, degradation=GaussianBlur(1.0), blind_blur=True, logger=logger, drawn=True)
    assert logger.images["restoration/blur"] == [str(tmp_path / "blur.png")]
    assert (tmp_path / "blur.png").stat().st_size > 5000
    with (tmp_path / "images.csv").open() as file:
        assert all(float(row["blur_sigma"]) > 0 for row in csv.DictReader(file))


def test_an_image_that_is_done_has_no_tail():
    assert until_it_stopped(torch.tensor([4.0, 2.0, 2.0, 1.0, 1.0, 1.0])).tolist() == [4, 2, 2, 1]
    assert until_it_stopped(torch.tensor([4.0, 4.0])).tolist() == [4]


def test_the_error_map_is_black_where_nothing_differs():
    target = torch.zeros(3, 8, 8)
    restored = target.clone()
    restored[:, 2, 2], restored[:, 5, 5] = 0.1, 1.0
    colors = error_map(target, restored).sum(0)
    assert colors[2, 2] < colors[5, 5]
    assert colors[0, 0] == colors.min() < 10
    assert torch.equal(color_map(torch.full((2, 2), 0.25)), color_map(torch.ones(2, 2)))  # the end of the scale
    assert color_map(torch.full((2, 2), 0.2)).sum() < color_map(torch.ones(2, 2)).sum()
    panel = make_panel(target, torch.ones(1, 4, 4), restored)
    assert panel.shape == (3, 8 + 4, 4 * (8 + 2) + 2)
    assert panel[:, 2:10, 12:20].eq(255).all()
    for given, columns in ((target, 5), (None, 3)):
        panel = make_panel(given, torch.ones(1, 4, 4), restored, torch.eye(8)[None])
        assert panel.shape == (3, 8 + 4, columns * (8 + 2) + 2)
        assert torch.equal(panel[:, 2:10, -10:-2], color_map(torch.eye(8)))


def test_losses_bear_zeros(tmp_path):
    draw_losses({"a": torch.tensor([1.0, 0.1, 0.0]), "b": torch.tensor([1.0])}, tmp_path / "losses.png")
    assert (tmp_path / "losses.png").stat().st_size > 5000


TWO_RANKS = """
import sys
from tests.callbacks.test_restoration_output import *

def two_ranks(checkpoint, photos, folder):
    module = LatentRestoration(checkpoint, SquareMask(SIZE, 4), inversion=QUICK)
    options = dict(accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_progress_bar=False)
    trainer = Trainer(callbacks=[RestorationWriter()], default_root_dir=folder, **options)
    trainer.predict(module, photo_loader(photos, module.photo_format, 2))
    trainer = Trainer(callbacks=[RestorationWriter()], default_root_dir=folder + "-test", **options)
    (metrics,) = trainer.test(module, DataLoader(faces(), batch_size=2), verbose=False)
    if trainer.is_global_zero:
        with open(folder + "-test/metrics.json", "w") as file:
            json.dump(metrics, file)

two_ranks(*sys.argv[1:])
"""


@pytest.mark.slow
def test_two_ranks_restore_and_measure_what_one_does(checkpoint, finished, tmp_path):
    for row, face in enumerate(faces()[:3]):  # an odd number: one rank has more
        write_png(tmp_path / "photos" / f"{row}.png", face["image"])
    script = tmp_path / "two.py"
    script.write_text(TWO_RANKS)
    ranks = run_ranks(script, checkpoint, tmp_path / "photos", tmp_path / "two", ranks=2)
    assert [rank.returncode for rank in ranks] == [0, 0], ranks[0].stderr + ranks[1].stderr
    module = LatentRestoration(checkpoint, SquareMask(SIZE, 4), inversion=QUICK)
    trainer = Trainer(accelerator="cpu", logger=False, callbacks=[RestorationWriter()], default_root_dir=tmp_path / "1")
    trainer.predict(module, photo_loader(tmp_path / "photos", module.photo_format, 2))
    one, two = (RestorationStore(tmp_path / name).read() for name in ("1", "two"))
    assert [record.name for record in two] == ["000000-0", "000001-1", "000002-2"]
    for left, right in zip(one, two, strict=True):
        assert torch.allclose(left.tensors["latent"], right.tensors["latent"], atol=1e-4)
    assert (tmp_path / "two" / "images.csv").read_text().count("\n") == 4
    metrics = json.loads((tmp_path / "two-test" / "metrics.json").read_text())
    expected = {name: value for name, value in finished[1].items() if name != "test/seconds_per_image"}
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("size", "scale"), [((16, 16), 10), ((64, 64), 3), ((128, 96), 2), ((256, 256), 1)])
def test_panels_are_large_enough_to_see(size, scale):
    assert panel_scale(size) == scale
    assert min(size) * scale >= SMALLEST_SIDE
    image = torch.zeros(3, *size)
    panel = draw_panel(image, image[:1, ::2, ::2], image, image[:1])
    assert panel.shape == (3, TITLE_HEIGHT + scale * (size[0] + 4), scale * (5 * (size[1] + 2) + 2))


def test_titles_of_a_panel_say_how_near_each_picture_is_to_the_target():
    """Each title stands over its picture, and another error is another number in it."""
    target = torch.zeros(3, 16, 16)

    def header(restored):
        return draw_panel(target, target + 0.2, restored)[0, :TITLE_HEIGHT]

    near, far = header(target + 0.02), header(target + 0.5)
    column = panel_scale((16, 16)) * 18
    differs = near.ne(far).any(0).nonzero()
    assert 2 * column <= differs.min()
    assert differs.max() < 3 * column
    for number in range(4):
        assert near[:, number * column : (number + 1) * column].lt(128).any(), "no title"
    without = draw_panel(None, target, target)
    assert without.shape[2] == panel_scale((16, 16)) * (2 * 18 + 2)


def test_losses_show_where_the_refinement_began(finished):
    """The search for latents stops before its six steps, or after them; the rest is refinement."""
    folder, _ = finished
    records = RestorationStore(folder).read()
    for record in records:
        history, begun = record.tensors["history"], latent_steps(record)
        assert 1 <= begun <= QUICK.num_steps
        assert begun < len(history) - 1 <= begun + QUICK.refine_steps
    curves = {record.name: record.tensors["history"] for record in records}
    figure = losses_figure(curves, dict.fromkeys(NAMES[:2], 3))
    for axis in figure.axes:
        strokes = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axis.lines if line.get_marker() == "|"]
        assert strokes == [(3, pytest.approx(float(curves[name][3]))) for name in NAMES[:2]]
    assert latent_steps(Record("old", {"history": curves[NAMES[0]]}, {})) is None


def test_the_psnr_of_a_panel_is_the_one_that_is_measured():
    target, image = torch.rand(2, 3, 16, 16) * 2 - 1
    assert psnr(image[None] * 1.5, target) == pytest.approx(
        float(image_errors(image[None] * 1.5, target[None])["psnr"])
    )
