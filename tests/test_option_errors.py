"""What is wrong with an option, in one line."""

import pytest

from gan_lightning import DCGAN
from gan_lightning.__main__ import main
from gan_lightning.modules.safe_loading import constructor_options
from gan_lightning.options.errors import explain, nearest, read_report

pytestmark = pytest.mark.usefixtures("own_folder")

UNION = """\
Parser key "model":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'lightning.pytorch.core.module.LightningModule'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'gan_lightning.DCGAN':
        Parser key "lr_g":
          Expected a <class 'float'>. Got value: fast
    - Expected a <class 'NoneType'>
  Given value type: <class 'jsonargparse._util.NestedArg'>
  Given value: NestedArg(key='lr_g', val='fast')"""


class Own(DCGAN):
    """Model of a user, whose parent takes what it does not know.

    Args:
        extra: Option of its own.
        kwargs: Options of the parent.
    """

    def __init__(self, extra: float = 0.5, **kwargs):
        super().__init__(**kwargs)


def refused(capsys, *words):
    """Return the one line that a command line is refused with."""
    assert main(list(words)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("gan-lightning: error: ")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--model DCGAN --model.lr 1", "model: DCGAN has no option lr; did you mean model.lr_g or model.lr_d?"),
        ("--model DCGAN --model.learning_rate 1", "model: DCGAN has no option learning_rate; did you mean model.lr_g?"),
        ("--model DCGAN --model.image_sise 1", "model: DCGAN has no option image_sise; did you mean model.image_size?"),
        ("--data ImageFolder --data.rot x", "data: ImageFolder has no option rot; did you mean data.root?"),
        (
            "--model.lr 1",
            "model.lr is an option of a class, and none is given: add --model DCGAN, or its --config, before it",
        ),
        (
            "--data.root x",
            "data.root is an option of a class, and none is given: add --data CelebA, or its --config, before it",
        ),
        ("--max_steps 3", "there is no option --max_steps; did you mean --trainer.max_steps?"),
        ("--epochs 3", "there is no option --epochs; did you mean --trainer.max_epochs?"),
        ("--trainr.max_steps 3", "there is no option --trainr.max_steps; did you mean --trainer.max_steps?"),
        ("--config step.yaml", "there is no option trainer.max_step; did you mean trainer.max_steps?"),
        ("--config lr.yaml", "model: DCGAN has no option lr; did you mean model.lr_g or model.lr_d?"),
        ("stray", "unexpected argument stray: an option is given as --name value"),
        ("--model DCGN", "model: there is no class DCGN; did you mean DCGAN?"),
        (
            "--trainer.callbacks EarlyStop",
            "trainer.callbacks: there is no class EarlyStop; did you mean EarlyStopping?",
        ),
        ("--model DCGAN --model.lr_g fast", "model.lr_g: expected float but got fast"),
        ("--trainer.max_steps many", "trainer.max_steps: expected int but got many"),
        ("--model DCGAN --data ImageFolder", "ImageFolder needs --data.root"),
        (
            "--trainer.callbacks EarlyStopping --trainer.callbacks.moniter x",
            "trainer.callbacks: EarlyStopping has no option moniter; did you mean trainer.callbacks.monitor?",
        ),
        (
            "--trainer.callbacks LearningRateMonitor --trainer.callbacks.logging_interval day",
            "trainer.callbacks.logging_interval: expected one of step, epoch, null but got day",
        ),
        (
            f"--model {__name__}.Own --model.lr 1",
            "model: Own has no option lr; did you mean model.lr_g or model.lr_d?",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_the_nearest_option(capsys, tmp_path, words, line):
    (tmp_path / "step.yaml").write_text("trainer: {max_step: 3}\n")
    (tmp_path / "lr.yaml").write_text("model: {class_path: DCGAN, init_args: {lr: 1}}\n")
    assert refused(capsys, "fit", *words.split()) == line


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("pack --data.rot x", "data: SyntheticFaces has no option rot; did you mean data.root?"),
        ("synthesize --seeds 3", "there is no option --seeds; did you mean --seed?"),
        ("synthesize --count many", "count: expected int but got many"),
    ],
)
def test_other_commands_explain_mistakes_too(capsys, words, line):
    assert refused(capsys, *words.split()) == line


def test_ctrl_c_is_one_line(capsys, monkeypatch):
    def interrupted(words):
        raise KeyboardInterrupt

    monkeypatch.setattr("gan_lightning.commands.export.main", interrupted)
    assert main(["export", "G.ckpt"]) == 130
    assert capsys.readouterr() == ("", "gan-lightning: interrupted\n")


def test_a_report_is_read_to_its_innermost_problem():
    problem = read_report(UNION)
    assert problem == ("model.lr_g", "gan_lightning.DCGAN", "expected float but got fast")
    assert explain("anything\n  else") == "anything else"


def test_what_is_not_alike_is_not_offered():
    assert nearest("model.former", ["model.lr_g", "model.r1", "trainer.max_steps"]) == []
    assert nearest("batch_size", ["evaluation.batch_size", "data.batch_size"]) == [
        "evaluation.batch_size",
        "data.batch_size",
    ]


def test_options_of_parents_belong_to_a_class_that_hands_them_on():
    assert {"extra", "lr_g", "image_size"} <= set(constructor_options(Own))
    assert "kwargs" not in constructor_options(Own)
