"""The search for the nearest training images."""

import pytest
import torch

from gan_lightning.metrics import nearest_images as module
from gan_lightning.metrics.extractors import RandomFeatures
from gan_lightning.metrics.nearest_images import nearest_images


class Memory:
    def __init__(self, pixels):
        self.pixels = pixels

    def __len__(self):
        return len(self.pixels)

    def read(self, positions):
        return self.pixels[positions]


@pytest.fixture
def images():
    return Memory(torch.randint(256, (37, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))


def test_the_search_finds_what_all_distances_say(images, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 10)
    queries = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    extractor = RandomFeatures()
    found = nearest_images(queries, images, extractor, 5)
    distances = torch.cdist(extractor(queries), extractor(images.pixels))
    expected = distances.sort(dim=1)
    assert torch.equal(found.positions, expected.indices[:, :5])
    torch.testing.assert_close(found.distances, expected.values[:, :5], rtol=1e-3, atol=1e-4)
    assert not found.mirrored.any()
    assert torch.equal(found.read(images), images.pixels[expected.indices[:, :5]])


def test_copies_are_found_and_mirrored_ones_only_if_asked(images):
    queries = torch.stack([images.pixels[11], images.pixels[30].flip(-1)])
    plain = nearest_images(queries, images, RandomFeatures(), 1)
    mirrored = nearest_images(queries, images, RandomFeatures(), 1, mirror=True)
    assert plain.distances[0] < 1e-2 < plain.distances[1]
    assert mirrored.positions.flatten().tolist() == [11, 30]
    assert mirrored.mirrored.flatten().tolist() == [False, True]
    assert (mirrored.distances < 1e-2).all()
    assert torch.equal(mirrored.read(images)[:, 0], queries)


def test_no_more_images_are_found_than_there_are(images):
    assert nearest_images(images.pixels[:2], images, RandomFeatures(), 100).positions.shape == (2, 37)
