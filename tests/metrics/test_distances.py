import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from gan_lightning.metrics import FeatureExtractor, FeatureStatistics, FrechetDistance, inception_score, kernel_distance
from gan_lightning.metrics.generation import gather_features, image_order, rank_batches


class Pixels(FeatureExtractor):
    """The pixels themselves as features."""

    name = "pixels"

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).float()


class Vectors(Pixels):
    """Uses feature vectors as images, for distributions that no images have."""

    def forward(self, images: Tensor) -> Tensor:
        return images


def measure(real: Tensor, fake: Tensor) -> FrechetDistance:
    metric = FrechetDistance(Vectors(real.shape[1]))
    for images, is_real in ((real, True), (fake, False)):
        for batch in images.split(64):
            metric.update(batch, real=is_real)
    return metric


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    return float(measure(real, fake).compute())


def scipy_frechet(real: Tensor, fake: Tensor) -> float:
    """The formula as in Heusel et al.'s own program, in float64."""
    real_, fake_ = real.double().numpy(), fake.double().numpy()
    cov_real, cov_fake = np.cov(real_, rowvar=False), np.cov(fake_, rowvar=False)
    root = scipy.linalg.sqrtm(cov_real @ cov_fake).real
    shift = real_.mean(0) - fake_.mean(0)
    return float(shift @ shift + np.trace(cov_real + cov_fake - 2 * root))


def test_frechet_distance_agrees_with_scipy() -> None:
    rng = torch.Generator().manual_seed(0)
    mixing = torch.randn(2, 24, 24, generator=rng)
    real = torch.randn(400, 24, generator=rng) @ mixing[0] + 3
    fake = torch.randn(300, 24, generator=rng) @ mixing[1]
    distance = frechet_distance(real, fake)
    assert distance == pytest.approx(scipy_frechet(real, fake), rel=1e-6)


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (2.0, 1.0), (0.0, 3.0), (-1.5, 0.5)])
def test_frechet_distance_of_gaussians_in_closed_form(shift: float, scale: float) -> None:
    """Between X and scale X + shift: |shift + (scale - 1) mu|^2 + (scale - 1)^2 tr(S), with X's own mu and S."""
    features = torch.randn(500, 8, generator=torch.Generator().manual_seed(1))
    mean, covariance = features.double().mean(0), torch.cov(features.double().T)
    expected = (shift + (scale - 1) * mean).square().sum() + (scale - 1) ** 2 * covariance.trace()
    distance = frechet_distance(features, features * scale + shift)
    assert distance == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)


def test_sums_are_torchmetrics_states() -> None:
    images = torch.randint(0, 256, (50, 1, 3, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    metric = FrechetDistance(Pixels(9))
    for batch in images.split(16):
        metric.update(batch, real=True)
    pixels = images.flatten(1).double()
    measured = metric.real_statistics(pixels.float())
    assert torch.equal(measured.features_sum, pixels.sum(0))
    assert torch.equal(measured.features_cov_sum, pixels.T @ pixels)
    assert int(measured.num_samples) == 50
    assert measured.features is not None
    assert torch.equal(measured.features, pixels.float())


def test_it_is_the_metric_of_torchmetrics_to_the_last_digit() -> None:
    """torchmetrics rounds the distance to the precision of the features: with float64 features it rounds nothing."""

    class Doubles(Vectors):
        def forward(self, images: Tensor) -> Tensor:
            return images.double()

    rng = torch.Generator().manual_seed(7)
    real, fake = torch.randn(80, 5, generator=rng), torch.randn(60, 5, generator=rng) + 1
    reference = FrechetInceptionDistance(feature=Doubles(5))
    metric = FrechetDistance(Vectors(5))
    for each in (reference, metric):
        each.update(real, real=True)
        each.update(fake, real=False)
    assert metric.compute().dtype == torch.float64
    assert metric.compute() == reference.compute()


def test_it_is_the_distance_of_torch_fidelity() -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    rng = torch.Generator().manual_seed(8)
    real, fake = torch.randn(300, 12, generator=rng), torch.randn(200, 12, generator=rng) * 2 + 1
    statistics = [fid_features_to_statistics(features) for features in (real, fake)]
    expected = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-5)


def test_a_reset_keeps_real_images_and_loaded_statistics_replace_them() -> None:
    rng = torch.Generator().manual_seed(9)
    real, first, second = (torch.randn(60, 6, generator=rng) + shift for shift in (0, 1, 2))
    metric = measure(real, first)
    expected = [metric.compute()]
    metric.reset()
    metric.update(second, real=False)
    expected.append(metric.compute())
    loaded = FrechetDistance(Vectors(6))
    loaded.load_real_statistics(metric.real_statistics())
    for fake, distance in zip((first, second), expected, strict=True):
        loaded.reset()
        loaded.update(fake, real=False)
        assert loaded.compute() == distance


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [101, 16, 5])
def test_ranks_share_every_image_once(world_size: int, count: int) -> None:
    shares = [list(rank_batches(count, 16, rank, world_size)) for rank in range(world_size)]
    assert sorted(batch for share in shares for batch in share) == list(rank_batches(count, 16))
    images = [image for _, start, stop in rank_batches(count, 16) for image in range(start, stop)]
    assert images == list(range(count))
    concatenated = torch.tensor([i for share in shares for _, start, stop in share for i in range(start, stop)])
    assert torch.equal(concatenated[image_order(count, 16, world_size)], torch.arange(count))


