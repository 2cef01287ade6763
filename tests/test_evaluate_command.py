"""`gan-lightning evaluate`: any two sets of images."""

import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan_lightning.__main__ import main
from gan_lightning.networks.dcgan import Generator
from tests.commands import fit

SIZE = 16
DEFAULT = {f"{name}_random" for name in ("fd", "kid", "precision", "recall", "density", "coverage")}


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def draw(folder, count=12, size=(SIZE, SIZE), mode="RGB", seed=0):
    """Write images of coarse noise to a folder."""
    rng = np.random.default_rng(seed)
    Path(folder).mkdir(parents=True)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize(size).convert(mode).save(Path(folder) / f"{number:03d}.png")
    return folder


def pixels(folder):
    return np.stack([np.asarray(Image.open(path)) for path in sorted(Path(folder).iterdir())])


def evaluate(*words, output="metrics.json", extractor="random"):
    assert main(["evaluate", *map(str, words), "--extractor", extractor, "--output", output]) == 0
    return json.loads(Path(output).read_text())["metrics"]


def values(*words, **options):
    return {name: entry["value"] for name, entry in evaluate(*words, **options).items()}


def refused(capsys, *words, output="refused.json", extractor="random"):
    """Return the one line by which a command is refused, after which there is no output."""
    capsys.readouterr()
    before = Path(output).read_bytes() if Path(output).is_file() else None
    assert main(["evaluate", *map(str, words), "--extractor", extractor, "--output", output]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert (Path(output).read_bytes() if Path(output).is_file() else None) == before
    return lines[0].removeprefix("gan-lightning: error: ")


def test_a_folder_an_archive_and_an_array_of_the_same_images_have_the_same_metrics(capsys):
    real, fake = draw("real"), draw("fake", seed=1)
    with zipfile.ZipFile("fake.zip", "w") as archive:
        for path in Path(fake).iterdir():
            archive.write(path, f"some/folder/{path.name}")
        archive.writestr("__MACOSX/._000.png", b"of another system")
        archive.writestr("readme.txt", "and no image")
    np.save("fake.npy", pixels(fake))
    np.save("channels_first.npy", pixels(fake).transpose(0, 3, 1, 2))
    np.savez("fake.npz", arr_0=pixels(fake))
    of_folder = evaluate(real, fake)
    assert of_folder.keys() == DEFAULT
    printed = capsys.readouterr().out
    for name, entry in of_folder.items():
        assert f"{entry['value']:.6g}" in printed, name
    for other in ("fake.zip", "fake.npy", "fake.npz", "channels_first.npy"):
        of_other = evaluate(real, other)
        digests = [entry["protocol"]["fake"]["pixels_sha256"] for entry in (*of_folder.values(), *of_other.values())]
        assert len(set(digests)) == 1
        assert {n: e["value"] for n, e in of_other.items()} == {n: e["value"] for n, e in of_folder.items()}


def test_the_protocol_stands_beside_each_value():
    metrics = evaluate(draw("real", 14), draw("fake", 12, seed=1), "--seed", 3)
    protocol = metrics["fd_random"]["protocol"]
    assert protocol["real"] == {**protocol["real"], "path": "real", "kind": "folder", "available": 14, "images": 14}
    assert protocol["fake"]["images"] == 12
    assert protocol["extractor"] == "random-v1"
    assert protocol["seed"] == 3
    assert metrics["recall_random"]["protocol"]["neighbors"] == 3
    assert metrics["coverage_random"]["protocol"]["neighbors"] == 5
    assert metrics["kid_random"]["protocol"]["subset_size"] == 12
    better = {name: entry["better"] for name, entry in metrics.items()}
    assert {name for name in better if better[name] == "lower"} == {"fd_random", "kid_random"}


def test_mifid_is_measured_with_other_features_only_if_asked_for():
    real, fake = draw("real"), draw("fake", seed=1)
    assert evaluate(real, fake, "--metrics", "mifid").keys() == {"mifid_random"}


def test_metrics_are_those_of_the_features():
    from gan_lightning.metrics import RandomFeatures
    from gan_lightning.metrics.frechet import frechet_distance
    from gan_lightning.metrics.neighbors import neighbor_metrics

    real, fake = draw("real", 20), draw("fake", 30, seed=1)
    measured = values(real, fake, "--neighbors", 4, "--batch_size", 7)
    features = [RandomFeatures()(torch.from_numpy(pixels(folder)).permute(0, 3, 1, 2)) for folder in (real, fake)]
    expected = {f"{name}_random": value for name, value in neighbor_metrics(*features, neighbors=4).items()}
    assert {name: measured[name] for name in expected} == expected
    assert measured["fd_random"] == pytest.approx(frechet_distance(*features), rel=1e-5)


def test_a_set_against_itself_and_a_checkpoint_that_repeats_one_image():
    real = draw("real", 20)
    shutil.copytree(real, "copy")
    of_itself = values(real, "copy")
    assert of_itself["fd_random"] == pytest.approx(0, abs=1e-4)
    assert [of_itself[f"{name}_random"] for name in ("precision", "recall", "density", "coverage")] == [1, 1, 1, 1]
    network = Generator(SIZE, latent_dim=6, base_channels=4)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    torch.save(network.state_dict(), "gray.pt")
    metrics = evaluate(real, "gray.pt")
    assert metrics["fd_random"]["protocol"]["fake"]["images"] == 20, "as many as there are real ones"
    assert metrics["coverage_random"]["value"] == 0


def test_samples_depend_on_the_seed_and_two_checkpoints_draw_different_latents():
    torch.manual_seed(0)
    torch.save(Generator(SIZE, latent_dim=6, base_channels=4).state_dict(), "G.pt")
    real = draw("real", 20)
    once = evaluate(real, "G.pt", "--num_samples", 9)
    assert once["fd_random"]["protocol"]["fake"]["images"] == 9
    assert evaluate(real, "G.pt", "--num_samples", 9) == once
    assert evaluate(real, "G.pt", "--num_samples", 9, "--seed", 1)["fd_random"]["value"] != once["fd_random"]["value"]
    assert values("G.pt", "G.pt", "--num_samples", 40, "--metrics", "fd")["fd_random"] > 1e-3


def test_a_pack_and_a_checkpoint_have_the_distance_that_training_has_logged(faces_root, own_folder, tmp_path, capsys):
    """The samples are the same, and here the real images too: all of the data are its validation split."""
    assert fit(faces_root, "--data.count", 120, "--evaluation.num_images", 100, "--evaluation.split", "all") == 0
    capsys.readouterr()
    (run,) = Path("runs").iterdir()
    summary = json.loads((run / "summary.json").read_text())
    headers = [
        (path, json.loads(path.read_text())) for path in Path(os.environ["GAN_LIGHTNING_CACHE"]).rglob("pack.json")
    ]
    expected = {"image_size": 16, "channels": 3}
    packs = [
        path.parent
        for path, header in headers
        if header["images"] == 120 and expected.items() <= header["framing"].items()
    ]
    batch_size = summary["protocol"]["val/fd_random"]["batch_size"]
    measured = values(
        packs[0], run / "checkpoints" / "last.ckpt", "--num_images", 100, "--metrics", "fd", "--batch_size", batch_size
    )
    assert measured["fd_random"] == pytest.approx(summary["metrics"]["val/fd_random"]["last"], rel=1e-4)


def test_images_of_any_size_and_color_are_brought_to_one(capsys):
    real, fake = draw("real", 10, (24, 20)), draw("fake", 10, mode="L", seed=1)
    assert "differ in size: real has 24 x 20, fake 16 x 16; give --image_size" in refused(capsys, real, fake)
    assert "real are in color, those of fake gray; give --channels" in refused(capsys, real, fake, "--image_size", 16)
    metrics = evaluate(real, fake, "--image_size", 16, "--channels", 1)
    assert metrics["fd_random"]["protocol"]["channels"] == 1
    draw("mixed", 5)
    Image.new("RGB", (SIZE, SIZE + 1)).save("mixed/b.png")
    assert "differ in size: 000.png has 16 x 16, b.png 16 x 17" in refused(capsys, real, "mixed")
    Image.new("L", (SIZE, SIZE)).save("mixed/b.png")
    assert "000.png is in color, b.png gray" in refused(capsys, real, "mixed")
    message = refused(capsys, real, fake, "--channels", 3, "--image_size", 8, "--crop", 18)
    assert "is 16 x 16, smaller than the crop of 18" in message


def test_other_networks_by_name_and_by_file(capsys):
    from torchvision import models

    real, fake = draw("real", 8), draw("fake", 8, seed=1)
    words = (real, fake, "--metrics", "fd", "recall")
    torch.manual_seed(0)
    torch.save(models.resnet18(weights=None).state_dict(), "weights.pth")
    metrics = evaluate(*words, "--weights", "weights.pth", "--extractor_size", 32, extractor="resnet18")
    assert metrics.keys() == {"fd_resnet18", "recall_resnet18"}
    assert metrics["fd_resnet18"]["protocol"]["extractor"].startswith("torchvision resnet18 weights.pth sha256 ")

    class Means(torch.nn.Module):
        def forward(self, images):
            return images.mean((2, 3))

    torch.jit.script(Means()).save("my means.pt")
    metrics = evaluate(*words, extractor="my means.pt")
    expected = [torch.from_numpy(pixels(folder)).double().div(127.5).sub(1).mean((1, 2)) for folder in (real, fake)]
    from gan_lightning.metrics.frechet import frechet_distance

    assert metrics["fd_my-means"]["value"] == pytest.approx(frechet_distance(*expected), rel=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the exporter that needs no further package
def test_an_onnx_file(capsys):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    torch.onnx.export(network, (torch.zeros(1, 3, 8, 8),), "small.onnx", dynamo=False)
    torch.jit.trace(network, torch.zeros(1, 3, 8, 8)).save("small.pt")
    words = (draw("real", 8), draw("fake", 8, seed=1), "--metrics", "fd", "--extractor_size", 8)
    of_onnx, of_script = (values(*words, extractor=f"small.{suffix}") for suffix in ("onnx", "pt"))
    assert of_onnx["fd_small"] == pytest.approx(of_script["fd_small"], rel=1e-4)


def test_the_last_linear_layer_of_a_classifier_is_left_out():
    from torchvision import models

    from gan_lightning.metrics.networks import without_head

    for name, features in (("resnet18", 512), ("mobilenet_v3_small", 1024), ("vit_b_16", 768)):
        network = without_head(models.get_model(name, weights=None)).eval()
        with torch.no_grad():
            assert network(torch.zeros(1, 3, 224, 224)).shape == (1, features)


def test_sets_that_cannot_be_measured_are_refused_in_one_line(capsys, tmp_path):
    real, few = draw("real", 12), draw("few", 5, seed=1)
    assert "5 images are too few for the 5 nearest neighbors of each: give at least 6" in refused(capsys, real, few)
    assert values(real, few, "--metrics", "fd", "recall")["fd_random"] > 0
    assert "nowhere does not exist" in refused(capsys, real, "nowhere")
    Path("empty").mkdir()
    assert "there is no image in" in refused(capsys, real, "empty")
    with zipfile.ZipFile("empty.zip", "w") as archive:
        archive.writestr("notes.txt", "none")
    assert "there is no image in empty.zip" in refused(capsys, real, "empty.zip")
    Path("broken.zip").write_bytes(b"PK\3\4 and then nothing")
    assert "broken.zip is not a whole zip archive" in refused(capsys, real, "broken.zip")
    Path("broken.npy").write_bytes(b"\x93NUMPY\1\0v")
    assert "broken.npy cannot be read" in refused(capsys, real, "broken.npy")
    np.save("floats.npy", np.zeros((12, 16, 16, 3)))
    assert "floats.npy holds float64 (12, 16, 16, 3): expected images as uint8" in refused(capsys, real, "floats.npy")
    shutil.copytree(real, "damaged")
    content = Path("damaged/003.png").read_bytes()
    Path("damaged/003.png").write_bytes(content[: len(content) // 2])
    assert "003.png in damaged cannot be read" in refused(capsys, real, "damaged")
    Path("damaged/003.png").write_bytes(b"")
    assert "003.png in damaged cannot be read (the file is empty)" in refused(capsys, real, "damaged")
    Path("text.pt").write_text("no checkpoint")
    assert "text.pt" in refused(capsys, real, "text.pt")
    assert "real/000.png is not a set of images" in refused(capsys, real, "real/000.png")
    assert "--num_images is 13, but real has 12" in refused(capsys, real, real, "--num_images", 13)


def test_options_that_cannot_be_used_are_refused_in_one_line(capsys):
    real, fake = draw("real", 12), draw("fake", 12, seed=1)
    assert "unknown extractor resnet81 (did you mean resnet" in refused(capsys, real, fake, extractor="resnet81")
    assert "extractor absent.onnx does not exist" in refused(capsys, real, fake, extractor="absent.onnx")
    Path("text.pt").write_text("no network")
    assert "text.pt is not a TorchScript file" in refused(capsys, real, fake, extractor="text.pt")
    message = refused(capsys, real, fake, "--weights", "absent.pth", extractor="inception")
    assert "no Inception weights at absent.pth" in message
    assert "no weights of resnet18 at absent.pth" in refused(
        capsys, real, fake, "--weights", "absent.pth", extractor="resnet18"
    )
    torch.save({"fc.weight": torch.zeros(3)}, "other.pth")
    message = refused(capsys, real, fake, "--weights", "other.pth", extractor="resnet18")
    assert "other.pth do not fit" in message
    assert "must be some of fd, kid, is, " in refused(capsys, real, fake, "--metrics", "fid")
    assert "is cannot be measured with --extractor random" in refused(capsys, real, fake, "--metrics", "is")
    assert "--batch_size is 0: give 1 or more" in refused(capsys, real, fake, "--batch_size", 0)
    assert "--num_samples is about a checkpoint" in refused(capsys, real, fake, "--num_samples", 5)
    assert "--device nonsense cannot be used" in refused(capsys, real, fake, "--device", "nonsense")
    assert "see gan-lightning evaluate --help" in refused(capsys, real)


def test_no_file_of_others_is_overwritten(capsys):
    real = draw("real", 12)
    Path("mine.json").write_text('{"metrics": "mine"}')
    message = refused(capsys, real, real, output="mine.json")
    assert "--output mine.json exists and was not written by this command" in message
    assert "is a folder" in refused(capsys, real, real, output="real")
    once = evaluate(real, real, "--metrics", "fd")
    assert evaluate(real, real, "--metrics", "fd", "kid").keys() > once.keys()


def test_the_help_needs_no_torch(capsys):
    assert main(["evaluate", "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 120
    from gan_lightning.commands.evaluate_options import parse

    options = vars(parse(["a", "b", "--output", "c"]))
    for name in options.keys() - {"real", "fake"}:
        assert f"--{name} " in text, name
    assert "evaluate" in sys.modules["gan_lightning.__main__"].HELP
