"""Degrade, invert, measure: the module around `invert`."""

import copy
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning import Callback, LightningDataModule, Trainer
from PIL import Image
from torch.utils.data import DataLoader
from yaml import safe_load

from gan_lightning import SyntheticFaces
from gan_lightning.data.photos import photo_loader
from gan_lightning.degradations import Downsample, GaussianBlur, GaussianNoise, Grayscale, Identity, Mask, SquareMask
from gan_lightning.errors import InputError
from gan_lightning.images import to_uint8
from gan_lightning.inversion import InversionSettings, invert
from gan_lightning.inversion.data_consistency import linear_estimate
from gan_lightning.modules.masking import ImageMasks
from gan_lightning.modules.restoration import LatentRestoration
from gan_lightning.networks.dcgan import Generator
from tests.conftest import FACES

pytestmark = pytest.mark.usefixtures("undrawn_figures")

CONFIGS = Path(__file__).parent.parent.parent / "configs"
SIZE, LATENT, COUNT = 16, 6, 5
QUICK = InversionSettings(solver="adam", num_searches=2, num_steps=8, start="random", refine_steps=4, noise_level=0.0)


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(3)
    network = Generator(SIZE, latent_dim=LATENT, base_channels=4).eval()
    for parameter in network.parameters():  # as drawn, its images are all but gray
        parameter.data *= 4
    return network


@pytest.fixture(scope="module")
def checkpoint(generator, tmp_path_factory):
    path = tmp_path_factory.mktemp("generator") / "generator.pt"
    torch.save(generator.state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def images(generator):
    with torch.no_grad():
        return generator(torch.randn(COUNT, LATENT, generator=torch.Generator().manual_seed(0)))


class Collect(Callback):
    """Keeps the outputs of the steps."""

    def __init__(self):
        self.outputs = []

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.outputs.append(outputs)


def loader(images, batch_size=COUNT):
    items = [{"image": image, "index": torch.tensor(row)} for row, image in enumerate(images)]
    return DataLoader(items, batch_size=batch_size)


def run_test(module, images, tmp_path, batch_size=COUNT):
    collect = Collect()
    trainer = quiet_trainer(tmp_path, collect)
    (metrics,) = trainer.test(module, loader(images, batch_size), verbose=False)
    return metrics, [output for output in collect.outputs if output is not None]


def quiet_trainer(tmp_path, *callbacks, folder=None):
    """A trainer with a new folder, in which no image is finished."""
    return Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=folder or tempfile.mkdtemp(dir=tmp_path),
    )


def test_a_test_step_is_degrade_invert_and_measure(generator, checkpoint, images, tmp_path):
    noise = GaussianNoise(0.05, seed=2)
    module = LatentRestoration(checkpoint, GaussianBlur(1.0), noise, seed=5, inversion=QUICK)
    metrics, (output,) = run_test(module, images, tmp_path)
    observed = noise(GaussianBlur(1.0)(images), range(COUNT))
    assert torch.equal(output.degraded, observed)
    rng = torch.Generator().manual_seed(5)
    expected = invert(generator, GaussianBlur(1.0), observed, QUICK, rng=rng, indices=range(COUNT))
    assert torch.allclose(output.restored, expected.image, atol=1e-6)
    mse = ((expected.image - images) / 2).square().flatten(1).mean(1)
    assert metrics["test/mse"] == pytest.approx(float(mse.mean()), rel=1e-4)
    assert metrics["test/mse_worst"] == pytest.approx(float(mse.max()), rel=1e-4)
    degraded = ((observed.clamp(-1, 1) - images) / 2).square().mean()
    assert metrics["test/mse_degraded"] == pytest.approx(float(degraded), rel=1e-4)
    assert metrics["test/images"] == COUNT


def test_results_do_not_depend_on_batches(checkpoint, images, tmp_path):
    options = {"inversion": replace(QUICK, noise_level=0.05), "noise": GaussianNoise(0.05)}
    together, (whole,) = run_test(LatentRestoration(checkpoint, **options), images, tmp_path)
    apart, parts = run_test(LatentRestoration(checkpoint, **options), images, tmp_path, batch_size=2)
    assert torch.allclose(torch.cat([part.restored for part in parts]), whole.restored, atol=1e-4)
    assert [name for part in parts for name in part.names] == whole.names
    assert apart["test/psnr"] == pytest.approx(together["test/psnr"], abs=1e-2)


