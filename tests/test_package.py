"""The public names, which one list declares: for Python, for type checkers and for the command line."""

import gan_lightning
from gan_lightning import options


def test_every_public_name_is_what_its_module_defines():
    for name in gan_lightning.__all__:
        assert getattr(gan_lightning, name).__name__ == name
    assert set(gan_lightning.__all__) <= set(dir(gan_lightning))


def test_the_command_line_takes_its_models_and_data_from_the_public_names():
    assert {gan_lightning.DCGAN, gan_lightning.LatentEncoder, gan_lightning.LatentRestoration} == set(options.MODELS)
    assert {gan_lightning.CelebA, gan_lightning.ImageFolder, gan_lightning.StreamedImages} <= set(options.DATA)
    assert not set(options.MODELS) & set(options.DATA)
