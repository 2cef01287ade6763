"""The command `gan-lightning`: quick help, the other commands, and errors in one line."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

from gan_lightning.errors import InputError, RankError, mistake_behind
from gan_lightning.messages import dead_rank, dead_worker, one_line, show_messages
from gan_lightning.refusals import refusal

HELP = """\
usage: gan-lightning COMMAND [options]

Train GANs at scale with Lightning, measure them exactly, restore photographs with them.

commands:
  fit          train: gan-lightning fit --config quickstart
  validate     measure a checkpoint on the validation split: --config C --ckpt_path runs/NAME/checkpoints/best.ckpt
  test         measure a checkpoint on the test split
  predict      draw images from a checkpoint: --num_samples 64
  restore      restore photographs: photo.jpg --generator G.ckpt --task inpaint --mask mask.png
  align        move faces to the frame of a generator, and restored ones back: photos/ --output aligned/
  app          restore photographs on a page in the browser: --generator G.ckpt
  upscale      enlarge images: photos/ --weights FILE --output large/
  evaluate     compare any two sets of images: photos/ samples/ --extractor random --output metrics.json
  report       compare runs on one page that opens from disk: runs/a runs/b --output report.html
  export       make a generator a program that needs no Python source: G.ckpt --output G.pt2, or G.onnx
  pack         decode, crop and resize a data set ahead of a job: --data CelebA --data.root /data/celeba
  synthesize   render a folder of synthetic faces in CelebA's layout: --root data/synthetic --count 20000

options:
  -h, --help   this help; `gan-lightning COMMAND --help` explains every option of a command
  --version    the version

`gan-lightning fit --config C --print_config` prints a complete configuration to start from. A run writes its
configuration, metrics, pictures and checkpoints to runs/NAME; choose NAME by --name.
"""

MODULES = {  # commands outside the LightningCLI; each module has HELP and main(words)
    "restore": "commands.restore",
    "align": "commands.align",
    "app": "commands.app",
    "upscale": "commands.upscale",
    "evaluate": "commands.evaluate",
    "report": "report.command",
    "export": "commands.export",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of the process.

    Returns:
        Exit status: 2 after a mistake of the user, 1 after divergence or on a full disk, 130 after Ctrl-C; all print
        one line.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    if given[0] == "--version":
        print(f"gan-lightning {version('gan-lightning')}")
        return 0
    commands = re.findall(r"^  (\w+)  ", HELP, flags=re.MULTILINE)
    if given[0] not in commands and given[0][0] != "-":
        print(f"gan-lightning: error: unknown command {given[0]}: choose {', '.join(commands)}", file=sys.stderr)
        return 2
    show_messages()
    # Read when torch is imported. By default idle threads of OpenMP spin, and block the cores for other processes.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        if given[0] in ("pack", "synthesize"):
            from gan_lightning.commands.data_sets import main as run_command

            return run_command(given)
        if given[0] in MODULES:
            command = import_module(f"gan_lightning.{MODULES[given[0]]}")
            if len(given) == 1 or {"-h", "--help"} & {*given}:
                print(command.HELP, end="")
                return 0
            return int(command.main(given[1:]))
        from gan_lightning.cli import run  # slow to import

        run(arguments)  # not `given`: the processes for other GPUs are started by sys.argv
    except KeyboardInterrupt:
        print("gan-lightning: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except Exception as error:
        try:  # noqa: SIM105  torch's handler raises its error for a dead worker anywhere, between these lines too
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        except RuntimeError:
            pass
        if isinstance(error, RankError):  # the other rank prints it
            return error.status
        cause = mistake_behind(error)
        if cause is None and (refused := refusal(error)) is not None:
            cause = InputError(refused)
        message = (dead_worker(error) or dead_rank(error)) if cause is None else one_line(cause)
        if message is None:
            raise
        print(f"gan-lightning: error: {message}", file=sys.stderr)
        return 2 if isinstance(cause, InputError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
