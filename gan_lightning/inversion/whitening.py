"""Preconditioning of the latents, so that solvers take fewer steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from gan_lightning.inversion.problem import Problem, Solution, Stopping
from gan_lightning.seeding import image_rng

Solver = Callable[[Problem, Tensor, Stopping], Solution]
Draw = Callable[[int, torch.Generator], Tensor]

PROBES = 512  # vector-Jacobian products in the estimate; more do not improve the preconditioner
DRAWS = 8192  # number of latents in the estimate of their covariance
EVEN = 1.5  # largest mean square of eigenvalues of mean one at which a covariance counts as the identity
CHUNK = 64
FLOOR = 0.03  # relative to the mean eigenvalue; limits the scale of directions that hardly change the image
MAX_WHITENED = 2048  # latents; beyond, the matrix takes longer to decompose than it saves
MAX_PIXELS = CHUNK * 256**2  # pixels of images that are generated at once, to limit the memory
PRODUCT_ROWS = 8  # rows of a matrix product are bit-identical in multiples of eight; with MKL, not in smaller ones


class Whitening:
    """Change of variables z = basis (scale * w) from latents z to w, with the same mean square under the prior.

    A trained generator is far more sensitive to some latent directions than to others. For faces at 64 px, the
    eigenvalues of the mean of J'J over the prior, with J the Jacobian of the image, differ by a factor of ten thousand.
    The basis holds the eigenvectors of that matrix, and the scale evens out its eigenvalues. This is a Gauss-Newton
    preconditioner (Nocedal & Wright 2006, section 7.1) that is computed once per generator.

    Attributes:
        basis: (D,D) matrix with the eigenvectors as columns.
        scale: (D,) length of one unit of each variable in latent space.
    """

    def __init__(self, gauss_newton: Tensor) -> None:
        """Compute the basis and the scale.

        Args:
            gauss_newton: (D,D) mean of J'J, or another measure of curvature, symmetric, up to a factor. A matrix of
                zeros only rotates the latents.
        """
        values, vectors = torch.linalg.eigh(gauss_newton.cpu().double())  # not all devices support float64
        values = values.clamp(min=0)
        values = values + FLOOR * values.mean().clamp(min=torch.finfo(torch.float32).tiny)
        self.basis = vectors.to(gauss_newton).contiguous()
        self.scale: Tensor = (values.mean() / values).sqrt().to(gauss_newton)

    def latents(self, variables: Tensor) -> Tensor:
        """Map variables (B,D) to latents (B,D); columns after the first D are not changed."""
        own, others = self._parts(variables)
        return torch.cat([multiply_rows(own * self.scale, self.basis), *others], 1)

    def variables(self, latents: Tensor) -> Tensor:
        """Map latents (B,D) to variables (B,D); columns after the first D are not changed."""
        own, others = self._parts(latents)
        return torch.cat([multiply_rows(own, self.basis.T.contiguous()) / self.scale, *others], 1)

    def _parts(self, rows: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the latents, and a list with the further variables of the search, if there are any."""
        count = len(self.scale)
        return rows[:, :count], [rows[:, count:]] * (rows.shape[1] > count)

    def solve(self, solver: Solver, problem: Problem, start: Tensor, stopping: Stopping) -> Solution:
        """Solve a problem whose variables are latents in the preconditioned variables.

        Args:
            solver: Solver to use.
            problem: Problem whose variables are latents, optionally followed by others.
            start: (B,D) initial latents.
            stopping: Stopping criteria.

        Returns:
            Solution whose variables are latents.
        """
        scales = F.pad(self.scale.square(), (0, start.shape[1] - len(self.scale)), value=1.0)
        white = replace(
            problem,
            render=lambda variables: problem.render(self.latents(variables)),
            center=self.variables(problem.center),
            weight=problem.weight * scales,  # the basis is orthonormal
        )
        solution = solver(white, self.variables(start), stopping)
        return replace(solution, variables=self.latents(solution.variables))


