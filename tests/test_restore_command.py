"""`gan-lightning restore`, for people who know no Lightning."""

import errno
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from gan_lightning.__main__ import main
from gan_lightning.callbacks.restoration_progress import RestorationProgress
from gan_lightning.commands.restore_job import Job, as_json
from gan_lightning.commands.restore_options import TASKS, parse
from gan_lightning.data.listing import read_paths
from gan_lightning.errors import InputError
from gan_lightning.file_names import target_names
from gan_lightning.modules.dcgan import DCGAN
from gan_lightning.networks.stylegan2 import StyleGAN2Generator
from gan_lightning.options.parser import shipped_configs
from tests.generators import write_generator

pytestmark = pytest.mark.usefixtures("own_folder")

SIZE = 16
QUICK = ["--searches", "1", "--model.inversion.num_steps", "2", "--model.inversion.refine_steps=2"]


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    return write_generator(tmp_path_factory.mktemp("generator"), SIZE)


def draw(path, size=(SIZE, SIZE), mode="RGB"):
    coarse = np.random.default_rng(len(str(path))).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize(size).convert(mode).save(path)
    return str(path)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def draw_mask(path, size=(SIZE, SIZE), hole=(slice(4, 8), slice(4, 8))):
    known = np.full(size[::-1], 255, dtype=np.uint8)
    known[hole] = 0
    Image.fromarray(known).save(path)
    return str(path)


def restore(generator, task, *words):
    return main(["restore", *words, "--generator", generator, "--task", task, *QUICK])


def refused(capsys, words):
    """Return the one line by which a command is refused."""
    assert main(["restore", *words]) == 2
    errors = capsys.readouterr().err
    lines = errors.strip().splitlines()
    assert len(lines) == 1, errors
    return lines[0]


def test_stylegan2_restores_photographs_and_a_pickle_of_it_is_refused(tmp_path, capsys):
    sizes = {"latent_dim": 6, "base_channels": 4, "max_channels": 8, "w_dim": 5, "mapping_layers": 1}
    save_file(StyleGAN2Generator(SIZE, **sizes).state_dict(), "G.safetensors")
    photo = draw("photo.png")
    assert restore("G.safetensors", "super_resolve", draw("small.png", (4, 4)), "--output", "out") == 0
    assert pixels("out/small.png").shape == (SIZE, SIZE, 3)
    assert restore("G.safetensors", "denoise", photo, "--output", "denoised", "--model.space", "w+") == 0
    capsys.readouterr()
    Path("G.pkl").write_bytes(b"not even a pickle")
    line = refused(capsys, [photo, "--generator", "G.pkl", "--task", "denoise", "--output", "other"])
    assert "G.pkl is refused: unpickling it could run code" in line
    assert "G.pkl G.safetensors" in line


def test_a_hole_is_filled_and_the_rest_is_kept(generator, capsys):
    photo, mask = draw("photo.png"), draw_mask("mask.png")
    assert restore(generator, "inpaint", photo, "--mask", mask, "--output", "out") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"inpaint: 1 photograph (photo.png), with {generator}, which makes 16x16 pixels in color"
    assert printed[1].startswith("restored 1 of 1 photograph in ")
    assert printed[2:] == [
        "  photo.png -> out/photo.png",
        "comparisons and measures (panel/, images.csv) are in out/details/photo-inpaint",
    ]
    before, after = pixels(photo).astype(int), pixels("out/photo.png").astype(int)
    changed = np.zeros((SIZE, SIZE), dtype=bool)
    changed[4:8, 4:8] = True
    assert abs(before - after)[~changed].max() <= 1
    assert abs(before - after)[changed].max() > 5
    assert Path("out/details/photo-inpaint/images.csv").is_file()