def test_the_generator_stays_as_it_is(checkpoint, images, tmp_path):
    module = LatentRestoration(checkpoint, SquareMask(SIZE, 4), inversion=QUICK)
    before = copy.deepcopy(module.generator.state_dict())
    run_test(module, images, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in module.generator.state_dict().items())
    assert not module.generator.training


def test_known_pixels_are_kept_unless_composite_is_off(checkpoint, images, tmp_path):
    hole = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    hole[6:10, 6:10] = True
    metrics, (output,) = run_test(LatentRestoration(checkpoint, SquareMask(SIZE, 4), inversion=QUICK), images, tmp_path)
    assert torch.allclose(output.restored[..., ~hole], images[..., ~hole], atol=1e-3)
    assert metrics["test/mse_hole"] == pytest.approx(metrics["test/mse"] * SIZE**2 / 16, rel=1e-3)
    module = LatentRestoration(checkpoint, SquareMask(SIZE, 4), inversion=replace(QUICK, composite=False))
    _, (output,) = run_test(module, images, tmp_path)
    assert not torch.allclose(output.restored[..., ~hole], images[..., ~hole], atol=1e-2)


@pytest.mark.parametrize("degradation", [Grayscale(), Downsample(4), Identity()], ids=lambda d: type(d).__name__)
def test_each_kind_of_degradation_runs_and_is_compared_with_its_input(degradation, checkpoint, images, tmp_path):
    metrics, (output,) = run_test(LatentRestoration(checkpoint, degradation, inversion=QUICK), images, tmp_path)
    assert torch.allclose(output.degraded, degradation(images))
    for name in ("l1", "mse", "psnr", "ssim"):
        assert {f"test/{name}", f"test/{name}_median", f"test/{name}_worst", f"test/{name}_degraded"} <= metrics.keys()


def test_finished_images_are_skipped_but_counted(checkpoint, images, tmp_path):
    whole, _ = run_test(LatentRestoration(checkpoint, inversion=QUICK), images, tmp_path)
    (folder,) = tmp_path.iterdir()
    for name in ("000000", "000002", "000004"):
        (folder / "records" / f"{name}.safetensors").unlink()
    module, collect = LatentRestoration(checkpoint, inversion=QUICK), Collect()
    (metrics,) = quiet_trainer(tmp_path, collect, folder=folder).test(module, loader(images), verbose=False)
    (output,) = collect.outputs
    assert output.names == ["000000", "000002", "000004"]
    for name in ("test/images", "test/psnr", "test/mse_worst"):
        assert metrics[name] == pytest.approx(whole[name], rel=1e-5)


def test_settings_tell_runs_apart(checkpoint):
    settings = LatentRestoration(checkpoint, GaussianBlur(1.0), inversion=QUICK).restorer.settings()
    assert settings == LatentRestoration(checkpoint, GaussianBlur(1.0), inversion=QUICK).restorer.settings()
    assert settings != LatentRestoration(checkpoint, GaussianBlur(1.5), inversion=QUICK).restorer.settings()
    assert (
        settings
        != LatentRestoration(checkpoint, GaussianBlur(1.0), GaussianNoise(0.1), inversion=QUICK).restorer.settings()
    )
    assert (
        settings
        != LatentRestoration(checkpoint, GaussianBlur(1.0), inversion=replace(QUICK, num_steps=9)).restorer.settings()
    )
    masks = [
        LatentRestoration(checkpoint, SquareMask(SIZE, 4, top=top), inversion=QUICK).restorer.settings()
        for top in (0, 1)
    ]
    assert masks[0] != masks[1]
    keeping = LatentRestoration(checkpoint, GaussianBlur(1.0), inversion=QUICK, keep_searches=True)
    assert settings != keeping.restorer.settings()


def save_photos(folder, images, holes=()):
    folder.mkdir(exist_ok=True)
    for row, image in enumerate(images):
        pixels = to_uint8(image).permute(1, 2, 0)
        alpha = torch.full_like(pixels[..., :1], 255)
        for hole in holes:
            alpha[hole] = 0
        rgba = torch.cat([pixels, alpha], -1).numpy()
        Image.fromarray(rgba if holes else rgba[..., :3].copy()).save(folder / f"photo{row}.png")


