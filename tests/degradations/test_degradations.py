"""Degradations against SciPy, torchvision and the adjoint identity."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter  # type: ignore[import-untyped,unused-ignore]
from torchvision.transforms.v2 import functional as TF

from gan_lightning.degradations import (
    Compose,
    Degradation,
    Downsample,
    FileMask,
    GaussianBlur,
    Grayscale,
    HalfMask,
    Identity,
    Mask,
    RandomMask,
    SquareMask,
    read_masks,
)
from gan_lightning.degradations.base import has_adjoint
from gan_lightning.errors import InputError

SIZE = 16


def images(batch: int = 2, channels: int = 3, size: int = SIZE, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


ALL: dict[str, Degradation] = {
    "identity": Identity(),
    "blur": GaussianBlur(1.3),
    "blur wider than the image": GaussianBlur(9.0),
    "square": SquareMask(SIZE, 6, top=1, left=9),
    "random": RandomMask(SIZE, 0.4, seed=3),
    "half": HalfMask(SIZE, "top"),
    "mask an image": Mask(torch.rand(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) > 0.5),
    "grayscale": Grayscale(),
    "area": Downsample(4),
    "bicubic": Downsample(2, "bicubic"),
    "compose": Compose([GaussianBlur(0.8), Grayscale(), Downsample(2), RandomMask(SIZE // 2, 0.3)]),
    "compose nothing": Compose([]),
}


@pytest.mark.parametrize("name", ALL)
def test_adjoint_identity(name: str) -> None:
    degradation = ALL[name].double()
    x = images()
    forward = degradation(x)
    v = torch.randn(forward.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    back = degradation.adjoint(v)
    assert back.shape == x.shape
    torch.testing.assert_close((forward * v).sum(), (x * back).sum())


@pytest.mark.parametrize("name", ALL)
def test_linear_and_differentiable(name: str) -> None:
    degradation = ALL[name].double()
    x, direction = images(), images(seed=5)
    tangent = torch.func.jvp(degradation, (x,), (direction,))[1]
    torch.testing.assert_close(tangent, degradation(direction))
    v = torch.ones_like(tangent)
    pull = torch.func.vjp(degradation, x)[1]
    torch.testing.assert_close(pull(v)[0], degradation.adjoint(v))


@pytest.mark.parametrize("name", ALL)
def test_images_of_a_batch_are_independent(name: str) -> None:
    degradation, x = ALL[name].double(), images()
    for row in range(2):
        alone = degradation.select(torch.tensor([row]))(x[row : row + 1])
        torch.testing.assert_close(alone, degradation(x)[row : row + 1])


@pytest.mark.parametrize("sigma", [0.4, 0.8, 2.0, 3.3])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_blur_matches_scipy(sigma: float, channels: int) -> None:
    x = images(channels=channels, size=32)
    expected = gaussian_filter(x.numpy(), sigma, mode="mirror", truncate=4.0, axes=(2, 3))
    np.testing.assert_allclose(GaussianBlur(sigma).double()(x).numpy(), expected, atol=1e-6)


def test_blur_preserves_constant_images_of_odd_sizes() -> None:
    flat = torch.full((1, 3, 7, 12), 0.3)
    torch.testing.assert_close(GaussianBlur(2.0)(flat), flat)


@pytest.mark.parametrize("factor", [2, 4])
def test_downsampling_matches_torchvision(factor: int) -> None:
    x = images(size=32).float()
    size = [32 // factor] * 2
    bicubic = TF.resize(x, size, interpolation=TF.InterpolationMode.BICUBIC, antialias=True)
    torch.testing.assert_close(Downsample(factor, "bicubic")(x), bicubic, atol=1e-5, rtol=1e-4)
    area = x.reshape(2, 3, 32 // factor, factor, 32 // factor, factor).mean((3, 5))
    torch.testing.assert_close(Downsample(factor)(x), area)


def test_grayscale_matches_pillow() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    ours = Grayscale()(torch.from_numpy(pixels).permute(2, 0, 1)[None].float())[0, 0]
    assert (
        np.abs(ours.numpy() - np.asarray(Image.fromarray(pixels).convert("L"), dtype=float)).max() <= 0.51
    )  # it rounds
    single = images(channels=1)
    torch.testing.assert_close(Grayscale(1).double()(single), single)


def test_masks_hide_the_requested_pixels() -> None:
    ones = torch.ones(1, 3, SIZE, SIZE)
    assert (SquareMask(SIZE, 8)(ones) == 0).sum() == 3 * 64
    assert SquareMask(SIZE, 8)(ones)[0, 0, 4:12, 4:12].sum() == 0
    assert (RandomMask(SIZE, 0.25)(ones)[0, 0] == 0).sum() == 64
    assert torch.equal(RandomMask(SIZE, 0.25, seed=1).mask, RandomMask(SIZE, 0.25, seed=1).mask)
    assert HalfMask(SIZE, "left")(ones)[0, 0, :, : SIZE // 2].sum() == 0
    assert HalfMask(SIZE, "bottom")(ones)[0, 0, SIZE // 2 :].sum() == 0


def test_masks_from_files(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b")):
        pixels = np.full((SIZE, SIZE), 255, dtype=np.uint8)
        pixels[number] = 0
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    clear = Image.new("RGBA", (SIZE, SIZE), (9, 9, 9, 255))
    clear.putpixel((3, 2), (9, 9, 9, 0))
    clear.save(tmp_path / "alpha.png")
    masks = read_masks(tmp_path, ["b.jpg", "a.jpg"], SIZE).mask
    assert masks[0, 0, 1].sum() == 0
    assert masks[1, 0, 0].sum() == 0
    hole = FileMask(tmp_path / "alpha.png", SIZE).mask
    assert hole[0, 0, 2, 3] == 0
    assert hole.sum() == SIZE**2 - 1
    with pytest.raises(InputError, match=r"no mask for c\.jpg"):
        read_masks(tmp_path, ["a.jpg", "c.jpg"], SIZE)
    with pytest.raises(InputError, match="16x16 pixels: it must have the size of the images, 32x32"):
        FileMask(tmp_path / "a.png", 32)
    (tmp_path / "broken.png").write_text("no image")
    with pytest.raises(InputError, match="cannot be read"):
        FileMask(tmp_path / "broken.png", SIZE)


def test_a_composition_has_the_mask_of_its_last_part() -> None:
    mask = RandomMask(SIZE, 0.3)
    composed = Compose([GaussianBlur(1.0), mask])
    known = composed.known(composed(images()))
    assert known is not None
    assert torch.equal(known, mask.mask)
    assert Compose([mask, GaussianBlur(1.0)]).known(images()) is None
    assert Compose([]).known(images()) is None


def test_each_image_can_have_its_own_blur() -> None:
    sigmas = [0.6, 2.0]
    blur, x = GaussianBlur(sigmas), images()
    expected = torch.cat([GaussianBlur(sigma)(x[row : row + 1]) for row, sigma in enumerate(sigmas)])
    torch.testing.assert_close(blur(x), expected)
    torch.testing.assert_close(blur.select(torch.tensor([1]))(x[1:]), expected[1:])


def test_has_adjoint() -> None:
    class Halved(Degradation):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images / 2

    assert all(map(has_adjoint, ALL.values()))
    assert not any(map(has_adjoint, [Halved(), Compose([Identity(), Halved()]), torch.nn.Identity()]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianBlur(0.0), "sigma is 0"),
        (lambda: GaussianBlur(float("nan")), "sigma is nan"),
        (lambda: GaussianBlur(17.0)(images()), "must not exceed the image's side of 16"),
        (lambda: GaussianBlur([1.0, 2.0, 3.0])(images()), "got 3 sigmas for 2"),
        (lambda: Compose([GaussianBlur(1.0), torch.nn.Identity()]), "Identity is not a Degradation"),  # type: ignore[list-item]
        (lambda: Downsample(float("inf")), "factor is inf"),  # type: ignore[arg-type]
        (lambda: Downsample(float("nan")), "factor is nan"),  # type: ignore[arg-type]
        (lambda: Downsample(1), "factor is 1"),
        (lambda: Downsample(2, "nearest"), "area or bicubic"),  # type: ignore[arg-type]
        (lambda: Downsample(3)(images()), "does not divide"),
        (lambda: Grayscale()(images(channels=1)), "set channels to 1"),
        (lambda: Grayscale(0), "channels is 0"),
        (lambda: Mask(torch.zeros(4, 4)), "no pixel known"),
        (lambda: Mask(torch.stack([torch.ones(1, 4, 4), torch.zeros(1, 4, 4)])), "no pixel known"),
        (lambda: Mask(torch.ones(3, 4, 4)), "not supported"),
        (lambda: SquareMask(8, 2)(images()), "of 8x8 pixels for"),
        (lambda: Mask(torch.ones(3, 1, SIZE, SIZE))(images()), r"3 mask\(s\)"),
        (lambda: SquareMask(8, 6, top=4), "does not lie inside"),
        (lambda: SquareMask(8, 8), "no pixel known"),
        (lambda: RandomMask(8, 1.0), "fraction is 1"),
        (lambda: HalfMask(8, "front"), "left, right, top or bottom"),  # type: ignore[arg-type]
    ],
)
def test_invalid_arguments_raise_one_line_errors(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("missing", "hidden"),
    [
        ("left", (slice(None), slice(0, 7))),
        ("right", (slice(None), slice(7, 15))),
        ("top", (slice(0, 7), slice(None))),
        ("bottom", (slice(7, 15), slice(None))),
    ],
)
def test_half_masks_hide_their_half(
    missing: Literal["left", "right", "top", "bottom"], hidden: tuple[slice, ...]
) -> None:
    expected = torch.ones(15, 15)
    expected[hidden] = 0
    assert torch.equal(HalfMask(15, missing).mask[0, 0], expected)
    assert torch.equal(HalfMask(15).mask, HalfMask(15, "right").mask)


def test_square_masks_lie_where_they_are_placed() -> None:
    expected = torch.ones(SIZE, SIZE)
    expected[2:5, 9:12] = 0
    assert torch.equal(SquareMask(SIZE, 3, top=2, left=9).mask[0, 0], expected)
    assert (SquareMask(SIZE).mask == 0).sum() == 64  # eight pixels a side unless given
    assert (SquareMask(SIZE, 1).mask == 0).sum() == 1
    with pytest.raises(InputError, match=r"at \(12, 3\) does not lie inside 16"):
        SquareMask(SIZE, 6, top=12, left=3)
    for place in ({"top": -1}, {"left": -2}):
        with pytest.raises(InputError, match="does not lie inside"):
            SquareMask(SIZE, 4, **place)
    with pytest.raises(InputError, match="does not lie inside"):
        SquareMask(SIZE, 0)


def test_random_masks_are_of_their_seed() -> None:
    masks = [RandomMask(SIZE, 0.5, *seed).mask for seed in ((), (0,), (1,))]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    with pytest.raises(InputError, match="fraction is 0"):
        RandomMask(SIZE, 0.0)


def test_a_mask_file_is_white_above_the_middle_gray(tmp_path: Path) -> None:
    soft = np.arange(100, 156)  # the edges of a brush; shades everywhere would be those of a photograph
    levels = np.concatenate([np.zeros(100), soft, np.full(100, 255)]).astype(np.uint8).reshape(SIZE, SIZE)
    Image.fromarray(levels).save(tmp_path / "gray.png")
    Image.fromarray(np.stack([levels] * 3, axis=2)).save(tmp_path / "color.png")
    for name in ("gray.png", "color.png"):
        assert torch.equal(
            FileMask(tmp_path / name, SIZE).mask.flatten(), torch.from_numpy(levels.flatten() > 127).float()
        )


def test_a_composition_selects_from_all_of_its_parts() -> None:
    blur, mask = GaussianBlur([0.6, 2.0]), Mask(torch.eye(SIZE)[None, None].repeat(2, 1, 1, 1))
    rows = torch.tensor([1])
    for composed in (Compose([blur, Grayscale(), mask]), Compose([Grayscale(), mask, blur])):
        x = images().float()
        torch.testing.assert_close(composed.select(rows)(x[rows]), composed(x)[rows])
    shared = Compose([GaussianBlur(1.0), Grayscale()])
    assert shared.select(rows) is shared


def test_what_is_known_of_a_composition_of_three() -> None:
    masks = [RandomMask(SIZE, 0.3, seed) for seed in range(3)]
    known = Compose(masks).known(images())
    assert known is not None
    assert torch.equal(known, masks[2].mask)


def test_grayscale_averages_other_channels_and_names_mistakes() -> None:
    x = images(channels=4)
    torch.testing.assert_close(Grayscale(4).double()(x), x.mean(1, keepdim=True))
    assert not Grayscale().state_dict()  # it is a constant, and in no checkpoint
    with pytest.raises(InputError, match=r"Grayscale\(channels=3\) got images with 4 channels: set channels to 4"):
        Grayscale()(x)
    luma = Grayscale()(torch.eye(3).reshape(3, 3, 1, 1).double())
    assert luma.flatten().tolist() == pytest.approx([0.299, 0.587, 0.114])
    assert luma.dtype == torch.float64


@pytest.mark.parametrize("degradation", [GaussianBlur(1.3), Downsample(4), Downsample(2, "bicubic")], ids=type)
def test_sides_may_differ(degradation: Degradation) -> None:
    x = torch.randn(1, 2, 12, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    forward = degradation.double()(x)
    v = torch.randn(forward.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close((forward * v).sum(), (x * degradation.adjoint(v)).sum())


def test_masks_of_numbers_are_known_from_a_half_on_and_in_no_checkpoint() -> None:
    mask = Mask(torch.tensor([[0.0, 0.49], [0.5, 1.0]]))
    assert mask.mask.tolist() == [[[[0, 0], [1, 1]]]]
    assert not mask.state_dict()
    assert Mask(torch.ones(1, 2, 2) > 0).mask.shape == (1, 1, 2, 2)
    with pytest.raises(InputError, match=r"a mask of shape \(1, 1, 1, 2, 2\) is not supported"):
        Mask(torch.ones(1, 1, 1, 2, 2))
    with pytest.raises(InputError, match=r"1 mask\(s\) of 2x2 pixels for 3 image\(s\) of 2x4: pass one mask"):
        mask(torch.zeros(3, 3, 2, 4))
    assert mask(torch.zeros(3, 3, 2, 2, dtype=torch.float64)).dtype == torch.float64