def test_two_shares_add_up_to_one() -> None:
    features = torch.randn(101, 6, generator=torch.Generator().manual_seed(2))
    other = torch.randn(101, 6, generator=torch.Generator().manual_seed(3))
    parts = []
    for rank in range(2):
        metric = FrechetDistance(Vectors(6))
        for _, start, stop in rank_batches(101, 8, rank, 2):
            metric.update(features[start:stop], real=True)
        parts.append(metric.real_statistics())
    total = FeatureStatistics(
        parts[0].features_sum + parts[1].features_sum,
        parts[0].features_cov_sum + parts[1].features_cov_sum,
        parts[0].num_samples + parts[1].num_samples,
    )
    metric = FrechetDistance(Vectors(6))
    metric.load_real_statistics(total)
    metric.update(other, real=False)
    assert float(metric.compute()) == pytest.approx(frechet_distance(features, other), rel=1e-9)


def test_a_missing_image_is_an_error() -> None:
    features = torch.randn(10, 2)
    with pytest.raises(RuntimeError, match="measured 10 images where 11"):
        gather_features(features, 11, 4)
    for real, fake in ((11, 10), (10, 11)):
        metric = FrechetDistance(Vectors(2), num_images=11)
        metric.update(torch.randn(real, 2), real=True)
        metric.update(torch.randn(fake, 2), real=False)
        with pytest.raises(RuntimeError, match="measured 10 images where 11"):
            metric.compute()


def test_kernel_distance_is_the_unbiased_estimator() -> None:
    rng = torch.Generator().manual_seed(4)
    real, fake = torch.randn(40, 5, generator=rng), torch.randn(40, 5, generator=rng) + 1

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a.double() @ b.double().T / 5 + 1) ** 3

    k_rr, k_ff, k_rf = kernel(real, real), kernel(fake, fake), kernel(real, fake)
    within = (k_rr.sum() - k_rr.trace() + k_ff.sum() - k_ff.trace()) / (40 * 39)
    expected = within - 2 * k_rf.mean()
    # A subset of all images is the whole set, whatever the permutation.
    assert kernel_distance(real, fake, subsets=3) == pytest.approx(expected.item(), rel=1e-4)


def test_inception_score_of_certain_and_of_uniform_classes() -> None:
    certain = 50 * torch.eye(8).repeat(100, 1)
    assert inception_score(certain, splits=1) == pytest.approx(8, rel=1e-3)
    assert inception_score(torch.zeros(100, 8)) == pytest.approx(1, rel=1e-5)


def test_scores_are_seeded_and_leave_the_random_state_alone() -> None:
    rng = torch.Generator().manual_seed(5)
    real, fake = torch.randn(90, 4, generator=rng), torch.randn(90, 4, generator=rng)
    before = torch.get_rng_state()
    distances = [kernel_distance(real, fake, subsets=2, subset_size=30, seed=seed) for seed in (0, 0, 1)]
    scores = [inception_score(fake, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(before, torch.get_rng_state())
    assert distances[0] == distances[1] != distances[2]
    assert scores[0] == scores[1] != scores[2]


def test_autocast_is_off_in_the_extractor() -> None:
    class Linear(Vectors):
        def forward(self, images: Tensor) -> Tensor:
            return images @ torch.eye(6)

    features = torch.randn(50, 6, generator=torch.Generator().manual_seed(6))
    metric = FrechetDistance(Linear(6))
    metric.update(features, real=True)
    with torch.autocast("cpu", torch.bfloat16):
        metric.update(features, real=False)
        assert float(metric.compute()) == pytest.approx(0, abs=1e-9)
    assert torch.equal(metric.real_features_cov_sum, metric.fake_features_cov_sum)


def test_subsets_of_the_kernel_distance_are_as_large_as_asked_and_as_there_are_images() -> None:
    rng = torch.Generator().manual_seed(7)
    real, fake = torch.randn(60, 4, generator=rng), torch.randn(40, 4, generator=rng) + 1
    assert kernel_distance(real, fake, subsets=2) == kernel_distance(real, fake, subsets=2, subset_size=40)
    assert kernel_distance(fake, real, subsets=2) == kernel_distance(fake, real, subsets=2, subset_size=40)
    assert kernel_distance(real, fake, subsets=2, subset_size=10) != kernel_distance(real, fake, subsets=2)
    means = [kernel_distance(real, fake, subsets=n, subset_size=10) for n in (1, 2, 400)]
    assert means[0] != means[1]
    assert means[2] == pytest.approx(kernel_distance(real, fake, subsets=50), rel=0.1)  # unbiased
    assert kernel_distance(real, fake, subsets=2, subset_size=10) == kernel_distance(
        real, fake, subsets=2, subset_size=10, seed=0
    )


def test_distances_are_not_rounded_to_float32() -> None:
    features = torch.randn(200, 4, generator=torch.Generator().manual_seed(8))
    distance = frechet_distance(features, features + 1)
    assert distance != float(torch.tensor(distance))


def test_the_protocol_is_a_hundred_subsets_and_ten_splits() -> None:
    rng = torch.Generator().manual_seed(9)
    real, fake = torch.randn(1010, 3, generator=rng), torch.randn(1010, 3, generator=rng)
    assert kernel_distance(real, fake, 3) == kernel_distance(real, fake, 3, 1000, 0)
    assert kernel_distance(real[:40], fake[:30]) == kernel_distance(real[:40], fake[:30], 100, 30, 0)
    assert kernel_distance(real[:40], fake[:30], 101) != kernel_distance(real[:40], fake[:30])
    assert inception_score(fake) == inception_score(fake, 10, 0)
    assert len({inception_score(fake), inception_score(fake, 11), inception_score(fake, 10, 1)}) == 3
