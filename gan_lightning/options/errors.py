"""One-line messages for mistakes in options, made from the reports of jsonargparse."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from difflib import SequenceMatcher
from pkgutil import resolve_name
from textwrap import dedent
from types import MappingProxyType
from typing import NamedTuple

from gan_lightning.inversion import InversionSettings
from gan_lightning.modules.safe_loading import constructor_options

MOVED_OPTIONS = {  # former options of LatentRestoration -> where they are set now
    **{field.name: f"model.inversion.{field.name}" for field in fields(InversionSettings)},
    "resize": "data.resize of --data Photos",
    "poisson": "model.inversion.composite, which fills holes without a seam, as by default",
}
SYNONYMS = {  # names that other programs have for our options
    "learning_rate": "lr_g",
    "beta1": "betas",
    "nz": "latent_dim",
    "z_dim": "latent_dim",
    "ngf": "base_channels",
    "ndf": "base_channels",
    "workers": "num_workers",
    "epochs": "max_epochs",
    "gpus": "devices",
    "seed": "seed_everything",
    "resume": "ckpt_path",
    "resume_from_checkpoint": "ckpt_path",
}
SIMILAR = 0.7  # minimum similarity, from 0 to 1, of names that are suggested
ALL_NAMES = "for its names, see `gan-lightning fit --config quickstart --print_config`"
_UNION = re.compile(
    r"Does not validate against any of the Union subtypes\nSubtypes: .*?\nErrors:\n(.*)\nGiven value type: .*?"
    r"\nGiven value: (.*)",
    re.DOTALL,
)


class Problem(NamedTuple):
    """An option and what is wrong with it.

    Attributes:
        key: Name of the option, such as "model.lr_g"; empty if the report names none.
        class_path: Class of the option, if it is an option of a class.
        reason: Description of the problem.
    """

    key: str
    class_path: str | None
    reason: str


def read_report(report: str) -> Problem:
    """Return the option that a report of jsonargparse is about, and its problem.

    Args:
        report: Message of an error: nested by indentation, with the errors of all types that an option may have.
    """
    text = re.sub(r"^\s*- Expected a path but .* either not accessible or invalid\n\s*- ", "", dedent(report).strip())
    text = dedent(text).strip()
    if found := re.match(r'Parser key "([^"]+)"(?: element \d+)?:\s*\n(.*)', text, re.DOTALL):
        inner = read_report(found[2])
        return inner._replace(key=f"{found[1]}.{inner.key}".rstrip("."))
    if found := re.match(r"Problem with given class_path '([^']+)':\s*\n(.*)", text, re.DOTALL):
        inner = read_report(found[2])
        return inner if inner.class_path else inner._replace(class_path=found[1])
    if found := re.fullmatch(r"Expected an? (.+?)\. Got value: (.*)", text, re.DOTALL):
        return Problem("", None, f"expected {_type_name(found[1])} but got {found[2]}")
    if found := _UNION.fullmatch(text):
        items = re.split(r"^- ", dedent(found[1]), flags=re.MULTILINE)[1:]
        problems = [item for item in items if not item.startswith("Expected a")]
        if problems:
            return read_report(next((item for item in problems if item.startswith("Problem")), problems[0]))
        paths = [item.strip() for item in items if item.startswith("Expected a dot import path")]
        if paths:
            return Problem("", None, paths[0])
        types = ", ".join(dict.fromkeys(_type_name(item.strip().split(" ", 2)[2]) for item in items))
        return Problem("", None, f"expected one of {types} but got {found[2]}")
    return Problem("", None, " ".join(text.split()))


def _type_name(hint: str) -> str:
    if found := re.fullmatch(r"typing\.Literal\[(.*)\]", hint.strip()):
        return found[1].replace("'", "")
    found = re.fullmatch(r"<class '(?:[\w.]+\.)?(\w+)'>", hint.strip())
    return "null" if found and found[1] == "NoneType" else found[1] if found else hint.strip()


def nearest(given: str, known: Iterable[str]) -> list[str]:
    """Return up to three options with names similar to one that does not exist.

    Args:
        given: Name of the option, such as "model.lr".
        known: Names of all options.
    """
    head, _, last = given.rpartition(".")
    last = SYNONYMS.get(last, last)
    scores = {}
    for name in dict.fromkeys(known):
        other_head, _, other = name.rpartition(".")
        likeness = 1.0 if other.startswith(f"{last}_") else SequenceMatcher(None, last, other).ratio()
        scores[name] = likeness - 0.04 * (head != other_head)
    best = max(scores.values(), default=0.0)
    return [name for name, score in scores.items() if score == best >= SIMILAR][:3]


def did_you_mean(names: Sequence[str]) -> str:
    """Return ", did you mean ...?" for some names; nothing for none."""
    return f"; did you mean {' or '.join(names)}?" if names else ""


def explain(
    report: str, options: Sequence[str] = (), classes: Mapping[str, Sequence[type]] = MappingProxyType({})
) -> str:
    """Return a report of jsonargparse as one line that says what to do.

    Args:
        report: Message of its error.
        options: Names of all options of the command.
        classes: For each option that takes a class, the classes that can be given by their short names.
    """
    if found := re.match(r"unrecognized arguments: (.*)", report):
        name = re.sub(r"[+=].*", "", found[1].split()[0])
        if not name.startswith("-"):
            return f"unexpected argument {name}: an option is given as --name value"
        return f"there is no option {name}" + did_you_mean([f"--{near}" for near in nearest(name.strip("-"), options)])
    if found := re.match(r"(?:Subcommand '\w+' does not accept option|Option) '([^']+)'", report):
        name = re.sub(r"\.(class_path|init_args)\b.*", "", found[1])
        return f"there is no option {name}" + did_you_mean(nearest(name, options))
    return _explain_problem(read_report(report), options, classes)


def _explain_problem(problem: Problem, options: Sequence[str], classes: Mapping[str, Sequence[type]]) -> str:
    key, path, reason = problem
    name = (path or "").rpartition(".")[2]
    if found := re.match(r"Option '([^']+)' is not accepted", reason):
        return _explain_option(found[1], key, path or "", options)
    if found := re.match(r"unrecognized arguments: --([\w.]+)", reason):  # of a dataclass among the options of a class
        return _explain_option(found[1], key, path or "", options)
    if found := re.match(r"the following arguments are required: (.*)", reason):
        needed = ", ".join(f"--{key}.{option.strip()}" for option in found[1].split(","))
        return f"{name or 'this command'} needs {needed}"
    if found := re.match(r"Expected a dot import path string: (.*)", reason):
        names = [cls.__name__ for cls in classes.get(key, ())]
        advice = did_you_mean(nearest(found[1], names)) or f": choose one of {', '.join(names)}" * bool(names)
        return f"{key}: there is no class {found[1]}{advice or ': give its full path, package.module.Class'}"
    if re.match(r"No module named |module .* has no attribute ", reason):
        ours = (path or "").startswith("gan_lightning.")
        advice = f" in this version; {ALL_NAMES}" if ours else ": install it, or put its folder on PYTHONPATH"
        return f"{path or key}: {reason}{advice}"
    return f"{key or name}: {reason}" if key or name else reason


def _explain_option(option: str, key: str, class_path: str, options: Sequence[str]) -> str:
    name = class_path.rpartition(".")[2]
    if name == "LatentRestoration" and option in MOVED_OPTIONS:
        return (
            f"model.{option} has moved: set {MOVED_OPTIONS[option]} instead; all options of the search are now under "
            "model.inversion"
        )
    if name in ("LightningModule", "LightningDataModule"):
        example = "DCGAN" if name == "LightningModule" else "CelebA"
        advice = f"add --{key} {example}, or its --config, before it"
        return f"{key}.{option} is an option of a class, and none is given: {advice}"
    try:
        own = [f"{key}.{known}" for known in constructor_options(resolve_name(class_path))]
    except (ImportError, AttributeError, ValueError):
        own = []
    others = [known for known in options if known.partition(".")[0] != key]
    near = nearest(f"{key}.{option}", own) or nearest(f"{key}.{option}", others)
    return f"{key}: {name} has no option {option}" + (did_you_mean(near) or f"; {ALL_NAMES}")
