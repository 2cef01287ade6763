"""The help of a command: what it does, then our options, then Lightning's, each group about a screen."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from jsonargparse import ArgumentParser, DefaultHelpFormatter
from lightning import LightningDataModule, LightningModule

DESCRIPTIONS = {
    "fit": (
        "Train a model on a data set. Metrics, samples, the last and the best checkpoint are written to runs/NAME; "
        "metrics are measured at each validation."
    ),
    "validate": "Measure a checkpoint on the validation split: Frechet distance and related metrics of its samples.",
    "test": (
        "Measure a checkpoint on the test split. With a LatentRestoration, degrade test images, restore them, and "
        "compare the results with the originals."
    ),
    "predict": "Draw images from a checkpoint. With a LatentRestoration, restore a folder of photographs.",
    "pack": (
        "Decode, crop and resize the images of a data module once, on all cores, into the cache from which training "
        "reads them; what is packed already is kept. fit does the same on its own; this is for ahead of a job: give it "
        "the --config and the --data options of that job."
    ),
    "synthesize": (
        "Render synthetic faces, 178x218 JPEG, in CelebA's own layout with all its lists. The same seed gives the same "
        "faces; an existing folder is completed, never overwritten."
    ),
}
EXAMPLES = {
    "fit": ["--config quickstart --name demo", "--name demo --config quickstart --ckpt_path last"],
    "validate": ["--config quickstart --ckpt_path runs/demo/checkpoints/best.ckpt"],
    "test": [
        "--config quickstart --ckpt_path runs/demo/checkpoints/best.ckpt",
        "--config restore/deblur --model.generator_ckpt runs/demo/checkpoints/best.ckpt",
    ],
    "pack": [
        "--config celeba64 --data.root /data/celeba",
        "--data ImageFolder --data.root photos --data.image_size 64",
    ],
    "synthesize": ["--root data/synthetic --count 10000"],
    "predict": [
        "--config quickstart --ckpt_path runs/demo/checkpoints/best.ckpt --num_samples 16",
        "--config restore/deblur --model.generator_ckpt best.ckpt --data Photos --data.root photos",
    ],
}
GROUPS = {  # key of the options -> title
    "evaluation": "Evaluation",
    "sample_grid": "Grid of samples",
    "watch": "Warnings when a GAN fails",
    "checkpoint": "Best checkpoint",
    "last_checkpoint": "Last checkpoint",
    "trainer": "Lightning's Trainer",
}
UNUSED = {  # command -> groups of options that it does not use
    "validate": ("checkpoint", "last_checkpoint"),
    "test": ("checkpoint", "last_checkpoint", "sample_grid", "watch"),
    "predict": ("checkpoint", "last_checkpoint", "sample_grid", "watch", "evaluation"),
}
OF_LIGHTNING = ("trainer", "checkpoint")  # only the first sentence of their help is shown
OWN_WORDS = {  # replaces help of Lightning that is written for programmers
    "--ckpt_path": 'Checkpoint to start from: a path, or "last" or "best" for that of the run --name.',
    "--weights_only": "Refuse checkpoints that hold more than tensors and plain values, which could run code.",
    "--seed_everything": "Seed of first weights and latents; true for a random one.",
    "--verbose": "Print the metrics.",
    "--return_predictions": "Keep what is predicted in memory, too.",
}
CLOSING = (
    "Every option can also be set in YAML (--config), where later files win over earlier ones, or in the environment: "
    "--trainer.devices of {command} as PL_{variable}__TRAINER__DEVICES. `--trainer.callbacks.help NAME` explains the "
    "options of a class of Lightning's, such as EarlyStopping."
)
STEPS = {"fit": "training_step", "validate": "validation_step", "test": "test_step", "predict": "predict_step"}
LOADERS = {
    "fit": "train_dataloader",
    "validate": "val_dataloader",
    "test": "test_dataloader",
    "predict": "predict_dataloader",
}
SIMPLE_TYPES = {"int", "float", "str", "bool", "null", "list", "tuple", "Sequence", "Union", "Optional"}


class Option(NamedTuple):
    """An option as the help shows it."""

    name: str
    text: str


class WideHelp(DefaultHelpFormatter):
    """jsonargparse's help with one line per option, for our own layout."""

    def __init__(self, prog: str, **kwargs: Any) -> None:
        super().__init__(prog, **{**kwargs, "width": 1_000_000})  # type: ignore[no-untyped-call]


def command_help(command: str, text: str, models: Sequence[type] = (), data: Sequence[type] = ()) -> str:
    """Return the help of a command.

    Args:
        command: Name of the command.
        text: Help of the parser, formatted by `WideHelp`.
        models: Classes for `--model`.
        data: Classes for `--data`.
    """
    options = options_in(text)
    parts = [
        f"usage: gan-lightning {command} [options]",
        wrap(DESCRIPTIONS[command]),
        "\n".join(f"  gan-lightning {command} {example}" for example in EXAMPLES[command]),
        "\n".join(["The command", *(layout(option) for option in options if "." not in option.name)]),
        *class_groups("model", [cls for cls in models if has(cls, LightningModule, STEPS[command])]),
        *class_groups("data", [cls for cls in data if has(cls, LightningDataModule, LOADERS.get(command))]),
    ]
    for key, title in GROUPS.items():
        of_group = [option for option in options if option.name.startswith(f"--{key}.")]
        if of_group and key not in UNUSED.get(command, ()):
            shown = [shortened(option) for option in of_group] if key in OF_LIGHTNING else of_group
            parts.append("\n".join([title, *map(layout, shown)]))
    if command in STEPS:
        parts.append(wrap(CLOSING.format(command=command, variable=command.upper())))
    return "\n\n".join(parts) + "\n"