def run_predict(module, folder, tmp_path):
    photos = photo_loader(folder, module.photo_format, batch_size=2)
    return quiet_trainer(tmp_path).predict(module, photos)


def test_photographs_are_taken_as_they_are(generator, checkpoint, images, tmp_path):
    blurred = GaussianBlur(1.0)(images)
    save_photos(tmp_path / "photos", blurred)
    first, *rest = run_predict(
        LatentRestoration(checkpoint, GaussianBlur(1.0), inversion=QUICK), tmp_path / "photos", tmp_path
    )
    assert first.names == ["000000-photo0", "000001-photo1"]
    assert sum(len(part.names) for part in rest) == COUNT - 2
    assert first.target is None
    assert (first.degraded - blurred[:2]).abs().max() <= 1 / 255 + 1e-6


def test_transparent_pixels_are_the_ones_restored(checkpoint, images, tmp_path):
    save_photos(tmp_path / "photos", images, holes=[(slice(2, 6), slice(3, 9))])
    first, *_ = run_predict(
        LatentRestoration(checkpoint, masks="alpha", inversion=QUICK), tmp_path / "photos", tmp_path
    )
    hole = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    hole[2:6, 3:9] = True
    assert torch.allclose(first.restored[..., ~hole], first.degraded[..., ~hole], atol=1e-3)
    assert not torch.allclose(first.restored[..., hole], first.degraded[..., hole], atol=1e-2)


def test_masks_of_a_folder_are_found_by_name(checkpoint, images, tmp_path):
    save_photos(tmp_path / "photos", images)
    (tmp_path / "masks").mkdir()
    for row in range(COUNT):
        mask = Image.new("L", (SIZE, SIZE), 255)
        mask.paste(0, (row, 0, row + 4, 4))
        mask.save(tmp_path / "masks" / f"photo{row}.png")
    module = LatentRestoration(checkpoint, masks=str(tmp_path / "masks"), inversion=QUICK)
    _, second, _ = run_predict(module, tmp_path / "photos", tmp_path)
    changed = (second.restored - second.degraded).abs().amax((0, 1)) > 2e-3  # the holes of photos 2 and 3
    assert changed[:4, 2:7].all()
    assert changed.sum() == 20
    (tmp_path / "masks" / "photo4.png").unlink()
    with pytest.raises(InputError, match="no mask for photo4"):
        run_predict(module, tmp_path / "photos", tmp_path)


def test_masks_of_a_folder_in_test_are_checked_before_any_work(checkpoint, faces_root, tmp_path):
    data = SyntheticFaces(str(faces_root), count=FACES, image_size=SIZE, eval_batch_size=4)
    data.prepare_data()
    data.setup()
    names = [Path(data.read_files().names[row]).stem for row in data.dataset("test").rows]
    (tmp_path / "masks").mkdir()
    for row, name in enumerate(names):
        mask = Image.new("L", (SIZE, SIZE), 255)
        mask.paste(0, (0, row % 8, 4, row % 8 + 4))
        mask.save(tmp_path / "masks" / f"{name}.png")
    module, collect = LatentRestoration(checkpoint, masks=str(tmp_path / "masks"), inversion=QUICK), Collect()
    quiet_trainer(tmp_path, collect).test(module, datamodule=data, verbose=False)
    for batch, output in enumerate(collect.outputs):
        for place, degraded in enumerate(output.degraded):
            top = (4 * batch + place) % 8
            assert (degraded[:, top : top + 4, :4] == 0).all()
            assert torch.equal(degraded[:, :, 4:], output.target[place][:, :, 4:])
    before = module.restorer.settings()
    (tmp_path / "masks" / f"{names[-1]}.png").unlink()
    assert module.restorer.settings() != before
    collect.outputs.clear()
    with pytest.raises(InputError, match=f"no mask for .*{names[-1]}"):
        quiet_trainer(tmp_path, collect).test(module, datamodule=data, verbose=False)
    assert not collect.outputs
    with pytest.raises(InputError, match="give test a data module that reads files"):
        run_test(module, torch.zeros(1, 3, SIZE, SIZE), tmp_path)


