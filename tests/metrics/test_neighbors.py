"""Precision, recall, density and coverage against the definitions of their authors, written naively."""

import pytest
import torch

from gan_lightning.errors import InputError
from gan_lightning.metrics.memorization import memorization_distance, memorization_informed
from gan_lightning.metrics.neighbors import neighbor_metrics


def distances(first, second):
    """All distances at once, each from its own difference."""
    return (first.double()[:, None] - second.double()[None]).square().sum(2).sqrt()


def naive(real, fake, k_manifold, k_density):
    """Kynkaanniemi et al. 2019, equations 1 and 2; Naeem et al. 2020, equations 3 and 4; image by image."""

    def radii(features, k):
        return distances(features, features).sort(1).values[:, k]  # the 0-th neighbor is the image itself

    between = distances(real, fake)

    def inside(points_first, radius):  # is each of the points in at least one ball?
        return sum(any(d <= r for d, r in zip(row, radius, strict=True)) for row in points_first) / len(points_first)

    real_radii = radii(real, k_density)
    density = sum(float(between[i, j] < real_radii[i]) for i in range(len(real)) for j in range(len(fake)))
    return {
        "precision": inside(between.T, radii(real, k_manifold)),
        "recall": inside(between, radii(fake, k_manifold)),
        "density": density / (k_density * len(fake)),
        "coverage": sum(float(between[i].min() < real_radii[i]) for i in range(len(real))) / len(real),
    }


def draw(count, features, seed, scale=1.0):
    return torch.randn(count, features, generator=torch.Generator().manual_seed(seed)) * scale


@pytest.mark.parametrize(
    ("real", "fake"),
    [
        (draw(40, 3, 0), draw(33, 3, 1)),
        (draw(37, 16, 0), draw(52, 16, 1, 0.7)),  # modes that are missing
        (draw(37, 16, 0), draw(52, 16, 1, 1.5)),  # images that are none
        (draw(40, 3, 0) + 1000, draw(33, 3, 1) + 1000),  # far from the origin, where squares cancel
        (draw(40, 3, 0).round(), draw(33, 3, 1).round()),  # equal images, and many equal distances
    ],
)
@pytest.mark.parametrize("block", [7, 2048])
def test_neighbor_metrics_equal_the_definition(real, fake, block):
    assert neighbor_metrics(real, fake, block=block) == pytest.approx(naive(real, fake, 3, 5), abs=1e-12)
    assert neighbor_metrics(real, fake, neighbors=2, block=block) == pytest.approx(naive(real, fake, 2, 2), abs=1e-12)


def test_a_set_equals_itself():
    features = draw(60, 64, 0).float() + 5
    of_itself = neighbor_metrics(features, features.flip(0), block=16)
    assert of_itself == {"precision": 1, "recall": 1, "density": 1, "coverage": 1}


def test_an_image_that_is_repeated_is_precise_but_has_no_recall():
    real = draw(60, 8, 0)
    metrics = neighbor_metrics(real, real[:1].repeat(60, 1))
    assert metrics["precision"] == 1
    assert metrics["recall"] == pytest.approx(1 / 60)
    assert metrics["coverage"] < 0.2


def test_too_few_images_and_features_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match="5 images are too few for the 5 nearest neighbors"):
        neighbor_metrics(draw(5, 3, 0), draw(50, 3, 1))
    neighbor_metrics(draw(6, 3, 0), draw(6, 3, 1))
    broken = draw(20, 3, 0)
    broken[3, 1] = torch.nan
    for real, fake in ((broken, draw(20, 3, 1)), (draw(20, 3, 1), broken)):
        with pytest.raises(InputError, match="not finite"):
            neighbor_metrics(real, fake)


def test_mifid_equals_torchmetrics_with_the_sets_exchanged():
    """It averages over its first set, the authors over the generated images. The Frechet distance is symmetric."""
    from torchmetrics.image.mifid import MemorizationInformedFrechetInceptionDistance

    from gan_lightning.metrics.frechet import frechet_distance

    real, fake = draw(50, 6, 0) + 2, draw(40, 6, 1) + 2
    metric = MemorizationInformedFrechetInceptionDistance(torch.nn.Identity(), sync_on_compute=False)
    metric.update(fake.double(), real=True)
    metric.update(real.double(), real=False)
    memorization = memorization_distance(real, fake, block=16)
    assert 0 < memorization < 0.1
    distance = frechet_distance(real, fake)
    assert memorization_informed(distance, memorization) == pytest.approx(float(metric.compute()), rel=1e-6)
    assert memorization_informed(2.0, 0.2) == 2.0
    assert memorization_distance(real, real) == pytest.approx(0, abs=1e-12)


def test_each_metric_can_be_computed_alone():
    real, fake = draw(40, 4, 0), draw(30, 4, 1)
    for name, value in neighbor_metrics(real, fake).items():
        assert neighbor_metrics(real, fake, metrics=["fd", name]) == {name: value}
    neighbor_metrics(real, fake[:4], metrics=["recall"])
