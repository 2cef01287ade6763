"""Options of the command `evaluate`, and its help."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gan_lightning.commands.parser import CommandParser, check_at_least
from gan_lightning.errors import InputError

HELP = """\
usage: gan-lightning evaluate REAL FAKE --output FILE [options]

Compare generated images with real ones, from any program. Prints a table, and writes each value with its protocol,
which is everything that the value depends on, to a JSON file.

    gan-lightning evaluate photos/ samples/ --extractor random --output metrics.json
    gan-lightning evaluate photos.zip runs/demo/checkpoints/best.ckpt --image_size 64 --output metrics.json

REAL and FAKE can each be
  a folder or .zip    of image files, in any format; all of one size, or see --image_size
  a pack              a folder written by `gan-lightning pack`
  a .npy or .npz      of images, uint8 (N,H,W) or (N,H,W,C)
  a checkpoint        .ckpt, .pt, .pth or .safetensors of a generator, or faces64, from which images are drawn

  --output FILE       file for the metrics; only files of this command are replaced
  --metrics NAME ...  fd (Frechet distance), kid (kernel distance), precision, recall, density, coverage (by nearest
                      neighbors), mifid (fd, larger if real images are repeated), is (Inception Score; with inception
                      only); default: all, but mifid only with inception, for which its threshold was chosen
  --extractor NAME    network whose features are compared (default: inception):
                        inception          the network of FID; its weights must be on disk (docs/metrics.md)
                        random             a fixed random network, which needs no weights
                        resnet50, ...      any classifier of torchvision, or any network of timm
                        FILE.pt, .onnx     TorchScript or ONNX, from (B,3,H,W) in [-1, 1] to features
                      Except for inception, its name is part of the metrics' names: fd_random, fd_resnet50.
  --weights FILE      weights of a network chosen by name (default: the download folder of its library)
  --extractor_size N  height and width to which images are resized for the network (default: set by the network)
  --download          download published weights that are missing
  --neighbors K       number of nearest neighbors (default: 3 for precision and recall, 5 for density and coverage)

  --num_images N      use N images of each side, evenly spaced (default: all)
  --num_samples N     number of images to draw from a checkpoint (default: as many as the other set has; 10000 if both
                      are checkpoints)
  --seed S            seed of the latents, and of random subsets (default: 0)
  --image_size N      crop image files to the center and resize them to N x N, as training does
  --crop N            side of the centered square to which images are cropped first (default: the largest)
  --channels C        convert image files to gray (1) or RGB (3)

  --batch_size N      number of images in a batch (default: 256). The samples of a checkpoint depend on it.
  --device NAME       cpu, cuda, ... (default: a GPU if there is one)
  -h, --help          this help

Frechet distances depend on the number of images: only compare them for equal numbers.
"""


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the options of the command.

    Args:
        words: Words of the command line after the command.

    Raises:
        InputError: If an option is unknown or missing, or a number is out of range.
    """
    parser = CommandParser("evaluate", HELP)
    parser.add_argument("real", metavar="REAL")
    parser.add_argument("fake", metavar="FAKE")
    parser.add_argument("--output", required=True)
    parser.add_argument("--metrics", nargs="+", default=None)
    parser.add_argument("--extractor", default="inception")
    parser.add_argument("--weights")
    parser.add_argument("--extractor_size", type=int)
    parser.add_argument("--download", action="store_true")
    parser.add_argument("--neighbors", type=int)
    parser.add_argument("--num_images", type=int)
    parser.add_argument("--num_samples", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--image_size", type=int)
    parser.add_argument("--crop", type=int)
    parser.add_argument("--channels", type=int, choices=(1, 3))
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--device")
    options = parser.parse_intermixed_args(list(words))
    sizes = dict.fromkeys(("extractor_size", "neighbors", "image_size", "crop", "batch_size"), 1)
    check_at_least(options, {**sizes, "num_images": 2, "num_samples": 2, "seed": 0})
    if options.crop is not None and options.image_size is None:
        raise InputError("--crop is about --image_size, the size of the result: add it, or leave both out")
    return options
