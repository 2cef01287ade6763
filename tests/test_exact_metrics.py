"""Every metric is over exactly N images on one rank and on two, also if N is odd or 1."""

import json
from pathlib import Path

import pytest
import torch

from gan_lightning.images import write_png
from tests.processes import run_ranks

SCRIPT = Path(__file__).parent / "measure_on_ranks.py"
MEASURED = {
    13: {"val/fid", "val/kid", "val/is", "val/d_x", "val/latent_mse", "val/psnr", "test/psnr", "test/ssim"},
    1: {"val/d_x", "val/latent_mse", "val/psnr", "test/psnr", "test/ssim"},
}


def measure(folder, ranks, count):
    for result in run_ranks(SCRIPT, folder, ranks, count, ranks=ranks, environment={"OMP_NUM_THREADS": "1"}):
        assert result.returncode == 0, result.stderr
    return json.loads((folder / f"figures-{ranks}.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("count", [13, 1])
def test_two_ranks_measure_what_one_does(tmp_path, count):
    rng = torch.Generator().manual_seed(0)
    for row in range(3 * count):
        coarse = torch.rand(1, 3, 4, 4, generator=rng) * 2 - 1
        (image,) = torch.nn.functional.interpolate(coarse, (16, 16), mode="bilinear")
        write_png(tmp_path / "images" / f"{row}.png", image)
        if row < count:
            write_png(tmp_path / "photos" / f"{row:02d}.png", image)
    one, two = (measure(tmp_path, ranks, count) for ranks in (1, 2))
    assert MEASURED[count] <= one["figures"].keys()
    assert one["figures"]["test/images"] == count
    assert two["figures"] == pytest.approx(one["figures"], rel=1e-5)
    assert two["names"] == one["names"]
    assert len(one["names"]) == count
