"""The training step as CUDA graphs, whose operations the host launches in one call."""

from __future__ import annotations

import logging
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from lightning import Callback, LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from gan_lightning.errors import InputError, first_line
from gan_lightning.modules.captured_step import (
    CapturedStep,
    Inputs,
    rate_tensors,
    rates_in_tensors,
    settings_of,
    state_of,
)
from gan_lightning.modules.precision import ScalerPerNetwork
from gan_lightning.resume.lightning_internals import count_optimizer_step

WARM_UP = 3  # steps of each kind before its capture, in which libraries set themselves up
HOOKS = ("on_before_backward", "on_after_backward", "on_before_optimizer_step")  # called within a step
TORCH = Path(torch.__file__).parent

_log = logging.getLogger(__name__)


class StepKind(NamedTuple):
    """What a step consists of: kinds of steps are captured one by one."""

    of_generator: bool  # whether the generator's turn follows that of the discriminator
    penalized: bool
    logged: bool


Step = Callable[[Inputs, StepKind], dict[str, Tensor]]


class StepGraphs:
    """Runs a step, from its fourth time on by replaying a CUDA graph.

    A graph repeats the same operations at the same addresses. What changes from step to step therefore comes from
    outside: images and labels are copied to where the graph reads them, learning rates are tensors, and the random
    generator is seeded before. A step of another batch size, or with other options, settings of the optimizers, modes
    or frozen parameters than at its capture, is run without the graph. See
    https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.

    Attributes:
        rng: Random generator on the module's device, to be seeded before each step.
        active: Whether graphs are used.
    """

    def __init__(self, module: LightningModule, asked: bool | None, step_of: type[LightningModule]) -> None:
        """Decide whether graphs are used.

        Args:
            module: The module, when its training starts.
            asked: Whether to use graphs; None to use them where they can be, on a single GPU.
            step_of: Class that defines the step and the hooks within it. Those of subclasses are no part of a replay.

        Raises:
            InputError: If graphs are requested, but impossible.
        """
        self._module, self._asked = module, asked
        self.rng = torch.Generator(module.device)
        reason = why_impossible(module) or hook_within(module, step_of)
        if reason is None and not asked and module.trainer.world_size > 1:
            reason = "graphs were not tried on several GPUs"
        if asked and reason:
            raise InputError(f"cuda_graph: true is impossible: {reason}; or set it to null or false")
        self.active = asked is not False and reason is None
        self._seen: Counter[StepKind] = Counter()
        self._captured: dict[StepKind, CapturedStep] = {}
        self._pool = torch.cuda.graph_pool_handle() if self.active else None

    def run(self, step: Step, inputs: Inputs, kind: StepKind) -> dict[str, Tensor]:
        """Run a step, or replay it.

        Args:
            step: Function of inputs and kind, whose random numbers are all from `rng`.
            inputs: Images (B,C,H,W), and their labels (B,) if the model has classes.
            kind: Kind of the step.

        Returns:
            What the step returns; the tensors of a graph are overwritten by its next replay.
        """
        if not self.active:
            return step(inputs, kind)
        if kind not in self._captured:
            self._seen[kind] += 1
            if self._seen[kind] <= WARM_UP:
                return step(inputs, kind)
            before = self._module.global_step
            try:
                self._captured[kind] = self._capture(step, inputs, kind)
            except Exception as error:
                if self._module.global_step > before:  # the capture had counted a step that was not taken
                    count_optimizer_step(self._module.trainer, -1)
                return self._give_up(error, step, inputs, kind)
            return self._captured[kind].replay(inputs)  # its optimizer step has been counted by the capture
        captured = self._captured[kind]
        if not captured.fits(inputs, state_of(self._module)):
            return step(inputs, kind)
        outputs = captured.replay(inputs)
        if kind.of_generator:
            count_optimizer_step(self._module.trainer)
        return outputs

    def close(self) -> None:
        """Free the memory of the graphs."""
        self.active, self._pool = False, None
        self._captured.clear()

    def _capture(self, step: Step, inputs: Inputs, kind: StepKind) -> CapturedStep:
        device = inputs[0].device
        check_memory(device)
        optimizers = self._module.trainer.optimizers
        read = tuple(tensor.clone() for tensor in inputs)
        rates = [rate_tensors(optimizer, device) for optimizer in optimizers]
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.rng)
        # Other threads, which pin the memory of batches, may go on using the device.
        capture = torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local")
        with rates_in_tensors(optimizers, rates), capture:
            outputs = step(read, kind)
        settings = list(map(settings_of, optimizers))
        return CapturedStep(graph, read, outputs, optimizers, rates, settings, state_of(self._module))

    def _give_up(self, error: Exception, step: Step, inputs: Inputs, kind: StepKind) -> dict[str, Tensor]:
        """Run a step that could not be captured, and all others, without graphs."""
        reason = origin_of(error)
        if self._asked:
            raise InputError(f"the training step cannot be captured as a CUDA graph: {reason}; set cuda_graph: false")
        _log.warning("The training step cannot be captured as a CUDA graph, and runs without one: %s", reason)
        self.active = False
        self._captured.clear()
        for optimizer in self._module.trainer.optimizers:  # the capture may have ended within the turn of one
            self._module.untoggle_optimizer(optimizer)
        # The other random generator may be left capturing.
        self.rng = torch.Generator(inputs[0].device).manual_seed(self.rng.initial_seed())
        return step(inputs, kind)


def origin_of(error: BaseException) -> str:
    """Return what went wrong first, and where: the end of a failed capture raises another error."""
    while error.__context__ is not None:
        error = error.__context__
    message = first_line(error)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if TORCH not in Path(frame.filename).parents]
    return f"{message} ({frames[-1].filename}:{frames[-1].lineno})" if frames else message


def check_memory(device: torch.device) -> None:
    """Check that the memory for a step's activations is free twice: for graphs, and for steps without one.

    Raises:
        RuntimeError: If it is not.
    """
    allocated = torch.cuda.memory_allocated(device)
    needed = torch.cuda.max_memory_allocated(device) - allocated
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - allocated
    if free < 2 * needed:
        raise RuntimeError(f"too little memory is free: {free / 2**30:.1f} GiB, of {2 * needed / 2**30:.1f} needed")


def why_impossible(module: LightningModule) -> str | None:
    """Return why a module's step cannot be a CUDA graph, and what to do; None if there is no known reason."""
    trainer = module.trainer
    if trainer.strategy.root_device.type != "cuda":
        return "it needs a GPU: choose --trainer.accelerator gpu"
    if getattr(module, "accumulate", 1) > 1:
        return "accumulate splits the batch to save memory, which a graph would hold: set accumulate to 1"
    if getattr(module, "compiled", False):
        return "compile has graphs of its own: leave compile out"
    if isinstance(trainer.precision_plugin, ScalerPerNetwork):
        return "the host scales the losses of 16-mixed: choose --trainer.precision bf16-mixed"
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    if not all(group.get("fused") and "capturable" in group for group in groups):
        return "an optimizer cannot be captured: use Adam or AdamW with fused=True"
    if any(isinstance(group["lr"], Tensor) for group in groups):
        return "a learning rate is a tensor: give a number"
    return None


def hook_within(module: LightningModule, step_of: type[LightningModule]) -> str | None:
    """Return which hook is called within the step, where a replay would not call it; None if there is none."""
    callbacks: Sequence[Callback] = getattr(module.trainer, "callbacks", [])
    for hook in HOOKS:
        if is_overridden(hook, module, step_of) or any(is_overridden(hook, other, Callback) for other in callbacks):
            return f"a replay would not call {hook}"
    return None
