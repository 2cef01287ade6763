"""Options of the command `upscale`, and its help."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gan_lightning.commands.parser import CommandParser

HELP = """\
usage: gan-lightning upscale PHOTO [PHOTO ...] --weights FILE [--output FOLDER] [options]

Enlarge images with a network. PHOTO is an image, or a folder of images.

    gan-lightning upscale photos/ --weights runs/esrgan/checkpoints/best.ckpt --output large/
    gan-lightning upscale runs/NAME/samples --weights RealESRGAN_x4plus.pth --output large/

  --weights FILE      checkpoint of an ESRGAN of this package, weights of an RRDBNet (ESRGAN, Real-ESRGAN), or of any
                      network that spandrel reads: pip install 'gan-lightning[upscale]'. No code in it is run.
  --output FOLDER     folder for the enlarged images, as PNG (default: upscaled)
  --tile N            largest height and width that the network processes at once, in pixels of the photograph, at least
                      96; 0 for the whole photograph (default: 256). Tiles overlap and are blended.
  --device NAME       cpu, cuda, ... (default: a GPU if there is one)
  -h, --help          this help

Photographs are turned upright. Gray ones stay gray, and transparency is enlarged bicubically. Other files are never
overwritten. After an interruption, the same command continues with the remaining photographs.
"""


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the options of the command.

    Args:
        words: Words of the command line after the command.

    Raises:
        InputError: If an option is unknown or missing.
    """
    parser = CommandParser("upscale", HELP)
    parser.add_argument("photos", nargs="+", metavar="PHOTO")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--output", default="upscaled")
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--device")
    return parser.parse_intermixed_args(list(words))
