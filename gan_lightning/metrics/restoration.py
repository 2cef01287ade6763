"""How near a restored image is to the true one: figures of each image by itself, on the [0, 1] scale of pixels."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from gan_lightning.errors import InputError
from gan_lightning.lpips import load_lpips

SSIM_BORDER = 5  # half a window of 11 pixels: nearer to the edge the window is not whole
MAX_PSNR = 100.0  # an exact image has an infinite one, of which a mean would say nothing
LOWER_IS_BETTER = ("l1", "mse", "lpips")

Compare = Callable[[Tensor, Tensor], Tensor]  # (B,C,H,W) in [-1,1], twice -> (B,)


class RestorationMetrics:
    """Measures restored images beside the degraded ones that they were made of.

    Args:
        lpips: Measure LPIPS too, whose weights are downloaded.
        identity_network: TorchScript file of a face recognition network; measures the likeness of faces.

    Raises:
        InputError: Weights that cannot be had.
    """

    def __init__(self, lpips: bool = False, identity_network: str | os.PathLike[str] | None = None) -> None:
        self.measures: dict[str, Compare] = {"lpips": make_lpips()} if lpips else {}
        if identity_network is not None:
            self.measures["identity"] = make_identity(identity_network)

    @torch.no_grad()
    def __call__(self, restored: Tensor, degraded: Tensor, target: Tensor, known: Tensor | None) -> dict[str, Tensor]:
        """Measure a batch.

        Args:
            restored: (B,C,H,W) in [-1, 1].
            degraded: (B,C',H',W').
            target: (B,C,H,W) in [-1, 1].
            known: (1 or B,1,H',W'), zero where the degraded images have a hole, or None.

        Returns:
            For each figure (B,): those of `image_errors`, "lpips" and "identity" where asked for; and the same of the
            degraded images, under names that end in "_degraded".
        """
        hole = known < 0.5 if known is not None and known.shape[-2:] == target.shape[-2:] else None
        figures: dict[str, Tensor] = {}
        for suffix, images in (("", restored), ("_degraded", enlarge(degraded, target.shape))):
            measured = image_errors(images, target, hole)
            measured |= {name: measure(images, target) for name, measure in self.measures.items()}
            figures |= {f"{name}{suffix}": value for name, value in measured.items()}
        return figures


def image_errors(images: Tensor, target: Tensor, hole: Tensor | None = None) -> dict[str, Tensor]:
    """Measure L1, MSE, PSNR and SSIM (Wang et al. 2004, Gaussian window) of each image.

    Args:
        images: (B,C,H,W) in [-1, 1]; what lies beyond is clamped, as in a file.
        target: (B,C,H,W) in [-1, 1].
        hole: (1 or B,1,H,W), true where pixels were missing: adds the same figures over these pixels alone, under names
            that end in "_hole"; an image without a hole has NaN there.

    Returns:
        For each figure (B,): "l1" and "mse" on the [0, 1] scale, "psnr" in dB, "ssim".
    """
    ours, theirs = ((x.clamp(-1, 1).double() + 1) / 2 for x in (images, target))
    error, similarity = ours - theirs, ssim_map(ours, theirs)
    border = SSIM_BORDER if min(images.shape[-2:]) > 2 * SSIM_BORDER else 0
    height, width = images.shape[-2:]
    inner = similarity[..., border : height - border, border : width - border]
    figures = _error_figures(error.abs().flatten(1).mean(1), error.square().flatten(1).mean(1))
    figures["ssim"] = inner.flatten(1).mean(1)
    if hole is not None:
        weight = hole.expand(len(images), images.shape[1], height, width).to(error)
        pixels = weight.flatten(1).sum(1)
        l1, mse, ssim = ((x * weight).flatten(1).sum(1) / pixels for x in (error.abs(), error.square(), similarity))
        figures |= {f"{name}_hole": value for name, value in (_error_figures(l1, mse) | {"ssim": ssim}).items()}
    return {name: value.float() for name, value in figures.items()}


def _error_figures(l1: Tensor, mse: Tensor) -> dict[str, Tensor]:
    return {"l1": l1, "mse": mse, "psnr": -10 * torch.log10(mse)}


def ssim_map(images: Tensor, target: Tensor) -> Tensor:
    """Structural similarity around each pixel, (B,C,H,W), of images (B,C,H,W) in [0, 1]."""
    _, similarity = structural_similarity_index_measure(
        images, target, data_range=1.0, reduction="none", return_full_image=True
    )
    return similarity


def enlarge(images: Tensor, target_shape: torch.Size) -> Tensor:
    """Bring a degraded image to the size and the channels of the true one, so that the two can be compared.

    Args:
        images: (B,C,H,W) in [-1, 1]; smaller ones are enlarged bicubically, grey ones repeated.
        target_shape: Of the true images.
    """
    if images.shape[-2:] != target_shape[-2:]:
        images = F.interpolate(images, target_shape[-2:], mode="bicubic", align_corners=False)
    return images.expand(-1, target_shape[1], -1, -1)


def summarize(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Give the mean, the median and the worst of each figure over images; of degraded images the mean alone.

    Args:
        rows: The figures of each image; NaN, or no entry, counts for nothing.

    Returns:
        "NAME", "NAME_median" and "NAME_worst", in the order of the names.
    """
    summary: dict[str, float] = {}
    for name in sorted({name for row in rows for name in row}):
        values = torch.tensor([row[name] for row in rows if not math.isnan(row.get(name, math.nan))]).double()
        if name.startswith("psnr"):
            values = values.clamp(max=MAX_PSNR)
        if len(values):
            summary[name] = float(values.mean())
            if not name.endswith("_degraded"):
                summary[f"{name}_median"] = float(values.quantile(0.5))
                summary[f"{name}_worst"] = float(values.max() if name.startswith(LOWER_IS_BETTER) else values.min())
    return summary


def make_lpips() -> Compare:
    """Return LPIPS (Zhang et al. 2018) as a metric of images, which are clamped as in a file.

    Raises:
        InputError: If its weights cannot be loaded.
    """
    load_lpips(torch.device("cpu"))  # raises here rather than after the first image is restored
    return lambda images, target: load_lpips(images.device)(_as_rgb(images).clamp(-1, 1), _as_rgb(target))


def make_identity(path: str | os.PathLike[str]) -> Compare:
    """Make the likeness of two faces: the cosine between the embeddings of a face recognition network.

    Args:
        path: TorchScript file of a network from (B,3,H,W) in [-1, 1] to (B,D).

    Raises:
        InputError: The file is missing, or not TorchScript.
    """
    if not Path(path).is_file():
        raise InputError(f"identity_network {path} is not there: check the path")
    try:
        network = torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise InputError(f"identity_network {path} is no TorchScript file: write it by torch.jit.save") from error

    def compare(images: Tensor, target: Tensor) -> Tensor:
        moved = network.to(images.device)
        return F.cosine_similarity(moved(_as_rgb(images).clamp(-1, 1)), moved(_as_rgb(target)))

    return compare


def _as_rgb(images: Tensor) -> Tensor:
    return images.expand(-1, 3, -1, -1)
