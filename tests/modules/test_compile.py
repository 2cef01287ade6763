"""`compile: true` makes the same steps, and nothing but the training step sees it."""

import copy
from functools import partial

import pytest
import torch

from gan_lightning import DCGAN, load_generator
from tests.modules.test_dcgan import BATCH, TINY, loader, train
from tests.modules.test_training_step import plain_torch_training

VARIANTS = {
    "plain": {},
    "d_steps": {"d_steps": 2, "fresh_latents": True},
    "r1": {"r1": 5.0, "discriminator_normalization": "none"},
}

pytestmark = pytest.mark.filterwarnings("ignore")  # the compiler's own, while it traces and compiles


@pytest.fixture
def compiled(monkeypatch):
    """Choose torch.compile's backend; return the list of networks that were compiled."""
    networks, compile_network = [], torch.compile

    def note(network, backend):
        networks.append(network)
        return compile_network(network, backend=backend)

    def choose(backend):
        monkeypatch.setattr(torch, "compile", partial(note, backend=backend))
        return networks

    torch.compiler.reset()
    return choose


@pytest.mark.parametrize(
    ("variant", "backend"),
    [*((variant, "aot_eager") for variant in VARIANTS), pytest.param("r1", "inductor", marks=pytest.mark.slow)],
)  # inductor compiles for half a minute; r1 has compiled networks and uncompiled ones
def test_twenty_compiled_steps_equal_a_plain_torch_loop(tmp_path, compiled, variant, backend):
    """Penalties need a second derivative, which compiled networks do not have: they use the uncompiled ones."""
    networks, arguments = compiled(backend), VARIANTS[variant]
    torch.manual_seed(0)
    module = DCGAN(**TINY, **arguments, compile=True)
    *expected, _ = plain_torch_training(module, arguments, 20)
    train(module, 20, tmp_path)
    assert networks == [module.generator, module.discriminator]
    for ours, theirs in zip((module.generator, module.discriminator, module.generator_ema), expected, strict=True):
        for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine, its, rtol=0, atol=2e-5)


def test_a_compiled_run_is_saved_resumed_and_read_as_any_other(tmp_path, compiled):
    networks = compiled("aot_eager")

    def run(steps, ckpt_path=None, **arguments):
        torch.manual_seed(0)
        module = DCGAN(**TINY, **arguments)
        return module, train(module, steps, tmp_path, loader(BATCH), ckpt_path)

    plain, _ = run(6)
    assert not networks
    whole, _ = run(6, compile=True)
    _, trainer = run(3, compile=True)
    trainer.save_checkpoint(tmp_path / "cut.ckpt")
    saved = torch.load(tmp_path / "cut.ckpt", weights_only=True)["state_dict"]
    assert saved.keys() == whole.state_dict().keys() == plain.state_dict().keys()
    resumed, _ = run(6, tmp_path / "cut.ckpt", compile=True)
    for name, tensor in whole.state_dict().items():
        assert tensor.equal(resumed.state_dict()[name]), name
        torch.testing.assert_close(tensor, plain.state_dict()[name], rtol=0, atol=2e-5)
    generator = load_generator(tmp_path / "cut.ckpt")
    assert generator.main[0].weight.equal(saved["generator_ema.main.0.weight"])


def test_only_training_compiles(tmp_path, compiled):
    networks = compiled("aot_eager")
    module = DCGAN(**TINY, compile=True)
    module.sample(2)
    train(module, 2, tmp_path, limit_val_batches=1).save_checkpoint(tmp_path / "made.ckpt")
    assert len(networks) == 2
    loaded = DCGAN.load_from_checkpoint(tmp_path / "made.ckpt", map_location="cpu")
    latents = torch.randn(3, TINY["latent_dim"])
    assert loaded(latents).equal(copy.deepcopy(module)(latents))
    assert len(networks) == 2