def has(cls: type, base: type, method: str | None) -> bool:
    """Return whether a class implements a method of Lightning's base class; always true without a method."""
    return method is None or getattr(cls, method) is not getattr(base, method)


def class_groups(key: str, classes: Iterable[type]) -> list[str]:
    """Return a group of options for each class; options of several classes are only explained at the first one."""
    explained: dict[Option, str] = {}
    groups = []
    for cls in classes:
        parser = ArgumentParser(usage="", add_help=False, formatter_class=WideHelp)
        parser.add_class_arguments(cls, key)
        options = options_in(parser.format_help())
        lines = [layout(option) for option in options if option not in explained]
        known = [option for option in options if option in explained]
        if known:
            names = ", ".join(option.name.removeprefix(f"--{key}.") for option in known)
            lines.append(textwrap.indent(wrap(f"and, as for {explained[known[0]]}: {names}", 2), "  "))
        explained |= {option: cls.__name__ for option in options if option not in explained}
        summary = (cls.__doc__ or "").strip().split("\n\n")[0]
        groups.append("\n".join([wrap(f"--{key} {cls.__name__}: {' '.join(summary.split())}"), *lines]))
    return groups


def options_in(text: str) -> list[Option]:
    """Return the options in a help text of `WideHelp`, except those that print help or read a part from a file."""
    text = re.sub(r"^  ENV:.*\n", "", text, flags=re.MULTILINE).replace("  ARG:   ", "  ")
    text = re.sub(r"\n {9,}", "  ", text)  # the help of a long name starts on the next line
    found = re.findall(r"^  (?:-\w[^-\n]*, )?(--[\w.]+)(?:[ ,].*?)? {2,}(\S.*)$", text, flags=re.MULTILINE)
    options = [(name, help_text) for name, help_text in found if not name.endswith((".help", "--help"))]
    return [
        Option(name, tidy(OWN_WORDS[name] + default_of(help_text) if name in OWN_WORDS else help_text))
        for name, help_text in options
        if not help_text.startswith(("Path to a configuration file.", 'One or more arguments specifying "class_path"'))
    ]


def default_of(text: str) -> str:
    """Return the end of a help text, which states the type and the default."""
    found = re.search(r" \((?:required, )?type: .*\)$", text)
    return found[0] if found else ""


def tidy(text: str) -> str:
    """Return a help text without markup, with a short type and the default."""
    details = default_of(text)
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text.removesuffix(details).replace("``", ""))
    found = re.fullmatch(
        r" \((required, )?type: (.*?)(?:, default: (.*?))?(?:, known subclasses: .*)?\)", details, re.DOTALL
    )
    if found is None:
        return text
    kind = short_type(found[2])
    default = None if found[3] in (None, "null") else f"default {found[3]}"
    stated = ", ".join(part for part in ("required" if found[1] else None, kind, default) if part)
    return f"{text} ({stated})" if stated else text


def short_type(hint: str) -> str | None:
    """Return a type in the form "int | null", or None if its name is not helpful."""
    if not set(re.findall(r"\w+", hint)) <= SIMPLE_TYPES:
        return None
    hint = re.sub(r"Optional\[(.*)\]$", r"\1 | null", hint)
    return re.sub(r"Union\[(.*)\]$", lambda match: match[1].replace(", ", " | "), hint)


def shortened(option: Option) -> Option:
    """Return an option with the first sentence of its help, and its default."""
    found = re.fullmatch(r"(.*?)( \([^()]*default [^()]*\))?", option.text, re.DOTALL)
    assert found is not None
    sentence = re.split(r"(?<=[\w)'\]])\. ?(?:[A-Z]|$)", found[1], maxsplit=1)[0].rstrip(". ")
    return option._replace(text=sentence + (found[2] or ""))


def layout(option: Option) -> str:
    """Return the lines of an option: its name, and its help next to it or below."""
    column, name = 34, f"  {option.name}"
    lines = wrap(option.text, column).splitlines()
    first = f"{name:{column}}{lines.pop(0)}" if len(name) < column - 1 and lines else name
    return "\n".join([first, *(" " * column + line for line in lines)])


def wrap(text: str, indent: int = 0) -> str:
    """Wrap a paragraph to the width of the terminal, 120 at most, less an indent."""
    width = min(shutil.get_terminal_size().columns, 120) - indent
    return textwrap.fill(" ".join(text.split()), max(width, 40), break_long_words=False, break_on_hyphens=False)
