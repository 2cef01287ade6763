"""`gan-lightning upscale`, for people who know no Lightning."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from gan_lightning import upscaler
from gan_lightning.commands import upscale as upscale_command
from gan_lightning.commands.upscale_options import HELP, parse
from gan_lightning.images import to_float, to_uint8
from gan_lightning.networks.rrdb import RRDBNet
from tests.commands import command

pytestmark = pytest.mark.usefixtures("own_folder")


def network(channels=3, scale=2):
    torch.manual_seed(0)
    return RRDBNet(channels, scale, features=4, blocks=1).eval().requires_grad_(False)


@pytest.fixture
def weights():
    save_file(network().state_dict(), "weights.safetensors")
    return "weights.safetensors"


def draw(path, size=(20, 14), mode="RGB", **options):
    coarse = np.random.default_rng(len(str(path))).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)
    image.save(path, **options)
    return image


def upscale(*words, weights="weights.safetensors", output="large"):
    return command("upscale", *words, "--weights", weights, "--output", output, "--device", "cpu")


def refused(capsys, *words, **options):
    capsys.readouterr()
    assert upscale(*words, **options) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0].removeprefix("gan-lightning: error: ")


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def enlarged(image, channels=3):
    small = to_float(
        torch.from_numpy(np.array(image.convert("RGB" if channels == 3 else "L")))
        .reshape(1, *image.size[::-1], -1)
        .permute(0, 3, 1, 2)
    )
    return to_uint8(2 * network(channels)((small + 1) / 2) - 1)[0].permute(1, 2, 0).numpy()


def test_a_folder_is_enlarged_under_its_names(weights, capsys):
    first, second = draw("in/a.png"), draw("in/more/b.png", (31, 26))
    assert upscale("in") == 0
    said = capsys.readouterr().out
    assert "2 images by RRDBNet, 2 times as large" in said
    assert "wrote 2 images to large" in said
    assert np.array_equal(pixels("large/a.png"), enlarged(first))
    assert np.abs(pixels("large/b.png")[..., :].astype(int)).shape == (52, 62, 3)
    inner = (slice(0, 50), slice(0, 58))  # beside the border, to which 31 columns are continued
    padded = np.pad(np.asarray(second), ((0, 0), (0, 1), (0, 0)), mode="edge")
    assert np.array_equal(pixels("large/b.png")[inner], enlarged(Image.fromarray(padded))[inner])


def test_gray_alpha_orientation_and_profile_are_kept(weights):
    draw("in/gray.png", mode="L")
    image = draw("in/clear.png")
    alpha = Image.fromarray(np.repeat(np.linspace(0, 255, 20, dtype=np.uint8)[None], 14, 0))
    image.putalpha(alpha)
    image.save("in/clear.png", icc_profile=b"a profile")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = draw("in/turned.jpg", exif=exif, quality=95)
    assert upscale("in") == 0
    with Image.open("large/gray.png") as gray, Image.open("large/clear.png") as clear:
        assert (gray.mode, gray.size) == ("L", (40, 28))
        assert (clear.mode, clear.size, clear.info["icc_profile"]) == ("RGBA", (40, 28), b"a profile")
        assert np.array_equal(
            np.asarray(clear.getchannel("A")), np.asarray(alpha.resize((40, 28), Image.Resampling.BICUBIC))
        )
    assert pixels("large/turned.png").shape == (40, 28, 3)
    with Image.open("in/turned.jpg") as opened:
        assert np.array_equal(
            pixels("large/turned.png"), enlarged(opened.convert("RGB").transpose(Image.Transpose.ROTATE_270))
        )
    assert turned.size == (20, 14)


def test_hidden_colors_do_not_leak(weights):
    visible = np.full((24, 24, 3), 200, dtype=np.uint8)
    alpha = np.zeros((24, 24), dtype=np.uint8)
    alpha[:, :12] = 255
    for name, hidden in (("black", 0), ("white", 255)):
        visible[:, 12:] = hidden
        Path("in").mkdir(exist_ok=True)
        Image.fromarray(np.dstack([visible, alpha])).save(f"in/{name}.png")
    assert upscale("in") == 0
    assert np.array_equal(pixels("large/black.png")[:, :24], pixels("large/white.png")[:, :24])


def test_an_interrupted_command_goes_on(weights, monkeypatch, capsys):
    for name in "abc":
        draw(f"in/{name}.png")
    whole, calls = upscale_command.Job._enlarge, []

    def interrupted(self, name):
        calls.append(name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(self, name)

    monkeypatch.setattr(upscale_command.Job, "_enlarge", interrupted)
    assert upscale("in") == 130
    assert sorted(path.name for path in Path("large").iterdir()) == ["a.png"]
    assert upscale("in") == 0
    assert calls == ["a.png", "b.png", "b.png", "c.png"]
    assert "1 image finished earlier" in capsys.readouterr().out
    draw("in/a.png", (18, 12))
    message = refused(capsys, "in")
    assert "large/a.png exists, and is not a result of this command" in message
    assert pixels("large/a.png").shape == (28, 40, 3)


def test_broken_photographs_are_skipped(weights, capsys):
    draw("in/a.png")
    Path("in/b.png").write_bytes(Path("in/a.png").read_bytes()[:60])
    assert upscale("in") == 1
    assert "skipped b.png: it cannot be read" in capsys.readouterr().err
    assert Path("large/a.png").is_file()
    Path("in/a.png").unlink()
    Path("in/b.png").write_bytes(b"")
    assert upscale("in", output="other") == 2


def test_weights_that_spandrel_reads_are_run(weights):
    spandrel = pytest.importorskip("spandrel")
    from spandrel.architectures.Compact import Compact

    torch.manual_seed(0)
    model = Compact(num_feat=8, num_conv=2, upscale=2)
    torch.save(model.state_dict(), "compact.pth")
    image = draw("in/a.png")
    assert upscale("in", weights="compact.pth") == 0
    theirs = spandrel.ModelLoader().load_from_state_dict(model.state_dict())
    small = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    expected = (theirs.eval()(small)[0] * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    assert np.abs(pixels("large/a.png").astype(int) - expected).max() <= 1


def test_what_cannot_be_done_is_refused_in_one_line(weights, capsys, monkeypatch):
    draw("in/a.png")
    assert "a tile of 64 pixels is too small for its border of 32" in refused(capsys, "in", "--tile", 64)
    assert "nowhere.pth does not exist" in refused(capsys, "in", weights="nowhere.pth")
    assert "nothing does not exist" in refused(capsys, "nothing")
    assert "lies in" in refused(capsys, "in", output="in/large")
    Path("text.pth").write_text("no weights")
    assert "text.pth" in refused(capsys, "in", weights="text.pth")
    Path("pickled.pkl").write_bytes(b"\x80\x04N.")
    assert "refused" in refused(capsys, "in", weights="pickled.pkl")
    save_file({"some.weight": torch.zeros(3)}, "other.safetensors")
    assert "no network that spandrel reads" in refused(capsys, "in", weights="other.safetensors")
    monkeypatch.setattr(upscaler, "find_spec", lambda name: None)
    message = refused(capsys, "in", weights="other.safetensors")
    assert "give weights of one" in message
    assert "pip install 'gan-lightning[upscale]'" in message
    save_file(network(1).state_dict(), "gray.safetensors")
    assert "a.png is in color, but gray.safetensors takes gray" in refused(capsys, "in", weights="gray.safetensors")
    save_file(network(4).state_dict(), "four.safetensors")
    assert "takes images of 4 channels: expected 1 or 3" in refused(capsys, "in", weights="four.safetensors")
    bad = network().state_dict()
    bad["conv_hr.bias"] = bad["conv_hr.bias"] * float("nan")
    save_file(bad, "bad.safetensors")
    assert "not finite (conv_hr.bias)" in refused(capsys, "in", weights="bad.safetensors")
    assert not Path("large").exists()


def test_the_help_explains_every_option(capsys):
    assert command("upscale", "--help") == 0
    assert capsys.readouterr().out == HELP
    for name in vars(parse(["a", "--weights", "w"])).keys() - {"photos"}:
        assert f"--{name} " in HELP
    assert max(map(len, HELP.splitlines())) <= 120
    assert "upscale" in sys.modules["gan_lightning.__main__"].HELP
