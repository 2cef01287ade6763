"""Count the work of torch in a training step: operations, casts, reads of values, and messages between two ranks.

    python benchmarks/step_profile.py

Counted on the CPU, where the same operations are dispatched as on a GPU. There each is a kernel to launch, but for
views and bookkeeping. The peers are the loop of the PyTorch example with Adam and autocast as they are by default, and
the same networks' step in plain torch, written for speed.
"""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

import environment  # noqa: F401  first: it sets what torch reads when it is imported
import lightning as L
from gpu_setup import Setup, Sizes
from gpu_training import PlainStep, SameBatch, tutorial_loop
from report import print_header, print_table, quieten_lightning
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gan_lightning import DCGAN
from gan_lightning.distributed import float_buffers

BATCH, STEPS = 16, 5
NO_KERNEL = (
    "detach", "view", "empty", "split", "expand", "alias", "as_strided", "_record_function", "scalar_tensor"
)  # fmt: skip
READS = ("_local_scalar_dense", "nonzero", "equal", "masked_select")


class Operations(TorchDispatchMode):
    """Counts the operations that are dispatched while it is active, backward passes included."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count and run an operation."""
        self.names[operation.name().split("::")[1].split(".")[0]] += 1
        return operation(*args, **(kwargs or {}))

    def cells(self) -> list[str]:
        """Return the numbers of operations, of those with a kernel, of casts, and of reads by the host."""
        everything = sum(self.names.values())
        bookkeeping = sum(n for name, n in self.names.items() if any(part in name for part in NO_KERNEL))
        casts, reads = self.names["_to_copy"], sum(self.names[name] for name in READS)
        return [str(everything), str(everything - bookkeeping), str(casts), str(reads)]


class OneStep(L.Callback):
    """Counts the operations of one training step that is not logged."""

    def __init__(self, number: int) -> None:
        self.number, self.operations = number, Operations()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start before the step."""
        if batch_idx == self.number:
            self.operations.__enter__()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stop after it."""
        if batch_idx == self.number:
            self.operations.__exit__(None, None, None)


def operations_of_a_step(images: Tensor, precision: Any, **options: Any) -> Operations:
    """Return the operations of our training step in `Trainer.fit`.

    Args:
        images: (B,C,H,W) in [-1, 1].
        precision: The Trainer's.
        **options: Those of DCGAN.
    """
    callback = OneStep(3)
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = L.Trainer(
        accelerator="cpu",
        precision=precision,
        max_epochs=1,
        log_every_n_steps=100,
        callbacks=[callback],
        **dict.fromkeys(quiet, False),  # type: ignore[arg-type]
    )
    trainer.fit(DCGAN(image_size=images.shape[-1], **options), SameBatch(images, STEPS))
    return callback.operations


def of_call(step: Any, *arguments: Any) -> Operations:
    """Return the operations of the second call of a step."""
    step(*arguments)
    with Operations() as operations:
        step(*arguments)
    return operations


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    quieten_lightning()
    print_header("Operations of a training step")
    setup = Setup("cpu", Sizes(), None)  # type: ignore[arg-type]
    images = setup.random_batch(BATCH)
    rows = []
    for precision in ("bf16-mixed", "32-true"):
        rows.append(["the tutorial's loop", precision, *of_call(tutorial_loop(setup, precision).step, images).cells()])
        rows.append(["plain torch", precision, *of_call(PlainStep(setup, BATCH, precision)).cells()])
        rows.append(["ours", precision, *operations_of_a_step(images, precision).cells()])
    rows.append(["ours, r1", "bf16-mixed", *operations_of_a_step(images, "bf16-mixed", r1=1.0).cells()])
    columns = ["step", "precision", "operations", "of them with a kernel", "casts", "values read"]
    print_table(columns, rows)
    module = DCGAN()
    gradients = sum(p.numel() for network in (module.generator, module.discriminator) for p in network.parameters())
    sent = gradients + sum(buffer.numel() for buffer in float_buffers(module.generator, module.discriminator))
    print(
        f"\nMessages of a step between two ranks: 2, of {4 * sent:,} bytes together, {sent / gradients:.4f} times the "
        "gradients' (held by tests/modules/test_distributed.py).\n\n64 px, 100 latents, 64 channels. The value that "
        "ours reads is the loss: on a GPU it is read in logged steps alone."
    )


if __name__ == "__main__":
    main()
