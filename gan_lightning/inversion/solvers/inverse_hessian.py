"""Limited-memory BFGS matrices of a batch, in a form that takes few operations on a device."""

from __future__ import annotations

import torch
from torch import Tensor

from gan_lightning.inversion.reductions import sum_of_each

LEAST_CURVATURE = 1e-20  # pairs with less are skipped, because the direction could become one of ascent
CHUNK = 256  # number of variables in a sum on a CPU; longer sums would depend on the size of the batch


class InverseHessian:
    """Estimates H of the inverse Hessian of each image, from its last pairs of a step s and a change y of the gradient.

    This is the compact form of Byrd, Nocedal & Schnabel 1994 (theorem 2.2), equal to the two-loop recursion up to
    rounding. With S and Y the matrices of all steps and changes, R the upper triangle of S'Y, D its diagonal and c the
    scale of the last pair,

        H = c I + [S cY] [[R^-T (D + c Y'Y) R^-1, -R^-T], [-R^-1, 0]] [S cY]'.

    A pair replaces the oldest one of its image. The inverse of R then loses a row and a column and gains new ones in
    any position: no entry is moved, no equation is solved, and the pairs are not kept in order. Each image has its own
    position for its next pair, because images take their steps at different times.

    On a CPU a single image is computed twice, because products of a single matrix are summed in a different order.

    Args:
        gradient: (B,D) gradient at the initial variables, which sets the length of the first step to one.
        memory: Number M of pairs.
    """

    def __init__(self, gradient: Tensor, memory: int) -> None:
        self._twice = gradient.device.type == "cpu"
        self._count = len(gradient)
        gradient = self._at_least_two(gradient)
        batch, size = gradient.shape
        chunks = -(-size // CHUNK) if gradient.device.type == "cpu" else 1
        width = -(-size // chunks)
        self.memory, self._padding = memory, chunks * width - size
        # S and Y, and a dummy position for images to which no pair is added.
        self._pairs = gradient.new_zeros(batch, chunks, 2 * memory + 2, width)
        self._inverse = gradient.new_zeros(batch, memory, memory)  # of R
        self._products = torch.zeros_like(self._inverse)  # Y'Y
        self._curvatures = torch.zeros_like(self._inverse[:, 0])  # D
        self._scale = 1 / sum_of_each(gradient.square(), keepdim=True).sqrt().clamp(min=1e-30)
        self._next = torch.zeros_like(self._scale, dtype=torch.int64)
        self._rows = torch.arange(batch, device=gradient.device)[:, None]
        self._places = torch.arange(memory, device=gradient.device)
        self._starts = torch.tensor([0, memory], device=gradient.device)  # first positions of S and of Y
        self._nowhere = torch.tensor([2 * memory, 2 * memory + 1], device=gradient.device)

    @property
    def scale(self) -> Tensor:
        """Scale (B,1) of the last pair of each image."""
        return self._scale[: self._count]

    def select(self, rows: Tensor) -> None:
        """Keep only some images of the batch."""
        self._count, rows = len(rows), self._at_least_two(rows)
        for name in ("_pairs", "_inverse", "_products", "_curvatures", "_scale", "_next"):
            setattr(self, name, getattr(self, name)[rows])
        self._rows = self._rows[: len(rows)]

    def update(self, step: Tensor, change: Tensor, gradient: Tensor, taken: Tensor) -> Tensor:
        """Add a pair to some images, and return the directions of descent of all.

        Args:
            step: (B,D) change of the variables.
            change: (B,D) change of the gradient.
            gradient: (B,D) gradient at the current variables.
            taken: (B,) true where the pair is added. Elsewhere its values are ignored.

        Returns:
            (B,D), minus H times the gradient.
        """
        step, change, gradient, taken = map(self._at_least_two, (step, change, gradient, taken))
        vectors = self._split(torch.stack([step, change, gradient], 1))
        places = torch.where(taken[:, None], self._next + self._starts, self._nowhere)
        self._pairs[self._rows, :, places] = vectors[:, :, :2].transpose(1, 2)
        products = self._multiply(vectors[:, :, 1:])
        steps, changes = products[:, : self.memory].unbind(2), products[:, self.memory :].unbind(2)
        here = (self._places == self._next) & taken[:, None]
        self._replace(here, taken[:, None], steps[0], changes[0])
        self._next = (self._next + taken[:, None]) % self.memory
        weights = self._weights(steps[1], changes[1])
        return torch.addcmul(self._combine(weights), gradient, self._scale, value=-1)[: self._count]

    def _replace(self, here: Tensor, taken: Tensor, products: Tensor, squares: Tensor) -> None:
        """Store a pair, given its products (B,M) y's with all steps and y'y with all changes."""
        curvature, square = products.gather(1, self._next), squares.gather(1, self._next)
        unusable = curvature <= LEAST_CURVATURE
        scale = (curvature / square.clamp(min=1e-30)).masked_fill(unusable, 1.0)
        self._scale = torch.where(taken, scale, self._scale)
        reciprocal = curvature.reciprocal().masked_fill(unusable, 0.0)
        without = self._inverse.masked_fill(here[:, :, None], 0.0)
        column = _minus(without, products.masked_fill(here, 0.0)[:, :, None])[:, :, 0] * reciprocal
        column = torch.where(here, reciprocal, column)
        self._inverse = torch.where(here[:, None], column[:, :, None], without)
        self._products = torch.where(here[:, :, None], squares[:, None], self._products)
        self._products = torch.where(here[:, None], squares[:, :, None], self._products)
        self._curvatures = torch.where(here, curvature, self._curvatures)

    def _weights(self, steps: Tensor, changes: Tensor) -> Tensor:
        """Return the weights (B,2M) of all pairs in the direction, given S'g and Y'g (B,M)."""
        first = self._inverse @ steps[:, :, None]
        second = torch.baddbmm(changes[:, :, None], self._products, first, beta=-1)
        second = torch.addcmul(self._curvatures[:, :, None] * first, second, self._scale[:, :, None])
        return torch.cat([_minus(self._inverse.mT, second), first * self._scale[:, :, None]], 1)[:, :, 0]

    def _at_least_two(self, rows: Tensor) -> Tensor:
        return torch.cat([rows, rows]) if self._twice and len(rows) == 1 else rows

    def _split(self, vectors: Tensor) -> Tensor:
        """Split vectors (B,V,D) into chunks (B,C,V,W)."""
        padded = torch.nn.functional.pad(vectors, (0, self._padding)) if self._padding else vectors
        return padded.reshape(*vectors.shape[:2], *self._pairs.shape[1::2]).transpose(1, 2)

    def _multiply(self, vectors: Tensor) -> Tensor:
        """Return the products (B,2M,V) of all pairs with vectors (B,C,V,W)."""
        products = self._pairs[:, :, :-2] @ vectors.mT
        return products.sum(1) if products.shape[1] > 1 else products[:, 0]

    def _combine(self, weights: Tensor) -> Tensor:
        """Return the sums (B,D) of all pairs with weights (B,2M)."""
        combined = (weights[:, None, None] @ self._pairs[:, :, :-2]).flatten(1)
        return combined[:, : combined.shape[1] - self._padding]


def _minus(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Return minus the products (B,M,1) of matrices (B,M,M) and vectors (B,M,1), in one operation."""
    return torch.baddbmm(vectors, matrices, vectors, beta=0, alpha=-1)