def test_the_same_command_resumes_and_another_one_overwrites_nothing(generator, capsys):
    photo, mask = draw("photo.png"), draw_mask("mask.png")
    command = [photo, "--mask", mask, "--output", "out"]
    assert restore(generator, "inpaint", *command) == 0
    first = Path("out/photo.png").read_bytes()
    record = next(Path("out/details/photo-inpaint/records").glob("*.safetensors")).stat().st_mtime_ns
    capsys.readouterr()
    Path("out/photo.png").unlink()  # as after a kill, before it was copied
    assert restore(generator, "inpaint", *command) == 0
    assert "restored 1 of 1 photograph, 1 of them earlier" in capsys.readouterr().out
    assert Path("out/photo.png").read_bytes() == first
    assert next(Path("out/details/photo-inpaint/records").glob("*.safetensors")).stat().st_mtime_ns == record
    words = [*command[:1], "--output", "out", "--generator", generator, "--task", "denoise"]
    assert "out/photo.png exists, and is not a result of this command" in refused(capsys, words)
    words = [*command, "--generator", generator, "--task", "inpaint", "--model.seed", "1"]
    assert "restored with other settings: choose another folder (--output)" in refused(capsys, words)
    assert Path("out/photo.png").read_bytes() == first
    assert restore(generator, "invert", draw("other.png"), "--output", "out") == 0  # beside the first


def test_photographs_are_never_overwritten(generator, capsys):
    draw("photo.png")
    before = Path("photo.png").read_bytes()
    words = ["photo.png", "--output", ".", "--generator", generator, "--task", "denoise"]
    assert "photo.png exists" in refused(capsys, words)
    assert Path("photo.png").read_bytes() == before


def test_photographs_of_other_sizes_are_cropped_and_resized_with_their_masks(generator, capsys, caplog):
    draw("in/wide.jpg", (40, 24)), draw("in/deeper/fits.png"), Path("in/clip.mp4").write_bytes(b"")
    Path("masks").mkdir()
    draw_mask("masks/wide.png", (40, 24), (slice(6, 12), slice(14, 20))), draw_mask("masks/fits.png")
    assert restore(generator, "inpaint", "in", "--mask", "masks", "--output", "out") == 0
    output = capsys.readouterr().out
    assert "inpaint: 2 photographs (deeper/fits.png, wide.jpg)" in output
    assert "cropped to the square in the center and resized to 16x16: wide.jpg (40x24)\n" in output
    assert "left out 1 other file (.mp4: 1)" in caplog.text
    assert {path.name for path in Path("out").glob("*.png")} == {"wide.png", "fits.png"}
    assert pixels("out/wide.png").shape == (SIZE, SIZE, 3)


def test_photographs_of_several_folders(generator):
    photos = [draw("one/face.png"), draw("two/face.png"), draw("two/other.png")]
    assert restore(generator, "deblur", *photos, "--blur", "1.0", "--output", "out") == 0
    found = sorted(path.relative_to("out").as_posix() for path in Path("out").rglob("*.png"))
    assert [name for name in found if not name.startswith("details")] == [
        "one/face.png",
        "two/face.png",
        "two/other.png",
    ]


def test_color_comes_from_gray_and_from_color(generator):
    photos = [draw("gray.png", mode="L"), draw("color.png")]
    assert restore(generator, "colorize", *photos, "--output", "out") == 0
    assert pixels("out/gray.png").shape == pixels("out/color.png").shape == (SIZE, SIZE, 3)


def test_small_photographs_are_enlarged(generator, capsys):
    photo = draw("small.png", (8, 8))
    assert restore(generator, "super_resolve", photo, "--factor", "2", "--output", "out") == 0
    assert "cropped" not in capsys.readouterr().out
    assert pixels("out/small.png").shape == (SIZE, SIZE, 3)


def test_transparency_is_the_mask(generator, capsys):
    image = np.dstack([pixels(draw("photo.png")), np.full((SIZE, SIZE), 255, dtype=np.uint8)])
    image[4:8, 4:8] = 0
    Image.fromarray(image).save("photo.png")
    assert restore(generator, "inpaint", "photo.png", "--output", "out") == 0
    assert pixels("out/photo.png").shape == (SIZE, SIZE, 3)
    capsys.readouterr()
    words = [draw("opaque.png"), "--output", "out", "--generator", generator, "--task", "inpaint"]
    assert "nothing says which pixels are missing: add --mask FILE" in refused(capsys, words)


