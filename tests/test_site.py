"""The documentation site has every page, every public name, and links that lead somewhere. `make docs` builds it."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import yaml

import gan_lightning

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gan_lightning"
SOURCES = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"]
SOURCES += [
    path.relative_to(ROOT).as_posix()
    for folder in ("docs", "benchmarks/results")
    for path in (ROOT / folder).glob("*.md")
]


@pytest.fixture(scope="module")
def site():
    """Return the module of the hooks, which is not part of the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs")
        return importlib.import_module("site_pages")


def leaves(tree):
    """Yield the pages of a navigation."""
    for entry in tree:
        for value in entry.values():
            yield from leaves(value) if isinstance(value, list) else [value]


def test_the_navigation_names_every_page_of_docs_and_no_other(site):
    navigation = set(leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    placed = {site.place_on_site(source) for source in SOURCES} | {f"{site.RESULTS}/index.md"}
    assert navigation - placed == set()
    assert {place for place in placed if not place.startswith("benchmarks/")} <= navigation


def test_every_public_name_is_in_the_reference(site):
    described = {public for names in site.reference().values() for public in names}
    packages = [importlib.import_module(f"gan_lightning.{path.parent.name}") for path in PACKAGE.glob("*/__init__.py")]
    for package in [gan_lightning, *packages]:
        for name in getattr(package, "__all__", []):
            home = getattr(package, name)
            whole = getattr(home, "__module__", None) in {f"gan_lightning.{page}" for page in site.WHOLE}
            assert whole or {f"gan_lightning.{name}", f"{package.__name__}.{name}"} & described, name


def test_every_name_in_the_reference_is_where_it_says(site):
    for names in site.reference().values():
        for home in names.values():
            module, _, name = home.rpartition(".")
            importlib.import_module(home if home.removeprefix("gan_lightning.") in site.WHOLE else module)
            assert hasattr(sys.modules[module], name), home


@pytest.mark.parametrize("source", SOURCES)
def test_links_to_files_lead_to_the_same_files_on_the_site(site, source):
    page = site.place_on_site(source)
    text = (ROOT / source).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)", text)
    translated = re.findall(r"\]\(([^)#\s]+)", site.translate_links(text, source))
    for on_disk, on_site in zip(links, translated, strict=True):
        if "://" in on_disk:
            assert on_site == on_disk
            continue
        target = ((ROOT / source).parent / on_disk).resolve().relative_to(ROOT.resolve()).as_posix()
        assert (ROOT / target).exists(), f"{source} links to {on_disk}"
        reached = (Path("/site") / Path(page).parent / on_site).resolve().relative_to("/site").as_posix()
        assert reached == site.place_on_site(target), f"{source} links to {on_disk}, which is not on the site"


def test_lists_are_separated_from_the_text_before_them():
    """Markdown as the site reads it has no list without an empty line before it, and nests by four spaces."""
    for source in SOURCES:
        lines = re.sub(r"```.*?```", "", (ROOT / source).read_text(encoding="utf-8"), flags=re.DOTALL).splitlines()
        for before, line in zip(["", *lines], lines, strict=False):
            if re.match(r"(- |\d+\. )", line):
                assert not before or re.match(r"\s|- |\d+\. ", before), f"{source}: no empty line before {line!r}"
            assert not re.match(r"( {1,3}| {5,7})([-|]|\d+\.) ?", line), f"{source}: indent {line!r} by four spaces"