def test_blind_deblurring_estimates_the_blur(checkpoint, images, tmp_path):
    module = LatentRestoration(checkpoint, GaussianBlur(1.2), blind_blur=True, inversion=QUICK)
    _, (output,) = run_test(module, images[:2], tmp_path)
    assert output.metrics["blur_sigma"].shape == (2,)
    assert output.blur.residuals.shape[1] == 2
    assert torch.allclose(output.degraded, GaussianBlur(1.2)(images[:2]), atol=1e-6)


def test_a_blur_of_each_image_is_that_of_single_images_to_the_last_bit(images):
    sigmas = [0.5, 1.0, 2.0, 0.8, 1.5]
    blur = GaussianBlur(sigmas)
    expected = torch.cat([GaussianBlur(sigma)(image[None]) for sigma, image in zip(sigmas, images, strict=True)])
    assert torch.allclose(blur(images), expected, atol=1e-6)
    assert torch.allclose(blur.select(torch.tensor([3, 1]))(images[[3, 1]]), expected[[3, 1]], atol=1e-6)
    for size in (16, 64):
        alone = torch.cat([GaussianBlur(sigma).matrix(size, images) for sigma in sigmas])
        assert torch.equal(blur.matrix(size, images), alone)
    values = torch.randn_like(images)
    assert torch.allclose((blur(images) * values).sum(), (images * blur.adjoint(values)).sum(), atol=1e-3)


@pytest.fixture
def unexplained(images):
    """The same images, of which two are too rough for any search."""
    rough = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2)).round() * 2 - 1
    return torch.cat([rough[:1], images[1:4], rough[1:]])


def test_several_searches_pass_on_their_spread_and_solutions_from_the_likeliest_on(
    generator, checkpoint, images, tmp_path
):
    settings = replace(QUICK, num_searches=3)
    module = LatentRestoration(checkpoint, Downsample(4), inversion=settings, keep_searches=True)
    metrics, (output,) = run_test(module, images, tmp_path)
    expected = invert(generator, Downsample(4), Downsample(4)(images), settings)
    assert torch.allclose(output.spread, expected.spread, atol=1e-5)
    assert torch.allclose(output.metrics["spread"], expected.spread.mean((1, 2, 3)), atol=1e-5)
    weights, order = expected.weights.sort(1, descending=True)
    assert not torch.equal(order, torch.arange(3).expand(COUNT, 3))
    for row in range(COUNT):
        assert torch.allclose(output.solutions[row], expected.solutions[row][order[row]], atol=1e-4)
    mean = (weights[..., None, None, None] * output.solutions).sum(1)
    assert torch.allclose(output.restored, expected.image, atol=1e-4)
    deviation = weights[..., None, None, None] * (output.solutions - mean[:, None]).square()
    assert torch.allclose(deviation.sum(1).mean(1, keepdim=True).sqrt() / 2, output.spread, atol=1e-4)
    assert metrics["test/spread_rank"] == pytest.approx(float(output.metrics["spread_rank"].mean()), abs=1e-5)
    assert metrics["test/explained"] == 1


def test_solutions_are_not_kept_unless_they_are_asked_for(checkpoint, images, tmp_path):
    _, (output,) = run_test(LatentRestoration(checkpoint, Downsample(4), inversion=QUICK), images, tmp_path)
    assert output.solutions is None
    assert output.spread is not None


def test_a_single_search_has_no_spread(checkpoint, images, tmp_path):
    module = LatentRestoration(checkpoint, SquareMask(SIZE, 4), inversion=replace(QUICK, num_searches=1))
    metrics, (output,) = run_test(module, images, tmp_path)
    assert output.spread is None
    assert not [name for name in {**metrics, **output.metrics} if "spread" in name]


def test_the_fraction_of_explained_images_is_logged(checkpoint, unexplained, tmp_path):
    module = LatentRestoration(checkpoint, SquareMask(SIZE, 4), inversion=QUICK)
    metrics, (output,) = run_test(module, unexplained, tmp_path)
    assert output.metrics["explained"].tolist() == [False, True, True, True, False]
    assert metrics["test/explained"] == pytest.approx(3 / 5)


