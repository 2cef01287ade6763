"""Metrics of restored images against ground truth, one value per image, for pixel values in [0, 1]."""

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

SSIM_BORDER = 5  # half a window of 11 pixels, which is incomplete closer to the edge
MAX_PSNR = 100.0  # for means: the PSNR of an exact image is infinite
LOWER_IS_BETTER = ("l1", "mse", "lpips")

Compare = Callable[[Tensor, Tensor], Tensor]  # (B,C,H,W) in [-1,1], twice -> (B,)


class RestorationMetrics:
    """Metrics of restored images, and the same metrics of the degraded images for comparison.

    Args:
        lpips: Whether to compute LPIPS, whose weights are downloaded.
        identity_network: TorchScript file of a face recognition network, for the similarity of faces.

    Raises:
        InputError: If weights cannot be loaded.
    """

    def __init__(self, lpips: bool = False, identity_network: str | os.PathLike[str] | None = None) -> None:
        self.measures: dict[str, Compare] = {"lpips": make_lpips()} if lpips else {}
        if identity_network is not None:
            self.measures["identity"] = make_identity(identity_network)

    @torch.no_grad()
    def __call__(
        self,
        restored: Tensor,
        degraded: Tensor,
        target: Tensor,
        known: Tensor | None,
        spread: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the metrics of a batch.

        Args:
            restored: Restored images (B,C,H,W) in [-1, 1].
            degraded: Degraded images (B,C',H',W') in [-1, 1].
            target: Ground truth (B,C,H,W) in [-1, 1].
            known: Mask (1 or B,1,H',W') that is zero in the holes of the degraded images; None without holes.
            spread: Spread (B,1,H,W) of the averaged solutions; None for a single search.

        Returns:
            Metrics by name, each (B,): those of `image_errors`, optionally "lpips" and "identity", the same for the
            degraded images with the suffix "_degraded", and with a spread those of `spread_ranks`.
        """
        hole = known < 0.5 if known is not None and known.shape[-2:] == target.shape[-2:] else None
        metrics: dict[str, Tensor] = {}
        for suffix, images in (("", restored), ("_degraded", enlarge(degraded, target.shape))):
            measured = image_errors(images, target, hole)
            measured |= {name: measure(images, target) for name, measure in self.measures.items()}
            metrics |= {f"{name}{suffix}": value for name, value in measured.items()}
        return metrics if spread is None else metrics | spread_ranks(spread, restored, target, hole)


def image_errors(images: Tensor, target: Tensor, hole: Tensor | None = None) -> dict[str, Tensor]:
    """Compute L1, MSE, PSNR and SSIM (Wang et al. 2004, Gaussian window) of each image.

    Args:
        images: Images (B,C,H,W) in [-1, 1]; values outside are clamped, as in a file.
        target: Ground truth (B,C,H,W) in [-1, 1].
        hole: Mask (1 or B,1,H,W) that is true where pixels were missing. It adds the same metrics over only these
            pixels, with the suffix "_hole", which are NaN for an image without a hole.

    Returns:
        Metrics by name, each (B,): "l1" and "mse" on the [0, 1] scale, "psnr" in dB, "ssim".
    """
    ours, theirs = ((x.clamp(-1, 1).double() + 1) / 2 for x in (images, target))
    error, similarity = ours - theirs, ssim_map(ours, theirs)
    border = SSIM_BORDER if min(images.shape[-2:]) > 2 * SSIM_BORDER else 0
    height, width = images.shape[-2:]
    inner = similarity[..., border : height - border, border : width - border]
    metrics = _errors(error.abs().flatten(1).mean(1), error.square().flatten(1).mean(1))
    metrics["ssim"] = inner.flatten(1).mean(1)
    if hole is not None:
        weight = hole.expand(len(images), images.shape[1], height, width).to(error)
        pixels = weight.flatten(1).sum(1)
        l1, mse, ssim = ((x * weight).flatten(1).sum(1) / pixels for x in (error.abs(), error.square(), similarity))
        metrics |= {f"{name}_hole": value for name, value in (_errors(l1, mse) | {"ssim": ssim}).items()}
    return {name: value.float() for name, value in metrics.items()}


def _errors(l1: Tensor, mse: Tensor) -> dict[str, Tensor]:
    return {"l1": l1, "mse": mse, "psnr": -10 * torch.log10(mse)}


def spread_ranks(spread: Tensor, images: Tensor, target: Tensor, hole: Tensor | None = None) -> dict[str, Tensor]:
    """Compute how well the spread of the searches predicts where each restored image is wrong.

    Args:
        spread: Spread of the solutions (B,1,H,W).
        images: Restored images (B,C,H,W) in [-1, 1]; values outside are clamped, as in a file.
        target: Ground truth (B,C,H,W) in [-1, 1].
        hole: Mask (1 or B,1,H,W) that is true where pixels were missing.

    Returns:
        "spread_rank" (B,), the rank correlation over pixels of the spread and the mean absolute error over the
        channels; with a hole also "spread_rank_hole" over only its pixels.
    """
    errors = (images.clamp(-1, 1) - target).abs().mean(1, keepdim=True)
    where = {"spread_rank": torch.ones_like(spread, dtype=torch.bool)}
    if hole is not None:
        where["spread_rank_hole"] = hole.expand_as(spread)
    ranks = {}
    for name, pixels in where.items():
        each = [rank_correlation(s[p], e[p]) for s, e, p in zip(spread, errors, pixels, strict=True)]
        ranks[name] = torch.stack(each).float()
    return ranks


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Compute the rank correlation of two samples (N,) (Spearman 1904); NaN if all values of one are equal."""
    if len(first) < 2:
        return first.new_tensor(math.nan).double()
    return torch.corrcoef(torch.stack([_ranks(first), _ranks(second)]))[0, 1]


def _ranks(values: Tensor) -> Tensor:
    """Return the rank of each value (N,), or the mean rank for equal values, which are frequent among known pixels."""
    ordered = values.sort().values
    return (torch.searchsorted(ordered, values) + torch.searchsorted(ordered, values, right=True)).double() / 2


def ssim_map(images: Tensor, target: Tensor) -> Tensor:
    """Compute the structural similarity (B,C,H,W) around each pixel of images (B,C,H,W) in [0, 1]."""
    _, similarity = structural_similarity_index_measure(
        images, target, data_range=1.0, reduction="none", return_full_image=True
    )
    return similarity


def enlarge(images: Tensor, target_shape: torch.Size) -> Tensor:
    """Resize degraded images to the size and channels of the ground truth.

    Args:
        images: Images (B,C,H,W) in [-1, 1]; smaller ones are enlarged bicubically, gray ones repeated over channels.
        target_shape: Shape of the ground truth, (B,C,H,W).
    """
    if images.shape[-2:] != target_shape[-2:]:
        images = F.interpolate(images, target_shape[-2:], mode="bicubic", align_corners=False)
    return images.expand(-1, target_shape[1], -1, -1)


def summarize(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Compute mean, median and worst value of each metric over images; for degraded images only the mean.

    Args:
        rows: Metrics of each image by name; NaN and missing entries are left out.

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
    """Return the similarity of faces: the cosine between embeddings of a face recognition network.

    Args:
        path: TorchScript file of a network that maps (B,3,H,W) in [-1, 1] to (B,D).

    Raises:
        InputError: If the file does not exist, or is not TorchScript.
    """
    if not Path(path).is_file():
        raise InputError(f"identity_network {path} does not exist: check the path")
    try:
        network = torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise InputError(f"identity_network {path} is not a TorchScript file: write it with torch.jit.save") from error

    def compare(images: Tensor, target: Tensor) -> Tensor:
        moved = network.to(images.device)
        return F.cosine_similarity(moved(_as_rgb(images).clamp(-1, 1)), moved(_as_rgb(target)))

    return compare


def _as_rgb(images: Tensor) -> Tensor:
    return images.expand(-1, 3, -1, -1)
