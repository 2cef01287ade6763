"""Sums of an image are the same to the last bit in any batch, also where threads share the work."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from gan_lightning.inversion.losses import huber, l1, mse
from gan_lightning.inversion.reductions import mean_of_each, sum_of_each


@pytest.fixture(params=[1, 2, 4])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("side", [16, 128, 256])
@pytest.mark.parametrize("loss", [mse, l1, huber])
def test_losses_of_large_images_do_not_depend_on_the_batch(
    loss: Callable[[Tensor, Tensor], Tensor], side: int, threads: int
) -> None:
    rng = torch.Generator().manual_seed(side)
    images, observed = torch.randn(2, 4, 3, side, side, generator=rng).requires_grad_()
    together = loss(images, observed)
    for rows in (slice(0, 1), slice(1, 2), slice(2, 3), slice(1, 4)):
        assert torch.equal(loss(images[rows], observed[rows]), together[rows])


def test_sums_and_means_of_each() -> None:
    values = torch.arange(24.0, dtype=torch.float64).reshape(2, 3, 4).requires_grad_()
    for rows in (values, values[:1]):
        torch.testing.assert_close(mean_of_each(rows), rows.mean((1, 2)))
        torch.testing.assert_close(sum_of_each(rows, (2,), keepdim=True), rows.sum(2, keepdim=True))
        (gradient,) = torch.autograd.grad(mean_of_each(rows).sum() + sum_of_each(rows, (1, 2)).sum(), values)
        torch.testing.assert_close(gradient[0], torch.full((3, 4), 1 + 1 / 12, dtype=torch.float64))
