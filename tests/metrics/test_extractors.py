import pickle
import socket
import time
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from gan_lightning.errors import InputError
from gan_lightning.metrics import FrechetDistance, InceptionFeatures, RandomFeatures
from gan_lightning.metrics.extractors import (
    check_inception_weights,
    download_inception_weights,
    inception_weights_path,
)

PINNED_SUM = 640.635
PINNED_FEATURES = [2.02898, 1.30766, 0.751345]


def ellipses(count: int, seed: int, size: int = 64) -> Tensor:
    """Images of soft ellipses with shading, laid out like eyes and a mouth on an oval: (N,3,size,size) uint8."""
    rng = np.random.default_rng(seed)
    y, x = (np.mgrid[0:size, 0:size] + 0.5) / size - 0.5
    colors = rng.random((count, 6, 3, 1, 1))
    shades = 1 + 0.4 * (rng.normal(size=(count, 2, 3, 1, 1)) * np.stack([x, y])[None, :, None]).sum(1)
    images = colors[:, 0] * shades
    layout = [(0, 0, 0.3, 0.4), (-0.12, -0.08, 0.05, 0.03), (0.12, -0.08, 0.05, 0.03), (0, 0.18, 0.1, 0.03)]
    for part, (center_x, center_y, width, height) in enumerate(layout):
        jitter = rng.normal(scale=0.02, size=(count, 4, 1, 1, 1))
        squared = ((x - center_x - jitter[:, 0]) / (width + 0.3 * jitter[:, 2])) ** 2
        squared = squared + ((y - center_y - jitter[:, 1]) / (height + 0.3 * jitter[:, 3])) ** 2
        inside = 1 / (1 + np.exp(np.clip(12 * (squared - 1), -50, 50)))
        images = images * (1 - inside) + colors[:, part + 1] * shades * inside
    images += rng.normal(scale=0.015, size=images.shape)
    return torch.from_numpy((images.clip(0, 1) * 255).round().astype(np.uint8))


def blurred(images: Tensor, sigma: float) -> Tensor:
    smooth = gaussian_filter(images.numpy().astype(np.float32), (0, 0, sigma, sigma))
    return torch.from_numpy(smooth.round().astype(np.uint8))


@pytest.fixture(scope="module")
def real() -> tuple[Tensor, Tensor]:
    images = ellipses(1400, seed=0)
    return images[:700], images[700:]


def test_weights_of_this_name_never_change() -> None:
    """Statistics on disk are found by name: other weights need another name."""
    ramp = (torch.arange(3 * 64 * 64) * 7 % 256).to(torch.uint8).view(1, 3, 64, 64)
    features = RandomFeatures()(ramp)[0]
    assert RandomFeatures.name == "random-v1"
    assert features.sum().item() == pytest.approx(PINNED_SUM, rel=1e-4)
    assert features[[0, 100, 479]].tolist() == pytest.approx(PINNED_FEATURES, rel=1e-3)


def test_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    RandomFeatures()
    assert torch.equal(before, torch.get_rng_state())


def test_gray_equals_its_rgb_copy_and_any_size_is_accepted() -> None:
    images = ellipses(4, seed=1)[:, :1]
    extractor = RandomFeatures()
    torch.testing.assert_close(extractor(images), extractor(images.repeat(1, 3, 1, 1)))
    enlarged = images.repeat_interleave(2, 2).repeat_interleave(2, 3)  # bilinear halving undoes it exactly
    torch.testing.assert_close(extractor(images), extractor(enlarged))
    assert extractor(images[:, :, :16, :16]).shape == (4, extractor.num_features)


def test_floats_are_refused() -> None:
    with pytest.raises(TypeError, match="to_uint8"):
        RandomFeatures()(torch.zeros(1, 3, 64, 64))


