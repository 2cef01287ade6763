"""The layers of the package: each imports only those below it, and Lightning appears in the upper two alone."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "gan_lightning"
LAYERS = {  # the first prefix that fits a module's name gives its layer
    "atomic": 0,
    "augmentation": 0,
    "directions": 0,
    "distributed": 0,
    "errors": 0,
    "file_names": 0,
    "hardware": 0,
    "images": 0,
    "messages": 0,
    "model_card": 0,
    "pretrained": 0,
    "refusals": 3,
    "seeding": 0,
    "objectives": 0,
    "networks": 0,
    "degradations": 0,
    "lpips": 1,
    "alignment": 1,
    "inversion": 1,
    "faces": 1,
    "data": 1,
    "data.image_data_module": 2,
    "data.packed_data_module": 2,
    "data.streamed_images": 2,
    "data.celeba": 2,
    "data.image_folder": 2,
    "data.mnist": 2,
    "data.photos": 2,
    "data.synthetic_faces": 2,
    "metrics": 1,
    "modules": 2,
    "callbacks": 2,
    "loggers": 2,
    "resume": 2,
    "run": 2,
    "app": 3,
    "cli": 3,
    "commands": 3,
    "options": 3,
    "report": 3,
    "upscale_photo": 1,
    "upscaler": 1,
    "__main__": 3,
    "__init__": 3,
}
LIGHTNING_FREE = {0, 1}
TRUNK = {"torch", "PIL", "numpy", "safetensors"}  # what layer 0 may import beside the standard library


def module_name(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def layer(name):
    fitting = [prefix for prefix in LAYERS if name == prefix or name.startswith(f"{prefix}.")]
    assert fitting, f"{name} has no layer: give it one in LAYERS"
    return LAYERS[max(fitting, key=len)]


def imports(path):
    """All imported modules, those within functions and for type checking too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_downwards(path):
    own = layer(module_name(path))
    for imported in imports(path):
        if imported.startswith("gan_lightning."):
            name = imported.removeprefix("gan_lightning.")
            assert layer(name) <= own, f"layer {own} imports {name} of layer {layer(name)}"
        if own in LIGHTNING_FREE:
            assert imported.split(".")[0] not in ("lightning", "wandb", "jsonargparse"), imported


@pytest.mark.parametrize("path", [path for path in FILES if layer(module_name(path)) == 0], ids=module_name)
def test_the_lowest_layer_needs_torch_and_little_else(path):
    import sys

    for imported in imports(path):
        top = imported.split(".")[0]
        assert top in TRUNK | {"gan_lightning"} or top in sys.stdlib_module_names, imported


def test_the_package_imports_lightning_and_never_its_twin():
    """`lightning` and `pytorch_lightning` are both installed: their classes are not each other's."""
    for path in FILES:
        assert not any(name.startswith("pytorch_lightning") for name in imports(path)), path
