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
CHUNK = 64
FLOOR = 0.03  # relative to the mean eigenvalue; limits the scale of directions that hardly change the image
MAX_WHITENED = 2048  # latents; beyond, the matrix takes longer to decompose than it saves
MAX_PIXELS = CHUNK * 256**2  # of images that are made at once, to limit the memory
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
            gauss_newton: (D,D) mean of J'J, symmetric, up to a factor. A matrix of zeros only rotates the latents.
        """
        values, vectors = torch.linalg.eigh(gauss_newton.cpu().double())  # not all devices support float64
        values = values.clamp(min=0)
        values = values + FLOOR * values.mean().clamp(min=torch.finfo(torch.float32).tiny)
        self.basis = vectors.to(gauss_newton).contiguous()
        self.scale: Tensor = (values.mean() / values).sqrt().to(gauss_newton)

    def latents(self, variables: Tensor) -> Tensor:
        """Map variables (B,D) to latents (B,D)."""
        return multiply_rows(variables * self.scale, self.basis)

    def variables(self, latents: Tensor) -> Tensor:
        """Map latents (B,D) to variables (B,D)."""
        return multiply_rows(latents, self.basis.T.contiguous()) / self.scale

    def solve(self, solver: Solver, problem: Problem, start: Tensor, stopping: Stopping) -> Solution:
        """Solve a problem whose variables are latents in the preconditioned variables.

        Args:
            solver: Solver to use.
            problem: Problem whose variables are latents.
            start: (B,D) initial latents.
            stopping: Stopping criteria.

        Returns:
            Solution whose variables are latents.
        """
        white = replace(
            problem,
            render=lambda variables: problem.render(self.latents(variables)),
            center=self.variables(problem.center),
            weight=problem.weight * self.scale.square(),  # the basis is orthonormal
        )
        solution = solver(white, self.variables(start), stopping)
        return replace(solution, variables=self.latents(solution.variables))


class NoWhitening:
    """Solve in the latents themselves."""

    def solve(self, solver: Solver, problem: Problem, start: Tensor, stopping: Stopping) -> Solution:
        """Solve a problem whose variables are latents; see `Whitening.solve`."""
        return solver(problem, start, stopping)


def estimate_gauss_newton_matrix(
    render: Callable[[Tensor], Tensor], latent_dim: int, like: Tensor, draw: Draw | None = None
) -> Tensor:
    """Estimate the mean of J'J over random latents, where J is the Jacobian of the image with respect to the latent.

    For random v with identity covariance, J'v has covariance J'J. Each probe v takes one backward pass, and no Jacobian
    is formed.

    Args:
        render: Function that maps latents (B,D) to images (B,C,H,W).
        latent_dim: Length D of the latents.
        like: Tensor with the dtype and device of the generator.
        draw: Function that draws latents of the prior. Default: from N(0, 1).

    Returns:
        (D,D), averaged over pixels, for images in [-1, 1].
    """
    rng = image_rng(0, 0, "whitening")
    gauss_newton = like.new_zeros(latent_dim, latent_dim)
    chunk = images_at_once(render, like.new_zeros(1, latent_dim), CHUNK)
    for _ in range(PROBES // chunk):
        latents = torch.randn(chunk, latent_dim, generator=rng) if draw is None else draw(chunk, rng)
        latents = latents.to(like).requires_grad_()
        images = render(latents)
        probes = torch.randn(images.shape, generator=rng).to(images)
        (product,) = torch.autograd.grad((images * probes).sum(), latents)
        gauss_newton += product.T @ product / (PROBES * images[0].numel())
    return gauss_newton


@torch.no_grad()
def images_at_once(render: Callable[[Tensor], Tensor], latent: Tensor, most: int) -> int:
    """Return how many images can be made at once without much memory: `most`, or a power of two below it.

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
