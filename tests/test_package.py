"""The package as it is installed: public names, and what pyproject.toml promises."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import gan_lightning
from gan_lightning.options import parser as options

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # a dependency of pytest there

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gan_lightning"
READ_BY_PEOPLE = (".cff", ".ipynb", ".md", ".py", ".pyi", ".toml", ".yaml", ".yml", ".sbatch", "")


def distribution_name(requirement):
    """Return the normalized name at the start of a requirement."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def files_for_people():
    """Return the files of the repository in which an address might stand."""
    folders = ("gan_lightning", "benchmarks", "configs", "docs", "notebooks")
    candidates = [*ROOT.iterdir(), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    return [path for path in candidates if path.is_file() and path.suffix in READ_BY_PEOPLE and path.name != ".git"]


def test_every_public_name_is_what_its_module_defines():
    for name in gan_lightning.__all__:
        assert getattr(gan_lightning, name).__name__ == name
    assert set(gan_lightning.__all__) <= set(dir(gan_lightning))


def test_the_command_line_takes_its_models_and_data_from_the_public_names():
    models = {
        gan_lightning.DCGAN,
        gan_lightning.StyleGAN2,
        gan_lightning.ESRGAN,
        gan_lightning.LatentEncoder,
        gan_lightning.LatentRestoration,
    }
    assert models == set(options.MODELS)
    assert {gan_lightning.CelebA, gan_lightning.ImageFolder, gan_lightning.StreamedImages} <= set(options.DATA)
    assert not set(options.MODELS) & set(options.DATA)


def test_every_package_that_is_imported_is_a_dependency():
    extras = PROJECT["optional-dependencies"]
    used = ("streaming", "extractors", "onnx", "hub", "align", "upscale", "app")
    lines = [*PROJECT["dependencies"], *(line for extra in used for line in extras[extra])]
    declared = {distribution_name(line) for line in lines}
    imported = {
        name.split(".")[0]
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in imported_modules(node)
    }
    homes = packages_distributions()
    for name in sorted(imported - sys.stdlib_module_names - {"gan_lightning"}):
        found = {distribution_name(home) for home in homes.get(name, [name])}
        assert found & declared, f"{name} is imported, but pyproject.toml does not list it"


def imported_modules(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


def test_every_bound_of_the_extras_of_developers_is_that_of_the_users():
    extras = PROJECT["optional-dependencies"]
    assert set(extras["streaming"]) <= set(extras["dev"])


def test_no_file_names_an_address_of_the_project():
    """There is no public repository, package index entry or site: an address of one would be somebody else's."""
    address = re.compile(r"(?:https?://|git@|git\+)[^\s\"')>]*gan[-_]lightning|\bgit clone\b", re.IGNORECASE)
    found = [path for path in files_for_people() if address.search(path.read_text(encoding="utf-8"))]
    assert not found, f"no repository is public yet: {found}"


def test_the_image_is_given_what_it_copies():
    copied = [
        name
        for line in re.findall(r"^COPY (.*) \S+$", (ROOT / "Dockerfile").read_text(), re.M)
        for name in line.split()
    ]
    assert copied
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in kept, f".dockerignore keeps {name} from the image"
