"""Exported generators make the images of the generator, without this package, and are priors of an inversion."""

import re
import zipfile
from pathlib import Path

import pytest
import torch

from gan_lightning import DCGAN, StyleGAN2Generator, load_generator
from gan_lightning.commands import export_job
from gan_lightning.images import to_uint8
from tests.commands import command, refusal

PAGE = (Path(__file__).parent.parent / "docs" / "export.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
TINY = {"image_size": 16, "base_channels": 4, "latent_dim": 8}


@pytest.fixture(scope="module")
def generators(tmp_path_factory):
    """Folder with a DCGAN, one with classes, and a StyleGAN2 without and with classes."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("generators")
    torch.manual_seed(0)
    for name, classes in (("plain", 0), ("classes", 3)):
        model = DCGAN(**TINY, num_classes=classes)
        for value in model.generator_ema.parameters():
            value.mul_(5)  # images that are not nearly zero
        torch.save({"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}, folder / f"{name}.ckpt")
    for name, classes in (("stylegan2", 0), ("stylegan2_classes", 3)):
        options = {"base_channels": 4, "max_channels": 8, "w_dim": 8, "mapping_layers": 2, "label_dim": classes}
        save_file(StyleGAN2Generator(16, latent_dim=8, **options).state_dict(), folder / f"{name}.safetensors")
    return folder


def skip_without_onnx():
    pytest.importorskip("onnxscript")
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 7):
        pytest.skip("torch 2.6 converts to ONNX with earlier releases of onnxscript alone")


def find(generators, name):
    return next(generators.glob(f"{name}.*"))


@pytest.mark.parametrize(
    "name", ["plain", "classes", "stylegan2", pytest.param("stylegan2_classes", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_an_exported_generator_makes_the_same_images(generators, name, suffix, tmp_path, capsys):
    if suffix == ".onnx":
        skip_without_onnx()
    labeled = name.endswith("classes")
    path, output = find(generators, name), tmp_path / f"G{suffix}"
    assert command("export", path, "--output", output, *["--labels"] * labeled) == 0
    assert "in batches of 1 and 3" in capsys.readouterr().out
    inputs = (torch.randn(5, 8), *[torch.tensor([2, 0, 1, 2, 0])] * labeled)
    images = export_job.FORMATS[suffix][1](output)(*inputs)
    with torch.no_grad():
        torch.testing.assert_close(images, load_generator(path)(*inputs), atol=1e-4, rtol=0)
    assert [file.name for file in tmp_path.iterdir()] == [output.name]


def test_pixels_and_one_class(generators, tmp_path):
    output = tmp_path / "G.pt2"
    words = ["--uint8", "--batch", "2", "--output", output]
    assert command("export", find(generators, "classes"), "--label", "1", *words) == 0
    latents = torch.randn(2, 8)
    expected = to_uint8(load_generator(find(generators, "classes")).of_class(1)(latents))
    pixels = export_job.read_pt2(output)(latents)
    assert pixels.dtype == torch.uint8
    assert (pixels.int() - expected.int()).abs().max() <= 1
    assert any(name.endswith(export_job.NOTES) for name in zipfile.ZipFile(output).namelist())


def test_a_program_that_differs_is_not_left_behind(generators, tmp_path, monkeypatch, capsys):
    write, read = export_job.FORMATS[".pt2"]
    formats = {".pt2": (write, lambda path: lambda *inputs: read(path)(*inputs) + 2e-4)}
    monkeypatch.setattr(export_job, "FORMATS", formats)
    output = tmp_path / "G.pt2"
    status = command("export", find(generators, "plain"), "--output", output)
    assert "was not written: its images differ" in refusal(capsys, status)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("plain", ["--output", "G.tflite"], "the suffix says the format"),
        ("plain", ["--output", "G.pt2", "--labels"], "has no classes"),
        ("classes", ["--output", "G.pt2"], "has 3 classes: add --labels or --label CLASS"),
        ("classes", ["--output", "G.pt2", "--label", "7"], "no class '7'"),
        ("stylegan2_classes", ["--output", "G.pt2", "--label", "7"], "--label is 7"),
        ("classes", ["--output", "G.pt2", "--label", "1", "--labels"], "leave one of them out"),
        ("plain", ["--output", "G.pt2", "--batch", "0"], "--batch is 0"),
        ("plain", ["--output", "other.pt2"], "exists and was not written by this command"),
    ],
)
@pytest.mark.usefixtures("own_folder")
def test_what_cannot_be_exported_is_refused_in_one_line(generators, name, words, message, capsys):
    Path("other.pt2").write_text("somebody's")
    assert message in refusal(capsys, command("export", find(generators, name), *words))
    assert [path.name for path in Path().iterdir()] == ["other.pt2"]


@pytest.mark.usefixtures("own_folder")
def test_a_file_of_the_command_is_replaced_and_a_missing_extra_named(generators, monkeypatch, capsys):
    for _ in range(2):
        assert command("export", find(generators, "plain"), "--output", "G.pt2") == 0
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    status = command("export", find(generators, "plain"), "--output", "G.onnx")
    assert "pip install 'gan-lightning[onnx]'" in refusal(capsys, status)
    assert not Path("G.onnx").exists()


def test_a_generator_that_torch_cannot_convert_is_refused_in_one_line(generators, monkeypatch, tmp_path, capsys):
    pytest.importorskip("onnxscript")

    def fail(*args, **options):
        raise torch.onnx.OnnxExporterError("step 3/3")

    monkeypatch.setattr(torch.onnx, "export", fail)
    status = command("export", find(generators, "plain"), "--output", tmp_path / "G.onnx")
    assert "cannot convert this generator to ONNX: update torch, or write a .pt2" in refusal(capsys, status)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
@pytest.mark.usefixtures("own_folder")
def test_snippets_of_the_page_run(number):
    if "onnxruntime" in SNIPPETS[number]:
        skip_without_onnx()
        assert command("export", "faces64", "--output", "G.onnx", "--uint8") == 0
    words = [] if "invert" in SNIPPETS[number] else ["--uint8"]
    assert command("export", "faces64", "--output", "G.pt2", *words) == 0
    names = {}
    exec(SNIPPETS[number], names)  # as the reader would
    if "restored" in names:
        assert names["restored"].shape == (1, 3, 64, 64)
        kept = [names["hole"](names[name]) for name in ("restored", "photo")]
        torch.testing.assert_close(*kept, rtol=0, atol=1e-4)
    elif "DCGAN" not in names:
        assert Path("samples/3.png").is_file()
