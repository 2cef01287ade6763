"""Host work of a step of the search: launched operations, and values for which the host waits.

    python benchmarks/inversion_profile.py > benchmarks/results/inversion_profile.md

Operations are counted as PyTorch dispatches them, views left out. A value is waited for where a tensor is read as a
number, and where the size of a result depends on values, as that of an index by a mask does: on a GPU, the host then
stands still until all that it launched is done. Gradients of the network are included.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import environment  # noqa: F401  first: it sets what torch reads when it is imported
import torch
from report import print_header, print_table
from torch.utils._python_dispatch import TorchDispatchMode

from gan_lightning import Generator, invert
from gan_lightning.degradations import Degradation, Downsample, GaussianBlur, Identity, SquareMask

VIEWS = {"detach", "_unsafe_view", "alias"}  # and whatever PyTorch itself says is a view
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero"}
READS = ("tolist", "numpy", "cpu")  # not dispatched on a CPU
TASKS: dict[str, Callable[[int], Degradation]] = {
    "denoising": lambda images: Identity(),
    "hole": lambda images: SquareMask(64, 16),
    "super-resolution": lambda images: Downsample(4),
    "a blur of each image": lambda images: GaussianBlur([0.8 + 0.1 * number for number in range(images)]),
}
SHORT, LONG = 25, 45  # steps of the two searches whose difference is counted: the memory of L-BFGS is full after 20


class Operations(TorchDispatchMode):
    """Counts operations by name, and the values that the host waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.copies = 0

    @property
    def operations(self) -> int:
        """Number of operations."""
        return self.names.total()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if not func.is_view and name not in VIEWS:
            self.names[name] += 1
        self.copies += name in WAITS
        if name.strip("_").startswith("index") and len(args) > 1 and isinstance(args[1], list | tuple):
            self.copies += sum(index is not None and index.dtype == torch.bool for index in args[1])
        return func(*args, **(kwargs or {}))


@contextmanager
def counted() -> Iterator[Operations]:
    """Count what happens in the block."""
    originals = {name: getattr(torch.Tensor, name) for name in READS}

    def told(name: str) -> Callable[..., Any]:
        def read(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            count.copies += 1
            return originals[name](tensor, *args, **kwargs)

        return read

    with Operations() as count:
        try:
            for name in READS:
                setattr(torch.Tensor, name, told(name))
            yield count
        finally:
            for name, original in originals.items():
                setattr(torch.Tensor, name, original)


class Step:
    """Operations and copies of one step, the mean over several."""

    def __init__(self, short: Operations, long: Operations) -> None:
        steps = LONG - SHORT
        self.operations = (long.operations - short.operations) / steps
        self.copies = (long.copies - short.copies) / steps
        self.names = {name: number / steps for name, number in (long.names - short.names).most_common()}


def operations_of_a_step(
    task: Callable[[int], Degradation], images: int = 16, base_channels: int = 64, features: bool = False
) -> Step:
    """Count a step of L-BFGS over the latents, or over the features, of images of 64 pixels.

    Args:
        task: Function that returns the degradation of a number of images.
        images: Number of images.
        base_channels: Width of the generator.
        features: Count the refinement of the features instead of the search for latents.
    """
    torch.manual_seed(0)
    generator, degradation = Generator(64, base_channels=base_channels).eval(), task(images)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(2 if parameter.ndim == 4 else 1)  # images with some contrast
        observed = degradation(generator(torch.randn(images, 100)) + 0.1 * torch.randn(images, 3, 64, 64))
    counts = []
    for steps in (1, SHORT, LONG):  # the first one freezes the generator, once for all
        numbers = {"num_steps": 0, "refine_steps": steps} if features else {"num_steps": steps, "refine": "none"}
        with counted() as count:
            invert(
                generator,
                degradation,
                observed,
                num_searches=1,
                tolerance=0.0,
                noise_level=0.0,
                start="mean",
                composite=False,
                **numbers,
            )
        counts.append(count)
    return Step(*counts[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16, help="number of images that are restored at once")
    parser.add_argument("--names", action="store_true", help="list the operations of each step")
    options = parser.parse_args()
    print_header("A step of the search", f"{options.images} images of 64 pixels, means over {LONG - SHORT} steps")
    rows, steps = [], {}
    for name, task in TASKS.items():
        for features in (False, True):
            step = operations_of_a_step(task, options.images, features=features)
            steps[f"{name}, {'features' if features else 'latents'}"] = step
    for name, step in steps.items():
        rows.append([name, f"{step.operations:.1f}", f"{step.copies:.2f}"])
    print_table(["step of", "operations", "copies to the host"], rows)
    for name, step in steps.items() if options.names else ():
        print(f"{name}: {', '.join(f'{n} {number:g}' for n, number in step.names.items())}\n")


if __name__ == "__main__":
    main()