def test_distance_orders_images_as_the_eye_does(real: tuple[Tensor, Tensor]) -> None:
    train, val = real
    rng = torch.Generator().manual_seed(0)
    metric = FrechetDistance(RandomFeatures())
    for batch in train.split(100):
        metric.update(batch, real=True)

    def distance(images: Tensor) -> float:
        metric.reset()
        for batch in images.split(100):
            metric.update(batch, real=False)
        return float(metric.compute())

    floor = distance(val)
    blurs = [distance(blurred(val, sigma)) for sigma in (0.7, 1, 2, 4)]
    noise = torch.randn(val.shape, generator=rng)
    noisy = [distance((val + level * noise).clamp(0, 255).to(torch.uint8)) for level in (10, 40)]
    uniform = distance(torch.randint(0, 256, val.shape, dtype=torch.uint8, generator=rng))
    grey = distance((127 + 4 * noise).to(torch.uint8))  # what an untrained generator draws
    few_modes = distance(val[:25].repeat(28, 1, 1, 1))
    upside_down = distance(val.flip(2))

    assert blurs == sorted(blurs)
    assert noisy == sorted(noisy)
    assert floor < min(*blurs, *noisy, few_modes, upside_down)
    assert upside_down > 1.2 * floor
    assert few_modes > 5 * floor
    assert min(uniform, grey) > 50 * floor
    assert min(uniform, grey) > 5 * blurs[-1]  # as a trained generator must be from an untrained one


@pytest.mark.parametrize("given", [None, "there.pth"])
def test_missing_inception_weights_are_one_clear_line(
    given: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = inception_weights_path(given and str(tmp_path / given))
    started = time.monotonic()
    with pytest.raises(InputError, match="extractor: random") as caught:
        InceptionFeatures(path)
    assert time.monotonic() - started < 5  # no network was tried
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_failed_download_is_one_clear_line_and_a_file_is_not_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts = []

    def unreachable(*args: object, **settings: object) -> None:
        timeouts.append(socket.getdefaulttimeout())
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    path = tmp_path / "new" / "weights.pth"
    with pytest.raises(InputError, match=r"no route to host.*put it at") as caught:
        download_inception_weights(path, timeout=3)
    assert "\n" not in str(caught.value)
    assert (timeouts, socket.getdefaulttimeout()) == ([3], None)  # no hang, and others' sockets as they were
    path.touch()
    download_inception_weights(path)
    assert len(timeouts) == 1


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, (f"open({str(self.path)!r}, 'w').close()",)


def test_another_file_is_refused_and_never_unpickled(tmp_path: Path) -> None:
    weights, proof = tmp_path / "weights-inception-2015-12-05-6726825d.pth", tmp_path / "executed"
    torch.save({"fc.weight": Payload(proof)}, weights)
    with pytest.raises(InputError, match="not the published"):
        InceptionFeatures(weights)
    weights.write_bytes(pickle.dumps(Payload(proof)))
    with pytest.raises(InputError, match="not the published"):
        check_inception_weights(weights)
    assert not proof.exists()


def test_inception_is_the_network_of_torchmetrics_fid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With any weights: same features as FrechetInceptionDistance(2048, antialias=False), gray repeated."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torchmetrics.image.fid import FrechetInceptionDistance

    def load(self: torch.nn.Module, state: object) -> None: ...

    weights = tmp_path / "any.pth"
    torch.save({}, weights)
    monkeypatch.setattr(FeatureExtractorInceptionV3, "load_state_dict", load)
    monkeypatch.setattr("gan_lightning.metrics.extractors.check_inception_weights", lambda path: None)
    before = torch.get_rng_state()
    extractor = InceptionFeatures(weights)
    assert torch.equal(before, torch.get_rng_state())
    reference = FrechetInceptionDistance(2048, feature_extractor_weights_path=str(weights), antialias=False)
    monkeypatch.undo()
    reference.inception.load_state_dict(extractor.network.state_dict())
    images = ellipses(2, seed=3)
    with torch.no_grad():
        features = extractor(images)
        assert features.shape == (2, extractor.num_features)
        assert torch.equal(features, reference.inception(images))
        assert torch.equal(extractor(images[:, :1]), reference.inception(images[:, :1].repeat(1, 3, 1, 1)))
        assert extractor.class_logits(features).shape == (2, 1008)
    assert not extractor.train().network.training  # batch norm stays as it was published
