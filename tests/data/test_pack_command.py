from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gan_lightning.__main__ import mistake_behind
from gan_lightning.commands.data_sets import main, parse
from gan_lightning.data.celeba import CelebA
from gan_lightning.data.image_folder import ImageFolder
from gan_lightning.data.synthetic_faces import SyntheticFaces
from gan_lightning.errors import InputError

CONFIGS = Path(__file__).parents[2] / "configs"
Make = Callable[..., Path]


def read_options(arguments: list[str]) -> Any:
    return parse(["pack", *arguments])[1].data


def figures(output: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+) +(.+)$", output, re.MULTILINE))


def test_packs_what_training_then_opens(make_celeba: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_celeba(10)
    (root / "celeba" / "img_align_celeba" / "000003.jpg").write_bytes(b"x")
    options = ["--data", "CelebA", "--data.root", str(root), "--data.image_size", "16"]
    with pytest.warns(UserWarning, match="1 of 10"):
        assert main(["pack", *options, "--data.cache_dir", str(tmp_path / "cache")]) == 0
    printed = figures(capsys.readouterr().out)
    assert (printed["images"], printed["skipped"]) == ("9", "1")
    folder = Path(printed["path"])
    assert folder.parent == tmp_path / "cache"
    assert int(printed["bytes"].replace(",", "")) == sum(path.stat().st_size for path in folder.iterdir()) > 7680
    assert float(printed["seconds"]) < 60
    data = CelebA(str(root), image_size=16, cache_dir=str(tmp_path / "cache"))
    data.setup()  # without prepare_data
    assert data.dataset("all").images.folder == folder


def test_reads_only_the_data_of_a_configuration() -> None:
    data = read_options([f"--config={CONFIGS / 'celeba64.yaml'}", "--data.root", "elsewhere", "--data.crop=148"])
    assert isinstance(data, CelebA)
    assert (str(data.root), data.crop, data.image_size, data.batch_size) == ("elsewhere", 148, 64, 64)


def test_configurations_merge_from_left_to_right(tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("trainer: {max_steps: 3}\ndata: {init_args: {image_size: 32}}\n")
    (tmp_path / "other.yaml").write_text("model: {nonsense: 1}\n")
    paths = [CONFIGS / "image_folder64.yaml", tmp_path / "more.yaml", tmp_path / "other.yaml"]
    data = read_options([argument for path in paths for argument in ("--config", str(path))])
    assert isinstance(data, ImageFolder)
    assert (str(data.root), data.image_size) == ("data/photos", 32)


def test_a_given_class_has_its_own_defaults(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("data: {class_path: gan_lightning.SyntheticFaces, init_args: {batch_size: 7}}\n")
    config = ["--config", str(tmp_path / "run.yaml")]
    for given in (["--data", "ImageFolder"], ["--data=ImageFolder"], [*config, "--data", "ImageFolder"]):
        data = read_options([*given, "--data.root", "x"])
        assert isinstance(data, ImageFolder)
        assert data.crop is None  # not the 178 of SyntheticFaces, the default class
    assert read_options(["--data", "MNIST", "--data.root", "x"]).image_size == 32
    assert read_options(["--data.count", "5"]).count == 5


def test_packs_even_if_a_run_is_not_allowed_to(make_celeba: Make, tmp_path: Path) -> None:
    options = {"root": str(make_celeba(10)), "image_size": 16, "cache_dir": str(tmp_path / "cache"), "auto_pack": False}
    with pytest.raises(InputError, match=r"has no up-to-date pack .*: run `gan-lightning pack`"):
        CelebA(**options).prepare_data()
    assert not list((tmp_path / "cache").glob("celeba-*"))
    given = ["--data=CelebA", *(f"--data.{name}={value!s}" for name, value in options.items())]
    assert main(["pack", *given]) == 0
    CelebA(**options).prepare_data()


def test_the_default_is_that_of_fit() -> None:
    assert isinstance(read_options([]), SyntheticFaces)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "does not exist"), ("a: [", "not valid YAML"), ("3", "no keys")]
)
def test_an_invalid_configuration_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_options(["--config", str(path)])
    with pytest.raises(InputError, match="cannot be read"):
        read_options(["--config", str(tmp_path)])


def test_settings_out_of_range_and_unknown_ones_are_refused() -> None:
    with pytest.raises(ValueError, match="image_size is 0") as raised:
        read_options(["--data=CelebA", "--data.root=x", "--data.image_size=0"])
    assert isinstance(mistake_behind(raised.value), InputError)
    with pytest.raises(InputError, match="colour"):
        read_options(["--data=CelebA", "--data.root=x", "--data.colour=1"])


def test_help_explains(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in ((["--help"], "ahead of a job"), (["--data.help", "CelebA"], "centered square")):
        with pytest.raises(SystemExit):
            main(["pack", *arguments])
        assert words in capsys.readouterr().out


def test_what_is_left_out_is_said(make_image: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(3):
        make_image(tmp_path / "photos" / f"{number}.jpg", number)
    for name in ("a.heic", "b.heic", "notes.txt", ".DS_Store"):
        (tmp_path / "photos" / name).write_bytes(b"x")
    options = ["--data.root", str(tmp_path / "photos"), "--data.cache_dir", str(tmp_path / "cache")]
    assert main(["pack", "--data", "ImageFolder", *options, "--data.image_size", "16"]) == 0
    assert [text for text in caplog.messages if "left out" in text] == [
        f"{tmp_path / 'photos'}: left out 2 other files (.heic: 2)"
    ]


def test_a_folder_whose_name_is_not_utf8_is_packed(
    make_image: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another name: no YAML can hold its own."""
    root = tmp_path / os.fsdecode(b"caf\xe9")
    for number in range(3):
        make_image(root / f"{number}.jpg", number)
    monkeypatch.chdir(root)
    options = ["--data.root", ".", "--data.cache_dir", str(tmp_path / "cache"), "--data.image_size", "16"]
    assert main(["pack", "--data", "ImageFolder", *options]) == 0
    assert r"caf\xe9-16x3" in figures(capfd.readouterr().out)["path"]