def test_an_unknown_blur_is_estimated_and_a_config_opens_all_of_predict(generator, capsys):
    Path("mine.yaml").write_text("model:\n  inversion: {num_steps: 3}\n  seed: 4\n")
    words = [draw("photo.png"), "--generator", generator, "--task", "deblur", "--config", "mine.yaml"]
    with pytest.raises(SystemExit) as ended:
        main(["restore", *words, "--searches", "2", "--print_config", "--data.batch_size", "5"])
    assert ended.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    assert model["blind_blur"] is True
    assert model["degradation"] is None
    assert (model["seed"], model["inversion"]["num_steps"], model["inversion"]["num_searches"]) == (4, 3, 2)
    assert (data["batch_size"], data["root"], data["resize"]) == (5, [os.path.abspath("photo.png")], "center_crop")
    assert not Path("restored").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photo.png", "--task", "denoise"], "the following arguments are required: --generator"),
        (["--generator", "G", "--task", "denoise"], "the following arguments are required: PHOTO"),
        (["photo.png", "--generator", "G", "--task", "sharpen"], "invalid choice: 'sharpen'"),
        (["photo.png", "--generator", "G", "--task", "denoise", "--factor", "4"], "an option of --task super_resolve"),
        (["photo.png", "--generator", "G", "--task", "denoise", "--searches", "0"], "--searches is 0: give 1 or more"),
        (["photo.png", "--generator", "G", "--task", "denoise", "--noise", "nan"], "--noise is nan: give 0 or more"),
        (["photo.png", "--generator", "G", "--task", "denoise", "--noise", "much"], "invalid float value: 'much'"),
        (["photo.png", "--generator", "G", "--task", "deblur", "--blur", "0"], "--blur is 0.0: give more than 0"),
        (["photo.png", "--generator", "G", "--task", "inpaint", "--mask_white", "known"], "about the file of --mask"),
        (["photo.png", "--generator", "G", "--task", "denoise", "--nose", "1"], "unrecognized arguments: --nose"),
        (["photo.png", "--generator", "G", "--task", "denoise", "--data.root", "x"], "--data.root is set by this"),
        (["photo.png", "--generator", "nowhere.ckpt", "--task", "denoise"], "nowhere.ckpt does not exist"),
        (["photo.png", "--generator", "photo.png", "--task", "denoise"], "is not a checkpoint"),
    ],
)
def test_a_wrong_command_line_is_one_line(words, message, capsys):
    draw("photo.png")
    assert message in refused(capsys, words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.png", "--task", "denoise"], "nowhere.png does not exist"),
        (["empty", "--task", "denoise"], "there is no image in"),
        (["notes.heic", "--task", "denoise"], "only 1 other file (.heic: 1)"),
        (["broken.png", "--task", "denoise"], "none of the 1 photographs below"),
        (["small.png", "--task", "denoise"], "small.png is 8x8 pixels, too small for 16x16: try --task super_resolve"),
        (["photo.png", "--task", "super_resolve"], "there is nothing to enlarge"),
        (["small.png", "--task", "super_resolve", "--factor", "3"], "factor 3 does not divide"),
        (["photo.png", "--task", "inpaint", "--mask", "nowhere.png"], "is neither a folder nor a file"),
        (["photo.png", "--task", "inpaint", "--mask", "large.png"], "large.png is 20x20 pixels: it must have the size"),
        (["photo.png", "--task", "inpaint", "--mask", "empty"], "has no mask for photo.png"),
        (["photo.png", "--task", "denoise", "--output", "photo.png"], "cannot be written"),
        (["folder", "--task", "denoise", "--output", "folder/out"], "choose a folder outside of it"),
        (["photo.png", "--task", "denoise", "--model.inversion.num_searches", "0"], "num_searches is 0"),
        (
            ["photo.png", "--task", "deblur", "--blur", "1e9"],
            "sigma is 1000000000.0: it must not exceed",
        ),
        (["photo.png", "--task", "inpaint", "--mask", "black.png"], "(white: missing, or --mask_white missing, for"),
        (["photo.png", "--task", "inpaint", "--mask", "photo.png"], "photo.png holds many shades, as photographs do"),
        (["folder", "photo.png", "--task", "denoise", "--output", "taken"], "taken/folder is a file, where a folder"),
    ],
)
def test_what_cannot_be_restored_is_one_line(words, message, generator, capsys):
    draw("photo.png"), draw("small.png", (8, 8)), draw("folder/face.png"), draw_mask("large.png", (20, 20))
    draw_mask("black.png", hole=...), draw("folder/photo.png"), Path("taken").mkdir(), Path("taken/folder").touch()
    Path("empty").mkdir(), Path("notes.heic").touch(), Path("broken.png").write_bytes(b"no image")
    before = sorted(Path().rglob("*"))
    assert main(["restore", *words, "--generator", generator]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert errors[-1].startswith("gan-lightning: error: ")
    assert message in errors[-1]
    assert sorted(Path().rglob("*")) == before


def test_checkpoints_of_this_package_are_generators_too(capsys):
    model = DCGAN(image_size=SIZE, channels=1, latent_dim=6, base_channels=4)
    state = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    torch.save(state, "gray.ckpt")
    assert restore("gray.ckpt", "denoise", draw("photo.png", mode="L"), "--noise", "0.1", "--output", "out") == 0
    assert "which makes 16x16 pixels in gray" in capsys.readouterr().out
    assert pixels("out/photo.png").shape == (SIZE, SIZE)
    capsys.readouterr()
    words = ["photo.png", "--generator", "gray.ckpt", "--task", "colorize"]
    assert "gray.ckpt makes gray images" in refused(capsys, words)


def test_names_of_any_script(generator):
    photos = [draw("\U0001f600 {a}: 'b' \x85.png"), draw("[1].png"), draw("e\u0301.png")]
    assert restore(generator, "denoise", *photos, "--output", "out") == 0
    names = {"\U0001f600 {a}: 'b' _.png", "[1].png", "e\u0301.png"}
    assert {path.name for path in Path("out").glob("*.png")} == names


@pytest.mark.skipif(sys.platform != "linux", reason="names of other systems are Unicode")
def test_names_of_any_encoding_are_found_in_their_folder(generator, capsys):
    photo = draw(os.fsdecode(b"in/caf\xe9.png"))
    words = [photo, "--generator", generator, "--task", "denoise"]
    assert refused(capsys, words).endswith("is not UTF-8, as arguments must be: give the folder that holds it")
    assert restore(generator, "denoise", "in", "--output", "out") == 0
    assert {path.name for path in Path("out").glob("*.png")} == {"caf_.png"}


def test_configurations_hold_any_name():
    name = '\U0001f600 \x7f\x85\ufeff\u2028"\\\n'
    assert yaml.safe_load(as_json({"root": [name]})) == {"root": [name]}


def test_hundreds_of_files_may_be_given(generator, capsys):
    photos = [draw("face.png"), *(f"a/folder/with/a/name/{number:0100}.png" for number in range(300))]
    for photo in photos[1:]:
        Path(photo).parent.mkdir(parents=True, exist_ok=True)
        os.link(photos[0], photo)
    with pytest.raises(SystemExit) as ended:
        main(["restore", *photos, "--generator", generator, "--task", "invert", "--print_config"])
    assert ended.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["data"]["init_args"]["root"] == [os.path.abspath(photo) for photo in photos]


def test_every_task_of_the_configurations_is_one_of_the_command():
    fragments = {"restore/stylegan2"}  # to be put after one of the others
    shipped = {name for name in shipped_configs() if name.startswith("restore/")}
    assert {f"restore/{task}" for task in TASKS} == shipped - fragments


def test_the_result_of_each_search_is_asked_for(generator):
    options, _ = parse([draw("face.png"), "--generator", generator, "--task", "inpaint", "--keep_searches"])
    _, asked = Job(options).settings()
    assert asked["model"]["init_args"]["keep_searches"] is True


def test_an_interrupted_run_hands_over_what_it_has_finished(generator, monkeypatch):
    def stop(callback, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if batch_idx == 1:
            raise RuntimeError("walltime")

    folder = os.getcwd()
    monkeypatch.setattr(RestorationProgress, "on_predict_batch_start", stop)
    photos = [draw("a.png"), draw("b.png")]
    words = ["denoise", *photos, "--output", "out", "--data.batch_size", "1"]
    with pytest.raises(RuntimeError, match="walltime"):
        restore(generator, *words)
    assert [path.name for path in Path("out").glob("*.png")] == ["a.png"]
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert restore(generator, *words) == 0
    assert {path.name for path in Path("out").glob("*.png")} == {"a.png", "b.png"}


def test_results_have_names_that_tell_them_apart():
    assert target_names(["a/x.jpg", "b/y.png"]) == {"a/x.jpg": "x.png", "b/y.png": "y.png"}
    assert target_names(["a/x.jpg", "b/X.jpg"]) == {"a/x.jpg": "a/x.png", "b/X.jpg": "b/X.png"}
    assert target_names(["x.jpg", "x.png"]) == {"x.jpg": "x.jpg.png", "x.png": "x.png.png"}
    assert target_names(["v1.2.png"]) == {"v1.2.png": "v1.2.png"}


def test_files_and_folders_are_listed_once():
    draw("in/a.png"), draw("in/deeper/b.png"), draw("c.jpg")
    listing = read_paths(["in", "in/a.png", "c.jpg"])
    assert listing.names == ["c.jpg", "in/a.png", "in/deeper/b.png"]
    with pytest.raises(InputError, match=r"nowhere\.png does not exist"):
        read_paths(["in", "nowhere.png"])


def test_options_of_predict_take_their_values_along():
    base = ["a.png", "--generator", "G", "--task", "deblur"]
    options, others = parse([*base, "--model.seed", "3", "b.png", "--trainer.devices=2", "c.png", "--searches", "2"])
    assert options.photos == ["a.png", "b.png", "c.png"]
    assert others == ["--model.seed", "3", "--trainer.devices=2"]


def test_the_help_fits_a_screen_and_needs_no_torch():
    program = "import sys, gan_lightning.__main__ as m; m.main(['restore', '-h']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) <= 48
    assert max(map(len, lines)) <= 120
    for task, options in TASKS.items():
        assert f"\n  {task} " in done.stdout
        assert all(f"--{name} " in done.stdout for name in options)


def test_an_image_whose_picture_was_removed_is_restored_again(generator, capsys):
    draw("in/a.png"), draw("in/b.png")
    assert restore(generator, "denoise", "in", "--output", "out") == 0
    before = Path("out/a.png").read_bytes()
    Path("out/a.png").unlink(), Path("out/details/in-denoise/restored/000000-a.png").unlink()
    capsys.readouterr()
    assert restore(generator, "denoise", "in", "--output", "out") == 0
    assert "restored 2 of 2 photographs in" in (output := capsys.readouterr().out)
    assert "1 of them earlier" in output
    assert Path("out/a.png").read_bytes() == before


def test_a_damaged_record_is_named_with_the_options_of_this_command(generator, capsys):
    words = [draw("photo.png"), "--output", "out", "--generator", generator, "--task", "denoise"]
    assert main(["restore", *words, *QUICK]) == 0
    next(Path("out/details").rglob("records/*.safetensors")).write_bytes(b"cut off")
    capsys.readouterr()
    line = refused(capsys, words)
    assert line.endswith("is not a record of a restored image: remove it, or choose another folder (--output)")


@pytest.mark.parametrize("name", ["null", "alpha", "1"])
def test_masks_may_have_any_name(name, generator):
    photo = draw("photo.png")
    Path(name).mkdir()
    draw_mask(f"{name}/photo.png")
    assert restore(generator, "inpaint", photo, "--mask", name, "--output", "out") == 0
    assert (pixels(photo) != pixels("out/photo.png"))[4:8, 4:8].any()


def test_a_full_disk_is_one_line_and_what_was_finished_stays(generator, capsys, monkeypatch):
    from gan_lightning.callbacks import restoration_writer

    def write(path, image, original=restoration_writer.write_png):
        if "b.png" in Path(path).name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(path, image)

    words = [draw("in/a.png"), draw("in/b.png"), "--output", "out"]
    with monkeypatch.context() as patch:
        patch.setattr(restoration_writer, "write_png", write)
        assert restore(generator, "denoise", *words) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the results of 000001-b could not be written (No space left on device): free disk space" in line
    assert Path("out/a.png").is_file()
    with monkeypatch.context() as patch:
        patch.setattr(restoration_writer, "write_csv", lambda path, table: write("b.png", None))
        assert restore(generator, "denoise", *words) == 1
    assert "images.csv and other files" in capsys.readouterr().err.strip().splitlines()[-1]
    assert restore(generator, "denoise", *words) == 0
    assert Path("out/b.png").is_file()


def test_a_photograph_that_breaks_during_the_run_is_named_and_the_others_are_delivered(generator, capsys, monkeypatch):
    from gan_lightning.data import photos

    times = Counter()

    def read(path, *rest, original=photos.read_photo, **options):
        times[path.name] += 1
        if times["b.png"] == 2:  # it was checked before
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return original(path, *rest, **options)

    monkeypatch.setattr(photos, "read_photo", read)
    words = [draw("in/a.png"), draw("in/b.png"), "--output", "out", "--data.batch_size", "1"]
    assert restore(generator, "denoise", *words) == 2
    assert "b.png cannot be read any more" in capsys.readouterr().err.strip().splitlines()[-1]
    assert Path("out/a.png").is_file()
