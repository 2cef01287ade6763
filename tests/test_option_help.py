"""The help of the commands, as a stranger reads it."""

import re
from contextlib import suppress

import pytest

from gan_lightning.__main__ import main
from gan_lightning.options.help import DESCRIPTIONS, Option, options_in, shortened

SCREEN = 75  # lines; Lightning's own group, the last one, may be longer


HELP = {}  # what each command has printed


def help_of(capsys, command):
    if command not in HELP:
        with suppress(SystemExit):
            main([command, "--help"])
        HELP[command] = capsys.readouterr().out
    return HELP[command]


@pytest.fixture(autouse=True)
def on_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("sys.argv", ["gan-lightning"])


@pytest.mark.parametrize("command", DESCRIPTIONS)
def test_help_says_what_a_command_does_and_shows_one(capsys, command):
    text = help_of(capsys, command)
    usage, description, example, *groups = text.split("\n\n")
    assert usage == f"usage: gan-lightning {command} [options]"
    assert " ".join(description.split()) == DESCRIPTIONS[command]
    assert all(line.startswith(f"  gan-lightning {command} --") for line in example.splitlines())
    assert groups[0].startswith("The command\n  --")
    assert max(len(line) for line in text.splitlines() if not line.startswith("  gan-lightning ")) <= 100
    for noise in ("<class", "Union[", "known subclasses", "PL_FIT__MODEL", ":class:", "default null", ".help ["):
        assert noise not in text.replace("--trainer.callbacks.help NAME", ""), noise


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_our_options_come_first_and_a_group_is_a_screen(capsys, command):
    groups = help_of(capsys, command).split("\n\n")[3:-1]
    titles = [group.splitlines()[0] for group in groups]
    kinds = [re.match(r"(--model|--data|[A-Z][\w' ]+)", title)[1] for title in titles]
    assert kinds[:2] == ["The command", "--model"]
    assert titles[1].startswith("--model DCGAN: Deep convolutional GAN")
    assert kinds[-1] == "Lightning's Trainer"
    assert kinds.index("--data") < len(kinds) - 1
    assert all(len(group.splitlines()) <= SCREEN for group in groups[:-1])


def test_a_command_offers_the_classes_that_it_runs(capsys):
    fit, predict = help_of(capsys, "fit"), help_of(capsys, "predict")
    assert "--model LatentRestoration:" not in fit
    assert "--data Photos:" not in fit
    assert "--checkpoint.save_top_k" in fit
    assert "--data Photos:" in predict
    assert "--checkpoint.save_top_k" not in predict


def test_options_that_classes_share_are_explained_once(capsys):
    text = help_of(capsys, "fit")
    assert text.count("  --data.num_workers ") == 2  # streams explain theirs
    assert "and, as for CelebA: auto_pack, image_size, channels, batch_size" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("fit --trainer.callbacks.help EarlyStopping", "--trainer.callbacks.monitor MONITOR"),
        ("fit --model.help DCGAN", "Adam's learning rate for the generator"),
        ("pack --data.help CelebA", "Side of the centered square"),
    ],
)
def test_the_help_of_a_class_is_that_of_jsonargparse(capsys, words, said):
    with suppress(SystemExit):
        main(words.split())
    text = capsys.readouterr().out
    assert said in text
    assert max(map(len, text.splitlines())) <= 130


def test_a_long_help_is_cut_at_its_first_sentence_and_keeps_its_default():
    text = (
        "Stop after this time. Disabled by default (``None``). (type: Optional[str], default: 3, known subclasses: a.b)"
    )
    (option,) = options_in(f"  --trainer.max_time MAX_TIME\n                        {text}")
    assert option == Option(
        "--trainer.max_time", "Stop after this time. Disabled by default (None). (str | null, default 3)"
    )
    assert shortened(option).text == "Stop after this time (str | null, default 3)"
