"""Coordinates of the latents along which an image changes about equally fast, in which searches take few steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from gan_lightning.inversion.problem import Problem, Solution, Stopping
from gan_lightning.seeding import image_rng

Solver = Callable[[Problem, Tensor, Stopping], Solution]

PROBES = 512  # products with the Jacobian that the metric is a mean of: more find no better coordinates
CHUNK = 64
FLOOR = 0.03  # of the mean eigenvalue: directions that change the image less are not stretched any further
PRODUCT_ROWS = (
    8  # the last bits of a matrix product's rows are the same in groups of eight; with MKL not in smaller ones
)


class Whitening:
    """Latents z as variables w, z = basis (scale * w), whose mean square under the prior is that of z.

    A trained generator is far more sensitive to some directions of its latents than to others: ten thousand times, in
    the mean of J'J over the prior, on faces at 64 px, where J is the derivative of the image by the latent. The basis
    are the eigenvectors of that mean, and the scale evens out its eigenvalues: a Gauss-Newton preconditioner
    (Nocedal & Wright 2006, section 7.1) that is measured once for a generator.

    Attributes:
        basis: (D,D), eigenvectors in its columns.
        scale: (D,) latents to one unit of each variable.
    """

    def __init__(self, metric: Tensor) -> None:
        """Choose the coordinates.

        Args:
            metric: (D,D) mean of J'J, symmetric, of any scale; zeros give the latents themselves, rotated.
        """
        values, vectors = torch.linalg.eigh(metric.cpu().double())  # not all devices have doubles
        values = values.clamp(min=0)
        values = values + FLOOR * values.mean().clamp(min=torch.finfo(torch.float32).tiny)
        self.basis = vectors.to(metric).contiguous()
        self.scale: Tensor = (values.mean() / values).sqrt().to(metric)

    def latents(self, variables: Tensor) -> Tensor:
        """Map variables (B,D) to latents (B,D)."""
        return multiply_rows(variables * self.scale, self.basis)

    def variables(self, latents: Tensor) -> Tensor:
        """Map latents (B,D) to variables (B,D)."""
        return multiply_rows(latents, self.basis.T.contiguous()) / self.scale

    def solve(self, solver: Solver, problem: Problem, start: Tensor, stopping: Stopping) -> Solution:
        """Solve a problem of latents in these coordinates.

        Args:
            solver: Of `first_order` or `levenberg_marquardt`.
            problem: Its variables are latents.
            start: (B,D) latents.
            stopping: When an image is done.

        Returns:
            The solution, whose variables are latents again.
        """
        white = replace(
            problem,
            render=lambda variables: problem.render(self.latents(variables)),
            center=self.variables(problem.center),
            weight=problem.weight * self.scale.square(),  # the basis is orthonormal
        )
        solution = solver(white, self.variables(start), stopping)
        return replace(solution, variables=self.latents(solution.variables))


def measure_metric(render: Callable[[Tensor], Tensor], latent_dim: int, like: Tensor) -> Tensor:
    """Estimate the mean of J'J over random latents, J being the derivative of the image by the latent.

    J'v of a random v with covariance 1 has covariance J'J: a backward pass for each probe, no Jacobian.

    Args:
        render: Latents (B,D) to images (B,C,H,W).
        latent_dim: D.
        like: A tensor on the generator's device, of its type.

    Returns:
        (D,D), mean over pixels, on the [-1, 1] scale.
    """
    rng = image_rng(0, 0, "whitening")
    metric = like.new_zeros(latent_dim, latent_dim)
    for _ in range(PROBES // CHUNK):
        latents = torch.randn(CHUNK, latent_dim, generator=rng).to(like).requires_grad_()
        images = render(latents)
        probes = torch.randn(images.shape, generator=rng).to(images)
        (product,) = torch.autograd.grad((images * probes).sum(), latents)
        metric += product.T @ product / (PROBES * images[0].numel())
    return metric


def multiply_rows(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply rows (B,D) by weight (E,D) and add bias (E,); a row gives the same bits in any batch."""
    product: Tensor = F.linear(fill_up(rows, PRODUCT_ROWS), weight, bias)[: len(rows)]
    return product


def fill_up(batch: Tensor, multiple: int) -> Tensor:
    """Append zeros to a batch until its length is a multiple of a number."""
    missing = -len(batch) % multiple
    return torch.cat([batch, batch.new_zeros(missing, *batch.shape[1:])]) if missing else batch
