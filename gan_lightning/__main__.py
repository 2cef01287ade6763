"""The command `gan-lightning`: help at once, the Lightning CLI for everything that trains or measures."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version

from gan_lightning.errors import DivergedError, InputError, StorageError
from gan_lightning.messages import dead_worker, one_line, show_messages

HELP = """\
usage: gan-lightning COMMAND [options]

Train GANs at scale with Lightning, measure them exactly, restore photographs with them.

commands:
  fit          train: gan-lightning fit --config configs/quickstart.yaml
  validate     measure a checkpoint on the validation split: --config C --ckpt_path runs/NAME/checkpoints/best.ckpt
  test         measure a checkpoint on the test split
  predict      draw images from a checkpoint: --num_samples 64
  pack         decode, crop and resize a data set ahead of a job: --data CelebA --data.root /data/celeba
  synthesize   render a folder of synthetic faces in CelebA's layout: --root data/synthetic --count 20000

options:
  -h, --help   this help; `gan-lightning COMMAND --help` explains every option of a command
  --version    the version

`gan-lightning fit --config C --print_config` prints a complete configuration to start from. A run writes its
configuration, metrics, pictures and checkpoints to runs/NAME; choose NAME by --name.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; a mistake of the user gives one line and status 2, divergence and a full disk one and status 1."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    if given[0] == "--version":
        print(f"gan-lightning {version('gan-lightning')}")
        return 0
    show_messages()
    try:
        if given[0] == "synthesize":
            return synthesize(given[1:])
        if given[0] == "pack":
            from gan_lightning.data.pack_command import main as pack

            return pack(given[1:])
        from gan_lightning.cli import run  # imports torch and lightning

        run(arguments)  # not `given`: the processes for other GPUs are started by sys.argv
    except Exception as error:
        try:  # noqa: SIM105  torch's handler raises its error for a dead worker anywhere: between these lines, too
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        except RuntimeError:
            pass
        cause = mistake_behind(error)
        if type(error).__name__ == "MisconfigurationException":  # Lightning's own refusal
            cause = InputError(" ".join(str(error).split()))
        message = dead_worker(error) if cause is None else one_line(cause)
        if message is None:
            raise
        print(f"gan-lightning: error: {message}", file=sys.stderr)
        return 2 if isinstance(cause, InputError) else 1
    return 0


def mistake_behind(error: BaseException | None) -> InputError | DivergedError | StorageError | None:
    """Find the error that is meant for the user: jsonargparse wraps those of constructors in errors of its own."""
    while error is not None and not isinstance(error, InputError | DivergedError | StorageError):
        error = error.__cause__ or error.__context__
    return error


def synthesize(arguments: Sequence[str]) -> int:
    """Render synthetic faces."""
    parser = argparse.ArgumentParser(
        prog="gan-lightning synthesize",
        description="Render synthetic faces, 178x218 JPEG, in CelebA's own layout with all its lists. The same seed "
        "gives the same faces; a folder that is there already is completed, never overwritten.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--root", default="data/synthetic", help="folder to write to, or to complete")
    parser.add_argument("--count", type=int, default=20000, help="number of images")
    parser.add_argument("--seed", type=int, default=0, help="seed of the faces")
    parser.add_argument("--num_workers", type=int, default=None, help="processes; None for one a core")
    options = parser.parse_args(arguments)
    from gan_lightning.faces.synthesis import synthesize as write_faces

    print(write_faces(options.root, options.count, options.seed, options.num_workers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
