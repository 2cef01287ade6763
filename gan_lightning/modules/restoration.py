"""Restoration by latent inversion as a LightningModule: degrade, invert, measure."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from lightning import LightningModule
from torch import Tensor

from gan_lightning import distributed
from gan_lightning.data.photos import PhotoFormat, Resize
from gan_lightning.degradations import Degradation, GaussianBlur, Identity, Mask
from gan_lightning.degradations.noise import Noise
from gan_lightning.errors import InputError
from gan_lightning.inversion import BlurEstimate, Inversion, blend_poisson, estimate_blur, invert
from gan_lightning.inversion.checks import check_choice, check_numbers
from gan_lightning.inversion.initialization import StartName
from gan_lightning.inversion.invert import RefineName, SolverName
from gan_lightning.inversion.losses import LossName, make_loss
from gan_lightning.metrics.restoration import RestorationMetrics, summarize
from gan_lightning.modules.blind import BlurOfEach
from gan_lightning.modules.ddp import leave_ranks_at_exit
from gan_lightning.modules.encoder import load_encoder
from gan_lightning.modules.masking import ImageMasks
from gan_lightning.modules.restored import Restored, describe
from gan_lightning.networks.checkpoints import load_generator

SEARCH_FIGURES = ("loss", "converged", "num_steps", "noise_level", "blur_sigma")  # they say nothing of the image


class LatentRestoration(LightningModule):
    """Restores degraded images by the generator of a GAN, which stays as it is.

    `test` degrades clean images, restores and measures them; `predict` takes photographs that are degraded already.

    Attributes:
        goes_on_in_its_folder: Tells the command line that a run may go on where an earlier one in its folder stopped.
        finished: Figures of the images that an earlier run has restored, by name; they are not restored again.
    """

    goes_on_in_its_folder = True

    def __init__(
        self,
        generator_ckpt: str | os.PathLike[str],
        degradation: Degradation | None = None,
        noise: Noise | None = None,
        masks: str | None = None,
        blind_blur: bool = False,
        solver: SolverName = "auto",
        num_steps: int | None = None,
        loss: LossName = "mse",
        latent_weight: float = 0.0,
        start: StartName = "best_of_k",
        start_scale: float = 1.0,
        encoder_ckpt: str | os.PathLike[str] | None = None,
        restarts: int = 0,
        tolerance: float = 1e-3,
        noise_level: float | None = None,
        refine: RefineName = "features",
        refine_steps: int = 200,
        refine_weight: float | None = None,
        composite: bool = True,
        poisson: bool = False,
        resize: Resize = "refuse",
        lpips: bool = False,
        identity_network: str | os.PathLike[str] | None = None,
        seed: int = 0,
    ) -> None:
        """Load the generator, and refuse what cannot work.

        Args:
            generator_ckpt: Checkpoint of a training, or a generator of the PyTorch DCGAN tutorial.
            degradation: A, a class of gan_lightning.degradations; the identity unless given.
            noise: Noise that `test` adds to A(x), such as gan_lightning.degradations.GaussianNoise.
            masks: Missing pixels of each image by itself, after `degradation`: "alpha" for the photographs' own
                transparency, or a folder of masks named like the images, white where pixels are known.
            blind_blur: Estimate the Gaussian blur of each image, in place of being told it by `degradation`, which is
                then what `test` alone applies.
            solver: "levenberg_marquardt" (squared loss only), "adam", "lbfgs", or "auto": Adam for l1, else L-BFGS.
            num_steps: Steps of the solver at most; its own default unless given.
            loss: "mse", "l1", "huber", "perceptual" (in the discriminator's features) or "lpips" (downloads weights).
            latent_weight: Of the latents' mean square: more makes likelier images that resemble the photograph less.
            start: "best_of_k" draws, the "mean" latent, or a "random" draw.
            start_scale: Standard deviation of these draws; 1 is that of the prior.
            encoder_ckpt: Checkpoint of LatentEncoder, whose guess is then the start.
            restarts: Further starts for images that are not explained to within the noise.
            tolerance: An image is done when it improved by less than this share over the solver's window.
            noise_level: Standard deviation of the noise on the [0, 1] scale; estimated unless given.
            refine: "features", "weights" or "none": how to go on beyond the generator's range.
            refine_steps: Steps of the refinement at most.
            refine_weight: Of the penalty that keeps features near the latent's; by the noise unless given.
            composite: Make the images agree with what is known: known pixels come back, a grey photograph's luma, ...
            poisson: Blend holes into the known pixels, so that no seam shows.
            resize: What `predict` does with photographs that are too large: "refuse", or "centre_crop" and resize.
            lpips: Measure LPIPS too (downloads weights).
            identity_network: TorchScript file of a face recognition network; measures the likeness of faces.
            seed: Seed of the starts.

        Raises:
            InputError: A file that is missing or holds something else; a setting that is not supported; a degradation
                that does not fit the generator's images.
        """
        super().__init__()
        for name, value, names in (
            ("solver", solver, SolverName),
            ("loss", loss, LossName),
            ("start", start, StartName),
            ("refine", refine, RefineName),
        ):
            check_choice(name, value, get_args(names))
        check_numbers(num_steps=num_steps, latent_weight=latent_weight, restarts=restarts, tolerance=tolerance)
        check_numbers(start_scale=start_scale)
        check_numbers(noise_level=noise_level, refine_steps=refine_steps, refine_weight=refine_weight)
        if poisson and masks is None and not isinstance(degradation, Mask):
            raise InputError("poisson blends holes: give masks, or a degradation that is a mask")
        if blind_blur and (masks is not None or not isinstance(degradation, GaussianBlur | None)):
            raise InputError("blind_blur estimates a Gaussian blur alone: leave masks and other degradations out")
        if blind_blur and encoder_ckpt is not None:
            raise InputError("blind_blur starts where its own search for the blur ended: leave encoder_ckpt out")
        if loss == "lpips":
            make_loss(loss, None, torch.device("cpu"))
        self.options: dict[str, Any] = {
            "solver": solver,
            "num_steps": num_steps,
            "loss": loss,
            "latent_weight": latent_weight,
            "start": start,
            "start_scale": start_scale,
            "restarts": restarts,
            "tolerance": tolerance,
            "noise_level": noise_level,
            "refine": refine,
            "refine_steps": refine_steps,
            "refine_weight": refine_weight,
            "composite": composite and not poisson,
        }
        self.noise, self.blind_blur, self.seed = noise, blind_blur, seed
        self.poisson, self.resize = poisson, resize
        self.generator = load_generator(generator_ckpt).requires_grad_(False)
        self.discriminator = load_discriminator(generator_ckpt) if loss == "perceptual" else None
        self.degradation = Identity() if degradation is None else degradation
        self.encoder = None if encoder_ckpt is None else load_encoder(encoder_ckpt, self.generator)
        self.measure = RestorationMetrics(lpips, identity_network)
        with torch.no_grad():
            image = self.generator(torch.zeros(1, self.generator.latent_dim))
            self.image_shape, self.observed_shape = image.shape[1:], self.degradation(image).shape[1:]
        self.masks = None if masks is None else ImageMasks(masks, self.observed_shape[-1])
        self.finished: Mapping[str, Mapping[str, float]] = {}
        self._rows: dict[str, Mapping[str, float]] = {}
        self._seconds, self._restored = 0.0, 0

    @property
    def photo_format(self) -> PhotoFormat:
        """What `predict` takes: photographs of the shape that the degradation makes of the generator's images."""
        channels, height, width = self.observed_shape
        return PhotoFormat(channels, height, width)

    def settings(self) -> dict[str, Any]:
        """Plain values that are equal for two runs if, and only if, they would restore an image in the same way."""
        return {
            **self.options,
            "masks": self.masks and self.masks.describe(),
            "measures": sorted(self.measure.measures),
            "blind_blur": self.blind_blur,
            "poisson": self.poisson,
            "seed": self.seed,
            "generator": describe(self.generator),
            "degradation": describe(self.degradation),
            "noise": None
            if self.noise is None
            else [type(self.noise).__name__, dict(sorted(vars(self.noise).items()))],
            "encoder": None if self.encoder is None else describe(self.encoder),
        }

    def setup(self, stage: str) -> None:
        """Have every rank leave the others in order when its work is done."""
        leave_ranks_at_exit()

    def on_test_start(self) -> None:
        """Refuse data that are not the generator's.

        Raises:
            InputError: Another number of channels, another size, or masks that packed images have not.
        """
        data: Any = getattr(self.trainer, "datamodule", None)
        for name, ours in (("channels", self.image_shape[0]), ("image_size", self.image_shape[-1])):
            if (theirs := getattr(data, name, ours)) != ours:
                raise InputError(f"the data's {name} is {theirs}, the generator's {ours}: set data.{name} to {ours}")
        if self.masks is not None and self.masks.source == "alpha":
            raise InputError(
                "masks: alpha is for photographs with transparency, in predict: give test a folder of masks"
            )
        if self.masks is not None:
            try:
                self.masks.listed = names = data.read_files().names
            except (AttributeError, NotImplementedError) as error:  # bare loaders, streams
                raise InputError("masks go by the names of files: give test a data module that reads files") from error
            self.masks.check([names[row] for row in data.dataset("test").rows])
        self._rows, self._seconds, self._restored = {}, 0.0, 0

    def on_predict_start(self) -> None:
        """Refuse masks that are missing or do not fit.

        Raises:
            InputError: It names the mask.
        """
        names = getattr(getattr(self.trainer.predict_dataloaders, "dataset", None), "names", [])
        if self.masks is not None:
            self.masks.check(names)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> Restored | None:  # type: ignore[override]
        """Degrade clean images, restore and measure them.

        Args:
            batch: "image" (B,C,H,W) in [-1, 1], and "index" (B), by which all draws are seeded.
            batch_idx: Not used.
        """
        return self._restore(batch, clean=True)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Restored | None:
        """Restore photographs that are degraded already.

        Args:
            batch: "image" (B,C',H',W') in [-1, 1], and "index" (B); "name", a list of B, and "alpha" (B,1,H',W') where
                there are some.
            batch_idx: Not used.
        """
        return self._restore(batch, clean=False)

    def _restore(self, batch: dict[str, Any], clean: bool) -> Restored | None:
        """Restore the images of a batch that are not finished."""
        if "index" not in batch:
            raise InputError('batches need "index", the number of each image, beside "image"')
        everything = self._names(batch)
        self._rows |= {name: self.finished[name] for name in everything if name in self.finished}
        rows = [row for row, name in enumerate(everything) if name not in self.finished]
        if not rows:
            return None
        started = time.perf_counter()
        # Test and predict run in inference mode, in which no gradient can be had, of no tensor that was made in it.
        with torch.inference_mode(False), torch.enable_grad():
            images, indices = batch["image"][rows].clone(), batch["index"][rows].tolist()
            names = [everything[row] for row in rows]
            degradation = self.masks.after(self.degradation, batch, rows) if self.masks else self.degradation
            observed = images
            if clean:
                observed = self._degrade(images, degradation, indices)
            noise = self.options["noise_level"]
            blur = estimate_blur(self.generator, observed, noise_level=noise) if self.blind_blur else None
            result = self._invert(degradation, observed, indices, names, blur)
            restored = result.image
            if self.poisson and (known := degradation.known(observed)) is not None:
                restored = blend_poisson(restored, observed, known)
            figures = {name: getattr(result, name) for name in SEARCH_FIGURES[:4]}
            if blur is not None:
                figures["blur_sigma"] = blur.sigma
            if clean:
                figures |= self.measure(restored, observed, images, degradation.known(observed))
        target = images if clean else None
        output = Restored(names, observed, restored, result.latent, result.history, figures, target, blur)
        self._rows |= dict(zip(names, output.rows(), strict=True))
        self._seconds, self._restored = self._seconds + time.perf_counter() - started, self._restored + len(rows)
        return output

    def _names(self, batch: dict[str, Any]) -> list[str]:
        """Name images by their index, and photographs by theirs too: unique, and sorted as the data are."""
        stems = [f"-{Path(name).stem}" for name in batch["name"]] if "name" in batch else [""] * len(batch["index"])
        return [f"{index:06d}{stem}" for index, stem in zip(batch["index"].tolist(), stems, strict=True)]

    def _degrade(self, images: Tensor, degradation: Degradation, indices: list[int]) -> Tensor:
        """Give noise(A(x))."""
        if images.shape[1:] != self.image_shape:
            ours, theirs = ("x".join(map(str, shape)) for shape in (self.image_shape, images.shape[1:]))
            raise InputError(
                f"images of {theirs} are not the generator's {ours}: set data.channels and data.image_size"
            )
        with torch.no_grad():
            observed: Tensor = degradation(images)
            if self.noise is not None:
                observed = self.noise(observed, indices)
                known = degradation.known(observed)
                observed = observed if known is None else observed * known
        return observed

    def _invert(
        self,
        degradation: Degradation,
        observed: Tensor,
        indices: list[int],
        names: list[str],
        blur: BlurEstimate | None,
    ) -> Inversion:
        options = dict(self.options)
        if blur is not None:
            degradation, options["start"] = BlurOfEach(blur.sigma), blur.latent
        elif self.encoder is not None:
            with torch.no_grad():
                options["start"] = self.encoder(observed)
        result: Inversion = invert(
            self.generator,
            degradation,
            observed,
            discriminator=self.discriminator,
            rng=torch.Generator().manual_seed(self.seed),
            indices=indices,
            callback=self._step_callback(names),
            **options,
        )
        return result

    def _step_callback(self, names: list[str]) -> Callable[[str, int, Tensor, Callable[[], Tensor]], None]:
        """Tell the trainer's callbacks that have an `on_restoration_step` of each step."""
        hooks = [
            callback.on_restoration_step
            for callback in self.trainer.callbacks  # type: ignore[attr-defined]
            if hasattr(callback, "on_restoration_step")
        ]

        def call(stage: str, step: int, losses: Tensor, render: Callable[[], Tensor]) -> None:
            for hook in hooks:
                hook(self.trainer, self, names, stage, step, losses, render)

        return call

    def on_test_epoch_end(self) -> None:
        """Log mean, median and worst of each figure over the images of all ranks."""
        parts = distributed.gather((self._rows, self._seconds, self._restored))
        rows: dict[str, Mapping[str, float]] = {name: row for part, _, _ in parts for name, row in part.items()}
        ordered = [rows[name] for name in sorted(rows)]  # a sum must not depend on the order
        figures = [{name: row[name] for name in row if name not in SEARCH_FIGURES} for row in ordered]
        summary = summarize(figures)
        summary |= {"images": float(len(rows)), "converged": sum(row["converged"] for row in ordered) / len(rows)}
        if restored := sum(count for _, _, count in parts):
            summary["seconds_per_image"] = sum(seconds for _, seconds, _ in parts) / restored
        self.log_dict({f"test/{name}": value for name, value in summary.items()}, sync_dist=True)


def load_discriminator(path: str | os.PathLike[str]) -> torch.nn.Module:
    """Read the discriminator of a checkpoint of DCGAN.

    Raises:
        InputError: The file holds none.
    """
    from gan_lightning.modules.dcgan import DCGAN

    try:
        discriminator = DCGAN.load_from_checkpoint(Path(path), map_location="cpu", weights_only=True).discriminator
    except (KeyError, RuntimeError, TypeError) as error:
        raise InputError(f"{path} holds no discriminator: the perceptual loss needs a checkpoint of DCGAN") from error
    return discriminator.eval().requires_grad_(False)
