import logging
from pathlib import Path

import pytest
import torch

from gan_lightning.metrics import FeatureStatistics, StatisticsCache

DESCRIPTION = {"dataset": "faces", "split": "val", "crop": 178, "image_size": 64, "content": "ab12", "num_images": 10}


def make_statistics(with_features: bool = False) -> FeatureStatistics:
    features = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    doubled = features.double()
    return FeatureStatistics(
        doubled.sum(0), doubled.T @ doubled, torch.tensor(10), features.T.contiguous().T if with_features else None
    )


@pytest.mark.parametrize("with_features", [False, True])
def test_statistics_are_read_as_written(tmp_path: Path, with_features: bool) -> None:
    cache, written = StatisticsCache(tmp_path / "new" / "folder"), make_statistics(with_features)
    assert cache.load(DESCRIPTION) is None
    cache.save(DESCRIPTION, written)
    read = cache.load(dict(reversed(DESCRIPTION.items())))  # the order of the description is no part of it
    assert read is not None
    for name, tensor in vars(written).items():
        other = getattr(read, name)
        assert tensor is other is None or (torch.equal(tensor, other) and tensor.dtype == other.dtype)
    assert [path.suffix for path in (tmp_path / "new" / "folder").iterdir()] == [".safetensors"]


@pytest.mark.parametrize("changed", DESCRIPTION)
def test_every_entry_of_the_description_counts(tmp_path: Path, changed: str) -> None:
    cache = StatisticsCache(tmp_path)
    cache.save(DESCRIPTION, make_statistics())
    assert cache.load({**DESCRIPTION, changed: "other"}) is None


@pytest.mark.parametrize("damage", ["truncated", "empty", "rubbish", "of another", "one bit"])
def test_damage_is_detected_and_reported(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    cache, path = StatisticsCache(tmp_path), StatisticsCache(tmp_path).path(DESCRIPTION)
    cache.save(DESCRIPTION, make_statistics())
    whole = path.read_bytes()
    flipped = whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:]
    if damage == "of another":
        cache.save({**DESCRIPTION, "split": "train"}, make_statistics())
        cache.path({**DESCRIPTION, "split": "train"}).replace(path)
    else:
        path.write_bytes({"truncated": whole[:-8], "empty": b"", "rubbish": b"\xff" * 100, "one bit": flipped}[damage])
    with caplog.at_level(logging.WARNING):
        assert cache.load(DESCRIPTION) is None
    assert "damaged" in caplog.text
    assert str(path) in caplog.text


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    StatisticsCache(tmp_path / "file" / "folder").save(DESCRIPTION, make_statistics())
    assert "cannot keep" in caplog.text
