"""Detection of known failures of a GAN during training."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F

from gan_lightning import distributed
from gan_lightning.errors import InputError
from gan_lightning.loggers import SteadyWandbLogger
from gan_lightning.modules.held_out import HeldOutScore
from gan_lightning.modules.image_batches import count_images, images_of
from gan_lightning.modules.labels import labels_of
from gan_lightning.modules.step_metrics import without_side_effects
from gan_lightning.networks.conditional import labels_in_turn

_log = logging.getLogger(__name__)

LASTS = 100  # number of steps for which a sign must last before it counts
POINTS = 3  # minimum number of measurements of the sign in these steps
NEAR_ZERO = 0.05  # loss of a discriminator that makes no mistakes
VANISHED = 0.1  # gradient of a generator that hardly learns, relative to the largest one of the run
CHANCE = 0.05  # largest difference between D(x) and D(G(z)) of a discriminator at chance
MEMORIZED = 0.5  # score of held-out images between training images (0) and fakes (1); up to 0.3 in runs that learn
SCORED = 128  # maximum number of training images that D scores for the comparison with held-out ones
SAMPLES, SIDE = 32, 8  # number of images in the diversity, and the side to which they are reduced
ALIKE = 0.04  # diversity, relative to real images, of samples that are all alike; untrained noise has 0.1
DIVERSE, COLLAPSED = 0.3, 0.08  # diversity of a generator that has started to learn, and after its collapse
PATIENCE, WORSE = 5, 1.2  # number of measurements since the best one, and the factor by which the last one is worse


@dataclass(frozen=True)
class Alarm:
    """A failure that was detected.

    Attributes:
        name: Kind of the failure, such as "generator_collapsed".
        step: Step at which it was detected.
        reason: The observation, and what to try.
    """

    name: str
    step: int
    reason: str


class Lasting:
    """Counter of the steps for which a sign has lasted without interruption."""

    def __init__(self, steps: int = LASTS, points: int = POINTS) -> None:
        """Set how long a sign must last.

        Args:
            steps: Number of steps between the first and the last measurement.
            points: Number of measurements.
        """
        self._steps, self._points = steps, points
        self._since, self._count = 0, 0

    def update(self, step: int, present: bool) -> bool:
        """Record whether the sign is present at a step; return whether it has lasted long enough."""
        if not present:
            self._count = 0
            return False
        self._since = self._since if self._count else step
        self._count += 1
        return self._count >= self._points and step - self._since >= self._steps


class Watch(Callback):
    """Callback that warns when a GAN fails: in the log, in summary.json and by an alert of W&B, once for each kind.

    The failures are: the discriminator has won (its loss is near zero and the generator's gradient has vanished), is at
    chance from the start, or memorizes the training images (it scores held-out ones more like fakes); the generator has
    collapsed (its samples differ far less than real images); and the best value of the metric that chooses best.ckpt is
    long past. A sign must last for 100 steps, and the thresholds are chosen to give no alarms for runs that learn.

    Attributes:
        alarms: Detected failures, in chronological order.
    """

    def __init__(self, stop: bool = False, every_n_steps: int = 50) -> None:
        """Store the settings.

        Args:
            stop: Whether to stop the run at the first alarm; best.ckpt and last.ckpt are kept.
            every_n_steps: Number of steps between measurements of the diversity of samples; 0 for none.

        Raises:
            InputError: If the interval is negative.
        """
        if every_n_steps < 0:
            raise InputError(f"watch.every_n_steps must be 0 or more, but got {every_n_steps}")
        self.stop, self.every_n_steps = stop, every_n_steps
        self.alarms: list[Alarm] = []
        self._restart()

    def _restart(self) -> None:
        self._won, self._at_chance, self._collapsed = Lasting(), Lasting(), Lasting()
        self._memorized = Lasting(0, 2)
        self._largest_gradient, self._most_diverse = 0.0, 0.0
        self._training_images: tuple[Tensor, ...] | None = None  # and labels, of the first batch
        self._seen_at, self._measured_at = -1, -1
        self._left_chance = False
        self._best, self._since_best = math.nan, 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget the alarms of an earlier run."""
        self.alarms, self._most_diverse = [], 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the alarms for the checkpoint."""
        return {"alarms": [asdict(alarm) for alarm in self.alarms], "most_diverse": self._most_diverse}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the alarms."""
        self.alarms = [Alarm(**alarm) for alarm in state_dict["alarms"]]
        self._most_diverse = state_dict["most_diverse"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start watching; whether D is at chance from the start can only be checked in a new run."""
        most_diverse = self._most_diverse
        self._restart()
        self._most_diverse, self._left_chance = most_diverse, trainer.global_step > 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check the metrics of a logged step, and samples at every n-th step."""
        step, interval = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        if step != self._seen_at and (step == 1 or (interval > 0 and step % interval == 0)):
            self._seen_at = step
            self._look_at_losses(trainer, step, as_numbers(trainer.callback_metrics))
        if self._training_images is None and is_gan(pl_module) and count_images(batch):
            images, classes = images_of(batch), int(getattr(pl_module, "num_classes", 0))
            labels = (labels_of(batch, len(images), classes),) if classes else ()
            self._training_images = tuple(values[:SCORED].clone() for values in (images, *labels))
        due = self.every_n_steps and step % self.every_n_steps == 0 and step != self._measured_at
        if due and is_gan(pl_module) and trainer.strategy.reduce_boolean_decision(count_images(batch) > 1):
            self._measured_at = step
            self._look_at_samples(trainer, step, diversity(pl_module, images_of(batch)))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the scores of held-out images, and the time since the best value."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        metrics = as_numbers(trainer.callback_metrics)
        if is_gan(pl_module) and isinstance(pl_module, HeldOutScore) and "val/d_x" in metrics:
            self._look_at_held_out(trainer, pl_module, metrics["val/d_x"])
        for callback in trainer.checkpoint_callbacks:
            if (monitor := getattr(callback, "monitor", None)) in metrics:
                self._look_at_best(trainer, monitor, metrics[monitor], getattr(callback, "mode", "min"))
                break
        if self.stop:  # a user's metric may differ between ranks, which must stop together
            trainer.should_stop = trainer.strategy.reduce_boolean_decision(trainer.should_stop, all=False)

    def _look_at_losses(self, trainer: Trainer, step: int, metrics: Mapping[str, float]) -> None:
        names = ("train/loss_d", "train/grad_norm_g", "train/d_x", "train/d_g_z_before")
        if not metrics.keys() >= set(names):
            return
        loss, gradient, d_x, d_g_z = (metrics[name] for name in names)
        self._largest_gradient = max(self._largest_gradient, gradient)
        won = 0 <= loss < NEAR_ZERO and gradient < VANISHED * self._largest_gradient
        if self._won.update(step, won):
            part = gradient / self._largest_gradient
            self._raise(
                trainer,
                "discriminator_won",
                f"D's loss is {loss:.2g}, and G's gradient {part:.1%} of its largest one: G hardly learns. Try "
                "the objective non_saturating, a lower lr_d, or a gradient penalty (r1)",
            )
        self._left_chance |= d_x - d_g_z > CHANCE
        if self._at_chance.update(step, not self._left_chance):
            self._raise(
                trainer,
                "discriminator_at_chance",
                f"D tells nothing apart since the start: D(x) is {d_x:.3f} and D(G(z)) {d_g_z:.3f}. Try a higher lr_d, "
                "and check that the images are not all alike",
            )

    def _look_at_samples(self, trainer: Trainer, step: int, relative: float) -> None:
        self._most_diverse = max(self._most_diverse, relative)
        collapsed = relative < (COLLAPSED if self._most_diverse > DIVERSE else ALIKE)
        if self._collapsed.update(step, collapsed):
            self._raise(
                trainer,
                "generator_collapsed",
                f"samples differ {relative:.1%} as much as real images do. Go on from an earlier checkpoint with lower "
                "rates, another objective or a gradient penalty",
            )

    def _look_at_held_out(self, trainer: Trainer, module: HeldOutScore, held_out: float) -> None:
        images = self._training_images
        if not trainer.strategy.reduce_boolean_decision(images is not None) or images is None:
            return
        # train/d_x cannot be used: it has batch norm in training mode, and is measured before an update of D.
        seen, fakes = scores(module, *images)
        memorized = seen - fakes > CHANCE and (seen - held_out) / (seen - fakes) > MEMORIZED
        if self._memorized.update(trainer.global_step, memorized):
            self._raise(
                trainer,
                "discriminator_memorizes",
                f"D(x) is {seen:.3f} for training images, {held_out:.3f} for held-out ones and {fakes:.3f} for fakes. "
                "More images, smaller networks or a gradient penalty help",
            )

    def _look_at_best(self, trainer: Trainer, monitor: str, value: float, mode: str) -> None:
        sign = 1 if mode == "min" else -1
        if math.isnan(self._best) or sign * value < sign * self._best:
            self._best, self._since_best = value, 0
            return
        self._since_best += 1
        # Negative values, such as those of the unbiased kernel distance, are noise around zero.
        worse = self._best > 0 and sign * (value - self._best) > (WORSE - 1) * self._best
        if self._since_best >= PATIENCE and worse:
            self._raise(
                trainer,
                "best_is_past",
                f"{monitor} was {self._best:.4g} {self._since_best} validations ago, and is {value:.4g} now. best.ckpt "
                "has the best networks; more steps make them worse",
            )

    def _raise(self, trainer: Trainer, name: str, reason: str) -> None:
        if any(alarm.name == name for alarm in self.alarms):
            return
        alarm = Alarm(name, trainer.global_step, reason)
        self.alarms.append(alarm)
        title = name.replace("_", " ").capitalize()
        if trainer.is_global_zero:
            _log.warning("%s at step %d: %s", title, alarm.step, reason)
            for logger in trainer.loggers:
                if isinstance(logger, SteadyWandbLogger):
                    logger.alert(title, f"step {alarm.step}: {reason}")
        trainer.should_stop |= self.stop


def as_numbers(metrics: Mapping[str, Tensor]) -> dict[str, float]:
    """Return metrics as Python numbers."""
    return {name: float(value) for name, value in metrics.items()}


def is_gan(module: LightningModule) -> bool:
    """Return whether a module trains a generator and a discriminator."""
    networks = (getattr(module, name, None) for name in ("generator", "discriminator"))
    return all(isinstance(network, nn.Module) for network in networks) and hasattr(module, "latent_dim")


def diversity(module: LightningModule, real: Tensor) -> float:
    """Return the diversity of a few samples of G itself, relative to real images; the mean over all ranks.

    It is the ratio of the median distances to the nearest other image, between images reduced to 8x8 pixels: 0 if all
    samples are one of a few images.

    Args:
        module: Module with `generator` and `latent_dim`. Its state, and that of random generators, does not change.
        real: Images (B,C,H,W) in [-1, 1].
    """
    generator: Any = module.generator
    rng = torch.Generator().manual_seed(0)
    latents = torch.randn(SAMPLES, int(module.latent_dim), generator=rng).to(real.device)  # type: ignore[arg-type]
    with torch.random.fork_rng([real.device] if real.device.type == "cuda" else []):  # a generator may draw noise
        classes = labels_in_turn(generator, SAMPLES, real.device)
        samples = without_side_effects(generator)(latents, *classes)[: len(real)]
    distance = nearest_distance(samples) / nearest_distance(real[: len(samples)]).clamp(min=1e-6)
    return distributed.mean({"diversity": distance})["diversity"]


@torch.no_grad()
def scores(module: HeldOutScore, images: Tensor, *labels: Tensor) -> tuple[float, float]:
    """Return D's mean scores of images and of as many fakes, over all ranks, in the current mode of the networks.

    Args:
        module: Module with `generator`, `discriminator` and `latent_dim`.
        images: Images (B,C,H,W) in [-1, 1].
        *labels: Classes (B,) of the images, and of the fakes, if the networks are conditional.
    """
    networks: Any = module.generator, module.discriminator
    generator, discriminator = map(without_side_effects, networks)
    rng = torch.Generator().manual_seed(0)
    latents = torch.randn(len(images), int(module.latent_dim), generator=rng).to(images.device)  # type: ignore[arg-type]
    with torch.random.fork_rng([images.device] if images.device.type == "cuda" else []):
        batches = {"seen": images, "fakes": generator(latents, *labels)}
    means = {name: module.objective.score(discriminator(batch, *labels)) for name, batch in batches.items()}
    reduced = distributed.mean(means)
    return float(reduced["seen"]), float(reduced["fakes"])


def nearest_distance(images: Tensor) -> Tensor:
    """Return the median distance of images (B,C,H,W) to the nearest other one, reduced to 8x8 pixels."""
    pixels = F.adaptive_avg_pool2d(images.detach().float(), SIDE).flatten(1)
    distances = torch.cdist(pixels, pixels)
    return distances.fill_diagonal_(math.inf).min(dim=1).values.median()