class NoWhitening:
    """Solve in the latents themselves."""

    def solve(self, solver: Solver, problem: Problem, start: Tensor, stopping: Stopping) -> Solution:
        """Solve a problem whose variables are latents; see `Whitening.solve`."""
        return solver(problem, start, stopping)


def estimate_gauss_newton_matrix(render: Callable[[Tensor], Tensor], latent_dim: int, like: Tensor) -> Tensor:
    """Estimate the mean of J'J over random latents, where J is the Jacobian of the image with respect to the latent.

    For random v with identity covariance, J'v has covariance J'J. Each probe v takes one backward pass, and no Jacobian
    is formed.

    Args:
        render: Function that maps latents (B,D) to images (B,C,H,W).
        latent_dim: Length D of the latents.
        like: Tensor with the dtype and device of the generator.

    Returns:
        (D,D), averaged over pixels, for images in [-1, 1].
    """
    rng = image_rng(0, 0, "whitening")
    gauss_newton = like.new_zeros(latent_dim, latent_dim)
    chunk = images_at_once(render, like.new_zeros(1, latent_dim), CHUNK)
    for _ in range(PROBES // chunk):
        latents = torch.randn(chunk, latent_dim, generator=rng).to(like).requires_grad_()
        images = render(latents)
        probes = torch.randn(images.shape, generator=rng).to(images)
        (product,) = torch.autograd.grad((images * probes).sum(), latents)
        gauss_newton += product.T @ product / (PROBES * images[0].numel())
    return gauss_newton


def curvature_of_draws(latents: Tensor) -> Tensor | None:
    """Return the inverse covariance of latents, for a prior whose latents do not vary equally in all directions.

    Solutions of a StyleGAN2 are further away in directions in which its latents vary more. The mean variance is added
    to all directions, because the search may leave the span of the draws. In W this preconditioner helps the first
    steps more than the mean of J'J, and it needs no images.

    Args:
        latents: (N,D) random latents, of mean zero.

    Returns:
        (D,D), or None if the latents vary equally in all directions, like those of N(0, 1).
    """
    rows = latents.double().cpu()
    covariance = rows.T @ rows / len(rows)
    count, variance = len(covariance), covariance.trace() / len(covariance)
    unevenness = covariance.square().sum() / (count * variance**2) - count / len(rows)  # of N(0, 1): one
    if unevenness < EVEN:
        return None
    curvature: Tensor = torch.linalg.inv(covariance + variance * torch.eye(count, dtype=torch.float64))
    return curvature.to(latents)


@torch.no_grad()
def images_at_once(render: Callable[[Tensor], Tensor], latent: Tensor, most: int) -> int:
    """Return how many images to generate at once without using much memory: `most`, or a power of two below it.

    Args:
        render: Function that maps latents (B,D) to images (B,C,H,W).
        latent: (1,D) latent.
        most: Number for images of up to 256 pixels, a power of two.
    """
    height, width = render(latent).shape[-2:]
    count = most
    while count > 1 and count * height * width > MAX_PIXELS:
        count //= 2
    return count


def multiply_rows(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute `rows @ weight.T + bias` for rows (B,D), weight (E,D), bias (E,); a row is bit-identical in any batch."""
    return trim_batch(F.linear(pad_batch(rows, PRODUCT_ROWS), weight, bias), len(rows))


def pad_batch(batch: Tensor, multiple: int) -> Tensor:
    """Pad a batch with zeros to a length that is a multiple of `multiple`."""
    missing = -len(batch) % multiple
    return torch.cat([batch, batch.new_zeros(missing, *batch.shape[1:])]) if missing else batch


def trim_batch(batch: Tensor, length: int) -> Tensor:
    """Undo the padding of a batch; a slice of all of it would cost a copy in the backward pass."""
    return batch if len(batch) == length else batch[:length]
