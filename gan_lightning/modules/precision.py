"""float16 for two networks that play against each other: a gradient scale of its own for each."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

from lightning import LightningModule
from lightning.fabric.utilities.types import Optimizable
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import Strategy

from gan_lightning.errors import DivergedError

LOWEST_SCALE = 2.0**-20  # 36 overflows in a row, from the scale that a GradScaler starts with
NetworkName = Literal["generator", "discriminator"]


class ScalerPerNetwork(MixedPrecision):
    """Lightning's 16-mixed with one GradScaler for each network.

    With a single one, an overflow in D would lower G's scale, and G's small gradients would become zeros.
    """

    def __init__(self, plugin: MixedPrecision) -> None:
        """Take over from Lightning's plugin.

        Args:
            plugin: A plugin with a scaler, whose settings both networks start with.
        """
        assert plugin.scaler is not None
        super().__init__("16-mixed", plugin.device, plugin.scaler)
        self.scalers = {"generator": plugin.scaler, "discriminator": copy.deepcopy(plugin.scaler)}

    def choose(self, network: NetworkName) -> None:
        """Say whose loss and gradients come next."""
        self.scaler = self.scalers[network]

    def scales(self) -> dict[str, float]:
        """Give the scales as figures for the loggers; this waits for the device.

        Raises:
            DivergedError: A scale has come down to nothing: the gradients are never finite, and no step is taken.
        """
        scales = {network: scaler.get_scale() for network, scaler in self.scalers.items()}
        for network, scale in scales.items():
            if scale < LOWEST_SCALE:
                raise DivergedError(
                    f"the {network}'s gradients overflow at every step, so that it stands still: "
                    "try --trainer.precision bf16-mixed, or a lower learning rate"
                )
        return {f"train/scale_{network[0]}": scale for network, scale in scales.items()}

    def optimizer_step(  # type: ignore[override]
        self, optimizer: Optimizable, model: LightningModule, closure: Callable[[], Any], **kwargs: Any
    ) -> Any:
        """Unscale the gradients, let the module clip them, and step unless they overflowed.

        Lightning leaves the unscaling to fused optimizers, which do it in their step, after the clipping. Unscaled
        before, they still skip a step without making the host wait to hear of the overflow.
        """

        def unscaled() -> Any:
            result = closure()
            if optimizer.defaults.get("fused"):
                assert self.scaler is not None
                self.scaler.unscale_(optimizer)  # type: ignore[arg-type]
            return result

        return super().optimizer_step(optimizer, model, unscaled, **kwargs)

    def state_dict(self) -> dict[str, Any]:
        """Give the state of both scalers, for the checkpoint."""
        return {network: scaler.state_dict() for network, scaler in self.scalers.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the states of a checkpoint."""
        for network, scaler in self.scalers.items():
            scaler.load_state_dict(state_dict[network])


def scale_per_network(strategy: Strategy) -> None:
    """Give each network a scale of its own, where the trainer's precision scales losses at all."""
    plugin = strategy.precision_plugin
    if isinstance(plugin, MixedPrecision) and plugin.scaler is not None and not isinstance(plugin, ScalerPerNetwork):
        strategy.precision_plugin = ScalerPerNetwork(plugin)
