"""Restoration compared with common alternatives, on given photographs with a given generator.

    python benchmarks/restoration_comparison.py --photos DIR --generator FILE [--crop 0 20 178 198]
    python benchmarks/restoration_comparison.py --faces data/synthetic --generator runs/demo/checkpoints/best.ckpt

One row for each task: mean PSNR in dB, SSIM and seconds an image. "classical" is the best of the methods of
reference_methods.py, "linear" the linear estimate without a generator, "recipe" the common one (one random latent, Adam
with a learning rate of 0.01, 1,000 steps). Errors of holes are measured in the hole. `--panels DIR` writes pictures to
look at.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import environment  # noqa: F401  first: it sets what torch reads when it is imported
import numpy as np
import reference_methods
import torch
from PIL import Image
from report import print_header, print_table
from restoration import BATCH, baseline, degrade, held_out_faces, mse
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure as ssim

from gan_lightning.degradations import Degradation
from gan_lightning.images import make_grid, to_float, write_png
from gan_lightning.inversion import invert
from gan_lightning.inversion.data_consistency import linear_estimate
from gan_lightning.networks.checkpoints import load_generator

TASKS = ["denoising", "inpainting", "24x24 hole", "deblurring", "color", "super-resolution"]
CLASSICAL: dict[str, Callable[[Tensor, Degradation], dict[str, Tensor]]] = {
    "denoising": lambda y, a: reference_methods.denoised(y, 0.1),
    "inpainting": lambda y, a: reference_methods.inpainted(y, a.known(y)),  # type: ignore[arg-type]
    "24x24 hole": lambda y, a: reference_methods.inpainted(y, a.known(y)),  # type: ignore[arg-type]
    "deblurring": lambda y, a: reference_methods.deblurred(y, 2.0),
    "color": lambda y, a: reference_methods.colored(y),
    "super-resolution": lambda y, a: reference_methods.enlarged(y, 4),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", required=True, help="checkpoint of a DCGAN, or generator of the tutorial")
    parser.add_argument("--photos", help="folder of photographs")
    parser.add_argument("--crop", type=int, nargs=4, help="left, top, right, bottom; default: the center square")
    parser.add_argument("--faces", help="folder of synthetic faces, of whose test split the first are restored")
    parser.add_argument("--count", type=int, default=10000, help="number of faces in the folder")
    parser.add_argument("--images", type=int, default=64, help="maximum number of images")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--recipe-images", type=int, default=8, help="number of images for the recipe of 1,000 steps")
    parser.add_argument("--threads", type=int, default=2, help="number of CPU threads")
    parser.add_argument("--panels", help="folder for panels: target, observed, classical, restored, spread")
    options = parser.parse_args()
    if (options.photos is None) == (options.faces is None):
        parser.error("give --photos or --faces")
    torch.set_num_threads(options.threads)
    generator = load_generator(options.generator).requires_grad_(False)
    if options.photos is not None:
        images = read_photos(Path(options.photos), generator.image_size, options.crop)[: options.images]
    else:
        images = held_out_faces(options.faces, options.count, options.images)
    print_header("Restoration against the alternatives", f"{len(images)} images; recipe: {options.recipe_images}")
    rows = [compare(generator, images, task, options.recipe_images, options.panels) for task in options.tasks]
    print_table(["task", "observed", "classical", "linear", "recipe", "one search", "default", "gain in dB"], rows)


def read_photos(folder: Path, size: int, crop: list[int] | None) -> Tensor:
    """Return the photographs of a folder, cropped and resized by Pillow's bicubic filter."""
    images = []
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png")):
        with Image.open(path) as photo:
            side = min(photo.size)
            left, top = (photo.width - side) // 2, (photo.height - side) // 2
            box = tuple(crop) if crop else (left, top, left + side, top + side)
            small = photo.convert("RGB").crop(box).resize((size, size), Image.Resampling.BICUBIC)  # type: ignore[arg-type]
            images.append(torch.from_numpy(np.array(small)).permute(2, 0, 1))
    return to_float(torch.stack(images))


def compare(generator: nn.Module, images: Tensor, task: str, recipe_images: int, panels: str | None) -> list[str]:
    degradation, observed, hole = degrade(images, task)
    noise = torch.full((len(images),), 0.1 if task == "denoising" else 0.0)

    def cell(restored: Tensor, seconds: float | None = None, targets: Tensor = images) -> str:
        similarity = float(ssim(restored.clamp(-1, 1), targets, data_range=2.0))
        time_of_one = "" if seconds is None else f", {seconds:.2f} s"
        return f"{psnr(restored, targets, hole):.2f}, {similarity:.3f}{time_of_one}"

    shown = F.interpolate(observed.expand(-1, 3, -1, -1), images.shape[-2:], mode="nearest")
    started = time.perf_counter()
    candidates = CLASSICAL[task](observed, degradation)
    seconds = (time.perf_counter() - started) / len(images) / len(candidates)
    name = max(candidates, key=lambda each: psnr(candidates[each], images, hole))
    cells = [task, cell(shown), f"{cell(candidates[name], seconds)} ({name})"]
    started = time.perf_counter()
    cells.append(cell(linear_estimate(degradation, observed, noise), (time.perf_counter() - started) / len(images)))
    few = images[:recipe_images]
    started = time.perf_counter()
    if len(few):
        recipe = baseline(generator, degradation, observed[:recipe_images])  # type: ignore[arg-type]
        cells.append(cell(recipe, (time.perf_counter() - started) / len(few), few))
    else:
        cells.append("")
    for searches in (1, None):
        started, restored, spread = time.perf_counter(), [], []
        for rows in torch.arange(len(images)).split(BATCH):
            result = invert(generator, degradation, observed[rows], indices=rows.tolist(), num_searches=searches)
            restored.append(result.image)
            spread.append(result.spread)
        cells.append(cell(torch.cat(restored), (time.perf_counter() - started) / len(images)))
    image = torch.cat(restored)
    if panels is not None:
        maps = (8 * torch.cat(spread) - 1).clamp(max=1).expand(-1, 3, -1, -1)
        strips = torch.stack([images, shown, candidates[name], image, maps], 1)[:16].flatten(0, 1)
        write_png(Path(panels) / f"{task.replace(' ', '-')}.png", make_grid(strips.clamp(-1, 1), columns=10))
    gain = psnr(image, images, hole) - psnr(candidates[name], images, hole)
    return [*cells, f"{gain:+.2f}"]


def psnr(restored: Tensor, targets: Tensor, area: slice) -> float:
    """Return the mean over the images of the peak signal-to-noise ratio within an area, in dB."""
    errors = mse(restored[..., area, area], targets[..., area, area])
    return float((-10 * errors.clamp(min=1e-12).log10()).mean())


if __name__ == "__main__":
    main()