def test_known_pixels_stay_and_no_face_is_shown_that_explains_nothing(checkpoint, unexplained, tmp_path):
    degradation = SquareMask(SIZE, 6)
    module = LatentRestoration(checkpoint, degradation, inversion=QUICK, keep_searches=True)
    _, (output,) = run_test(module, unexplained, tmp_path)
    estimate = linear_estimate(degradation, degradation(unexplained), torch.zeros(COUNT))
    assert torch.equal(output.restored[[0, 4]], estimate[[0, 4]])
    hole = degradation.mask[0, 0] == 0
    assert not torch.allclose(output.restored[1:4][..., hole], estimate[1:4][..., hole], atol=1e-2)
    assert torch.allclose(output.restored[1:4][..., ~hole], unexplained[1:4][..., ~hole], atol=1e-6)  # a mean
    assert torch.equal(output.solutions[..., ~hole], unexplained[:, None].expand_as(output.solutions)[..., ~hole])
    assert output.spread[..., ~hole].max() < 1e-6 < output.spread[..., hole].mean()


@pytest.mark.parametrize(
    ("options", "noise_level", "expected"),
    [
        ({"degradation": SquareMask(SIZE, 4)}, 0.0, True),
        ({"degradation": SquareMask(SIZE, 4), "inversion": replace(QUICK, composite=False)}, 0.0, False),
        ({"masks": "alpha"}, 0.0, True),
        ({"blind_blur": True}, 0.0, True),
        ({}, 0.0, False),  # the generator's image of the photograph is what was asked for
        ({}, 0.1, True),
    ],
)
def test_it_is_known_what_becomes_of_an_unexplained_photograph(options, noise_level, expected, checkpoint):
    module = LatentRestoration(checkpoint, **({"inversion": QUICK} | options))
    assert module.restorer.leaves_out_generator(noise_level) == expected


def test_configurations_have_the_defaults_of_a_bare_call():
    changed = {}
    for path in sorted((CONFIGS / "restore").glob("*.yaml")):
        changed[path.stem] = safe_load(path.read_text())["model"]["init_args"].get("inversion")
    assert changed.pop("stylegan2") == {"start": "mean", "refine": "features"}  # a fragment, for another generator
    assert changed.pop("invert") == {"noise_level": 0.0}
    assert set(changed.values()) == {None}
    assert len(changed) == 5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"masks": "nowhere"}, "neither a folder nor a file"),
        ({"degradation": SquareMask(SIZE * 2, 4)}, "of the size of the images"),
        ({"degradation": Downsample(3)}, "does not divide"),
        ({"degradation": Grayscale(), "blind_blur": True}, "blind_blur"),
        ({"blind_blur": True, "encoder_ckpt": "encoder.ckpt"}, "leave encoder_ckpt out"),
        ({"encoder_ckpt": "missing.ckpt"}, "does not exist"),
        ({"inversion": InversionSettings(loss="perceptual")}, "no discriminator"),
    ],
)
def test_invalid_settings_are_refused_at_once(options, said, checkpoint):
    with pytest.raises(InputError, match=said):
        LatentRestoration(checkpoint, **options)


def test_a_checkpoint_without_a_generator_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="no DCGAN generator"):
        LatentRestoration(str(tmp_path / "other.pt"))


def test_data_of_another_size_are_refused_before_any_work(checkpoint, tmp_path):
    class Faces(LightningDataModule):
        channels, image_size = 3, 32

        def test_dataloader(self):
            return DataLoader([{"image": torch.zeros(3, 32, 32), "index": torch.tensor(0)}])

    with pytest.raises(InputError, match=r"set data.image_size to 16"):
        quiet_trainer(tmp_path).test(LatentRestoration(checkpoint, inversion=QUICK), datamodule=Faces(), verbose=False)
    with pytest.raises(InputError, match="3x32x32"):
        run_test(LatentRestoration(checkpoint, inversion=QUICK), torch.zeros(1, 3, 32, 32), tmp_path)


def test_pixels_that_are_not_finite_are_refused(checkpoint, tmp_path):
    with pytest.raises(InputError, match="not finite"):
        run_test(LatentRestoration(checkpoint, inversion=QUICK), torch.full((1, 3, SIZE, SIZE), torch.nan), tmp_path)


def test_a_mask_of_its_own_for_each_image_follows_the_degradation(images):
    batch = {"image": torch.zeros(3, 3, 8, 8), "alpha": torch.rand(3, 1, 8, 8)}
    degradation = ImageMasks("alpha", 8).after(Downsample(2), batch, [0, 2])
    expected = Mask(batch["alpha"][[0, 2]] > 0.5)(Downsample(2)(images[:2]))
    assert torch.equal(degradation(images[:2]), expected)
