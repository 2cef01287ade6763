"""Mixed precision for two adversarial networks: a separate gradient scale in float16, and fewer casts of weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.utilities.types import Optimizable
from lightning.pytorch.plugins import MixedPrecision

from gan_lightning.errors import DivergedError, InputError

LOWEST_SCALE = 2.0**-20  # 36 overflows in a row, from the scale that a GradScaler starts with
NetworkName = Literal["generator", "discriminator"]


class ScalerPerNetwork(MixedPrecision):
    """Lightning's 16-mixed with one GradScaler for each network.

    With a single one, an overflow in D would lower G's scale, and G's small gradients would become zeros.
    """

    def __init__(self, plugin: MixedPrecision) -> None:
        """Replace Lightning's plugin.

        Args:
            plugin: A plugin with a scaler, whose settings both networks start with.
        """
        assert plugin.scaler is not None
        super().__init__("16-mixed", plugin.device, plugin.scaler)
        self.scalers = {"generator": plugin.scaler, "discriminator": copy.deepcopy(plugin.scaler)}

    def choose(self, network: NetworkName) -> None:
        """Select the network whose loss and gradients come next."""
        self.scaler = self.scalers[network]

    def scales(self) -> dict[str, float]:
        """Return the scales as metrics, scale_g and scale_d; waits for the device.

        Raises:
            DivergedError: If a scale has fallen to almost zero, because the gradients of its network are never finite.
        """
        scales = {network: scaler.get_scale() for network, scaler in self.scalers.items()}
        for network, scale in scales.items():
            if scale < LOWEST_SCALE:
                raise DivergedError(
                    f"the {network}'s gradients overflow at every step, so that it is never updated: "
                    "try --trainer.precision bf16-mixed, or a lower learning rate"
                )
        return {f"scale_{network[0]}": scale for network, scale in scales.items()}

    def optimizer_step(  # type: ignore[override]
        self, optimizer: Optimizable, model: LightningModule, closure: Callable[[], Any], **kwargs: Any
    ) -> Any:
        """Unscale the gradients, let the module clip them, and step unless they overflowed.

        Lightning leaves the unscaling to fused optimizers, which do it in their step, after the clipping. If gradients
        are unscaled earlier, these optimizers still skip a step after an overflow without making the host wait for it.
        """

        def unscaled() -> Any:
            result = closure()
            if optimizer.defaults.get("fused"):
                assert self.scaler is not None
                self.scaler.unscale_(optimizer)  # type: ignore[arg-type]
            return result

        return super().optimizer_step(optimizer, model, unscaled, **kwargs)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both scalers."""
        return {network: scaler.state_dict() for network, scaler in self.scalers.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of both scalers."""
        for network, scaler in self.scalers.items():
            scaler.load_state_dict(state_dict[network])


def prepare_precision(trainer: Trainer) -> None:
    """Use a separate gradient scale for each network if the trainer's precision scales losses at all.

    Raises:
        InputError: If the precision is unsupported.
    """
    precision, strategy = str(trainer.precision), trainer.strategy
    if precision.endswith("-true") and precision != "32-true":
        raise InputError(f"precision {precision} is not supported: choose 32-true, bf16-mixed or 16-mixed")
    plugin = strategy.precision_plugin
    if isinstance(plugin, MixedPrecision) and plugin.scaler is not None and not isinstance(plugin, ScalerPerNetwork):
        strategy.precision_plugin = ScalerPerNetwork(plugin)


@contextmanager
def weights_cast_once(device_type: str) -> Iterator[None]:
    """Let several forward passes of a network share one cast of its weights, as torch's autocast does by default.

    Lightning disables the sharing, because the weights may change within a training step. They must not change inside.

    Args:
        device_type: Type of the device, such as "cuda".
    """
    if not torch.is_autocast_enabled(device_type):
        yield
        return
    try:
        with torch.autocast(device_type, torch.get_autocast_dtype(device_type), cache_enabled=True):
            yield
    finally:
        torch.clear_autocast_cache()
