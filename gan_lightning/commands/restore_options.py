"""Options of the command `restore`, and its help."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gan_lightning.commands.parser import CommandParser, check_at_least
from gan_lightning.errors import InputError

HELP = """\
usage: gan-lightning restore PHOTO [PHOTO ...] --generator FILE --task TASK [options]

Restore photographs with the generator of a GAN. PHOTO is an image, or a folder of images.

    gan-lightning restore face.jpg --generator G.ckpt --task inpaint --mask mask.png
    gan-lightning restore old/*.jpg --generator G.ckpt --task denoise --output restored/

  --generator FILE    checkpoint of a DCGAN or of the PyTorch tutorial, or faces64; it sets the size of the results
  --output FOLDER     folder for the restored photographs, as PNG (default: restored)

tasks and their options:
  denoise             remove noise
    --noise SIGMA       standard deviation of the noise on the [0, 1] scale (default: estimated)
  inpaint             fill in missing pixels
    --mask PATH         image that is black where pixels are missing, or a folder of such masks, named like the
                        photographs (default: their transparent pixels are missing)
    --mask_white WHAT   meaning of white in masks: known (default) or missing
  deblur              remove a blur
    --blur SIGMA        sigma of the Gaussian blur, in pixels of the result (default: estimated)
  super_resolve       enlarge
    --factor N          factor of the enlargement (default: 4)
  colorize            add color
  invert              find the most similar image in or near the range of the generator

  --align [FRAME]     restore the faces in the photographs, in the frame of the generator, celeba (default) or ffhq, and
                      put them back; --landmarks FILE gives their positions, as for `gan-lightning align`
  --label LABEL       class of the photographs, for a generator with classes: its name, or search, which finds the class
                      of each photograph
  --searches K        number of searches for each photograph, which are averaged (default: depends on the task)
  --keep_searches     keep the result of each search: several ways to fill a hole
  --config FILE       options of `gan-lightning predict` in YAML; on the command line, --model.inversion.num_steps 50
  --print_config      print all options in YAML, and do nothing
  -h, --help          this help

Photographs of another size or shape are cropped to the center and resized to the size of the results. Everything else
(panels, metrics) is in FOLDER/details. Other files are never overwritten. After an interruption, the same command
resumes.
"""
TASKS: dict[str, tuple[str, ...]] = {  # task -> its options
    "denoise": ("noise",),
    "inpaint": ("mask", "mask_white"),
    "deblur": ("blur",),
    "super_resolve": ("factor",),
    "colorize": (),
    "invert": (),
}
INSTEAD = {  # options of predict that this command sets itself -> how
    "--model.generator_ckpt": "--generator",
    "--data.root": "the photographs, without an option",
    "--trainer.default_root_dir": "--output",
}


def parse(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options of the command, and those for `predict`, such as --model.inversion.num_steps 50.

    Args:
        words: Words of the command line after the command.

    Raises:
        InputError: If an option is unknown, missing, or for another task, or a number is out of range.
    """
    parser = CommandParser("restore", HELP)
    parser.add_argument("photos", nargs="+", metavar="PHOTO")
    parser.add_argument("--generator", required=True)
    parser.add_argument("--task", required=True, choices=TASKS)
    parser.add_argument("--output", default="restored")
    parser.add_argument("--noise", type=float)
    parser.add_argument("--mask")
    parser.add_argument("--mask_white", choices=("known", "missing"))
    parser.add_argument("--blur", type=float)
    parser.add_argument("--factor", type=int)
    parser.add_argument("--align", nargs="?", const="celeba", choices=("celeba", "ffhq"))
    parser.add_argument("--landmarks")
    parser.add_argument("--label")
    parser.add_argument("--searches", type=int)
    parser.add_argument("--keep_searches", action="store_true")
    parser.add_argument("-c", "--config", action="append", default=[])
    parser.add_argument("--print_config", action="store_true")
    own, others = split_words(words)
    options = parser.parse_intermixed_args(own)
    for task, names in TASKS.items():
        for name in names:
            if task != options.task and getattr(options, name) is not None:
                raise InputError(f"--{name} is an option of --task {task}, not of {options.task}: leave it out")
    if options.mask_white is not None and options.mask is None:
        raise InputError("--mask_white is about the file of --mask: add it, or leave both out")
    if options.landmarks is not None and options.align is None:
        raise InputError("--landmarks is about the faces of --align: add it, or leave both out")
    check_at_least(options, {"searches": 1, "noise": 0, "factor": 2})
    if options.blur is not None and not options.blur > 0:
        raise InputError(f"--blur is {options.blur}: give more than 0, or leave it out if you do not know it")
    return options, others


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate the options of `predict`, which have a dot in their name, and their values from all other words.

    Raises:
        InputError: If this command has its own option for one of them.
    """
    own, others, rest = [], [], list(words)
    while rest:
        word = rest.pop(0)
        name, equals, _ = word.partition("=")
        if name.startswith("--") and "." in name:
            if name in INSTEAD:
                raise InputError(f"{name} is set by this command: give {INSTEAD[name]}")
            others.append(word)
            if not equals and rest and not rest[0].startswith("--"):
                others.append(rest.pop(0))
        else:
            own.append(word)
    return own, others
