"""Pictures of a restoration: panels side by side, and the losses of all images."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from gan_lightning.images import make_grid, to_uint8
from gan_lightning.metrics.restoration import enlarge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOR_SCALE = 0.25  # error or spread, on the [0, 1] scale, at the upper end of the color scale
SMALLEST_SIDE = 160  # minimum length of the shorter side of each picture in a panel, in pixels
TITLE_SIZE, TITLE_HEIGHT = 15, 22  # of the titles of the columns, in pixels
FAINT = 30  # number of curves from which they are drawn faintly
LABELLED = 10  # maximum number of curves with a legend
LONGEST_LABEL = 30  # maximum number of letters of a name in the legend


def make_panel(target: Tensor | None, degraded: Tensor, restored: Tensor, spread: Tensor | None = None) -> Tensor:
    """Return target, degraded, restored, error map and spread side by side; the first and fourth only with a target.

    Args:
        target: (C,H,W) in [-1, 1], or None.
        degraded: (C',H',W'); enlarged by repeating pixels.
        restored: (C,H,W) in [-1, 1].
        spread: (1,H,W) of several searches, on the [0, 1] scale, or None.

    Returns:
        (3,H + 4,W') uint8.
    """
    height, width = restored.shape[-2:]
    enlarged = F.interpolate(degraded[None], (height, width), mode="nearest")[0]
    pictures = [to_uint8(image.cpu()).expand(3, -1, -1) for image in (enlarged, restored)]
    if target is not None:
        pictures = [to_uint8(target.cpu()).expand(3, -1, -1), *pictures, error_map(target, restored)]
    if spread is not None:
        pictures.append(color_map(spread[0]))
    return make_grid(torch.stack(pictures), columns=len(pictures))


def draw_panel(target: Tensor | None, degraded: Tensor, restored: Tensor, spread: Tensor | None = None) -> Tensor:
    """Return the pictures of `make_panel`, enlarged, with titles and their PSNR.

    Args:
        target: (C,H,W) in [-1, 1], or None.
        degraded: (C',H',W').
        restored: (C,H,W) in [-1, 1].
        spread: (1,H,W) of several searches, on the [0, 1] scale, or None.

    Returns:
        (3,H'',W'') uint8; the shape depends only on those of the arguments.
    """
    titles = ["degraded", "restored"]
    if target is not None:
        measured = {"degraded": enlarge(degraded[None], target[None].shape), "restored": restored[None]}
        titles = ["target", *(f"{name}, {psnr(images, target):.1f} dB" for name, images in measured.items()), "error"]
    titles += ["spread"] * (spread is not None)
    panel = make_panel(target, degraded, restored, spread)
    scale = panel_scale(restored.shape[-2:])
    large = panel.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    header = Image.new("L", (large.shape[2], TITLE_HEIGHT), 255)
    pen, font = ImageDraw.Draw(header), ImageFont.load_default(TITLE_SIZE)
    for column, title in enumerate(titles):
        pen.text((scale * (2 + column * (restored.shape[-1] + 2)), 3), title, fill=0, font=font)
    return torch.cat([torch.from_numpy(np.array(header)).expand(3, -1, -1), large], dim=1)


def panel_scale(size: Sequence[int]) -> int:
    """Return the number of repetitions of each pixel in a panel of images of the given height and width."""
    return math.ceil(SMALLEST_SIDE / min(size))


def psnr(images: Tensor, target: Tensor) -> float:
    """Return the PSNR of one image (1,C,H,W) in dB, on the [0, 1] scale after clamping, as in the metrics."""
    difference = (images.cpu().clamp(-1, 1) - target.cpu()[None]) / 2
    return float(-10 * torch.log10(difference.square().mean()))


def error_map(target: Tensor, restored: Tensor) -> Tensor:
    """Return the mean absolute error over the channels of two images (C,H,W) as colors (3,H,W) uint8; black is zero."""
    return color_map(((restored.clamp(-1, 1) - target) / 2).abs().mean(0))


def color_map(values: Tensor) -> Tensor:
    """Return errors or a spread (H,W), on the [0, 1] scale, as colors: black is zero, the brightest 0.25 or more.

    Returns:
        (3,H,W) uint8.
    """
    from matplotlib import colormaps

    colors = colormaps["inferno"]((values.cpu() / COLOR_SCALE).clamp(max=1).numpy(), bytes=True)[..., :3]
    return torch.from_numpy(colors.copy()).permute(2, 0, 1)


def draw_losses(curves: Mapping[str, Tensor], path: Path, latent_steps: Mapping[str, int | None] | None = None) -> None:
    """Plot the objective of every image over the steps, linear and logarithmic.

    A tick shows where the refinement started, and a dot where the image stopped.

    Args:
        curves: Losses (steps + 1) by the name of the image.
        path: PNG file to write.
        latent_steps: Number of steps before the refinement by the name of the image; None if it is unknown.
    """
    figure = losses_figure(curves, latent_steps or {})
    save_figure(figure, path)


def losses_figure(curves: Mapping[str, Tensor], latent_steps: Mapping[str, int | None]) -> Figure:
    """Return the figure of `draw_losses`."""
    from matplotlib.figure import Figure  # slow to import, and needed once per run

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    linear, logarithmic = figure.subplots(1, 2)
    strength = 0.9 if len(curves) < FAINT else 0.35
    for name, curve in curves.items():
        values = curve.tolist()
        for axis in (linear, logarithmic):
            (line,) = axis.plot(range(len(values)), values, linewidth=0.8, alpha=strength, label=legend_label(name))
            axis.plot(len(values) - 1, values[-1], marker="o", markersize=3, color=line.get_color())
            begun = latent_steps.get(name)
            if begun is not None and begun < len(values) - 1:
                axis.plot(begun, values[begun], marker="|", markersize=12, color=line.get_color())
    logarithmic.set_yscale("log")
    for axis, title in ((linear, "loss of each image"), (logarithmic, "the same, logarithmic")):
        axis.set_title(title, loc="left")
        axis.set_xlabel("steps: of the latent, from a stroke on of the refinement; a dot where the image stopped")
        axis.grid(alpha=0.3)
    if len(curves) <= LABELLED:
        linear.legend(fontsize="small")
    return figure


def draw_blur_curves(sigmas: Tensor, curves: Mapping[str, tuple[Tensor, float]], path: Path) -> None:
    """Plot the residual of every image against the assumed blur, with a line at the estimate.

    Args:
        sigmas: Assumed blurs (K,) in pixels.
        curves: Residuals (K,) and the estimated sigma by the name of the image.
        path: PNG file to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for name, (residuals, estimate) in curves.items():
        (line,) = axis.plot(sigmas.tolist(), residuals.tolist(), marker=".", linewidth=0.8, label=legend_label(name))
        axis.axvline(estimate, color=line.get_color(), linewidth=0.8, linestyle=":")
    axis.set(xscale="log", yscale="log", xlabel="sigma of the blur, pixels", ylabel="mean squared residual")
    axis.set_xticks(sigmas.tolist(), [f"{sigma:g}" for sigma in sigmas.tolist()])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    if len(curves) <= LABELLED:
        axis.legend(fontsize="small")
    save_figure(figure, path)


def legend_label(name: str) -> str:
    """Return the name of an image for a legend: shortened, and without the math symbols of matplotlib."""
    short = name if len(name) <= LONGEST_LABEL else f"{name[: LONGEST_LABEL - 1]}…"
    return short.replace("$", r"\$")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, without warnings about letters that matplotlib's font lacks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(path, dpi=110, format="png")
