"""MkDocs hooks: pages of the site that are written elsewhere in the repository, and the reference of public names.

Links are written for readers of the repository, from file to file. On the site the same files have other places, so
that the links of each page are translated.
"""

from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the tests of the site's pages run without MkDocs
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gan_lightning"
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
FOLDERS = ("benchmarks", "configs", "notebooks")  # pages link to their files, which have the same places on the site
FILES = ("Dockerfile",)
RESULTS = "benchmarks/results"
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)#\s]+)((?:#[^)]*)?\))")
WHOLE = ("objectives",)  # files that are documented from top to bottom, not name by name


def on_config(config: MkDocsConfig) -> None:
    """Fill the section of the navigation that is called Reference."""
    for section in config.nav or []:
        if "Reference" in section:
            section["Reference"] = [{_title(page): f"reference/{page}.md"} for page in sorted(reference())]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages that are not in docs/, and the files that pages link to."""
    from mkdocs.structure.files import File

    own = [ROOT / path for path in (*PAGES, *FILES)]
    linked = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*")) if _is_content(path)]
    for path in own + linked:
        place = place_on_site(path.relative_to(ROOT).as_posix())
        files.append(File.generated(config, str(place), abs_src_path=str(path)))
    files.append(File.generated(config, f"{RESULTS}/index.md", content=_table_of_results()))
    for page, names in reference().items():
        files.append(File.generated(config, f"reference/{page}.md", content=_reference_page(page, names)))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Translate the links of a page."""
    place = page.file.src_uri
    sources = [path for path in (*PAGES, f"docs/{place}", place) if place_on_site(path) == place]
    return translate_links(markdown, sources[0]) if sources else markdown


def place_on_site(path: str) -> str | None:
    """Return where the site has a file or folder of the repository; None if it does not.

    Args:
        path: Path relative to the root of the repository.
    """
    if path in PAGES:
        return PAGES[path]
    if not (ROOT / path).exists():
        return None
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path == RESULTS:
        return f"{RESULTS}/index.md"
    return path if path in FILES or path.startswith(tuple(f"{folder}/" for folder in FOLDERS)) else None


def translate_links(markdown: str, source: str) -> str:
    """Return a page with its links to files of the repository replaced by links within the site.

    Args:
        markdown: Text of the page.
        source: Path of the page, relative to the root of the repository.
    """
    folder, start = posixpath.dirname(source), posixpath.dirname(str(place_on_site(source)))

    def translate(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[2]))
        place = None if "://" in link[2] else place_on_site(target)
        return link[0] if place is None else f"{link[1]}{posixpath.relpath(place, start or '.')}{link[3]}"

    return LINK.sub(translate, markdown)


def reference() -> dict[str, dict[str, str]]:
    """Return the pages of the reference: the public names of each part of the package, and where they are defined."""
    pages: dict[str, dict[str, str]] = {}
    inits = [PACKAGE / "__init__.pyi", *sorted(PACKAGE.glob("*/__init__.py"))]
    for init in inits:  # a name that several publish is called by its shortest name
        public = ".".join(init.parent.relative_to(ROOT).parts)
        for name, home in _imported_names(init).items():
            names = pages.setdefault(home.split(".")[1], {})
            if home not in names.values():
                names[f"{public}.{name}"] = home
    return {**pages, **{page: {f"gan_lightning.{page}": f"gan_lightning.{page}"} for page in WHOLE}}


def _imported_names(init: Path) -> dict[str, str]:
    """Return the names that an `__init__` imports from the package in order to publish them, and their definitions."""
    return {
        alias.name: _definition(node.module, alias.name)
        for node in ast.parse(init.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("gan_lightning.")
        for alias in node.names
    }


def _definition(module: str, name: str) -> str:
    """Return the path of a name that may be imported from a folder, whose `__init__` imports it from a file."""
    init = ROOT / module.replace(".", "/") / "__init__.py"
    return _imported_names(init)[name] if init.exists() else f"{module}.{name}"


def _reference_page(page: str, names: dict[str, str]) -> str:
    source = next(path for path in (PACKAGE / page / "__init__.py", PACKAGE / f"{page}.py") if path.exists())
    summary = (ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "").partition("\n\n")[0]
    blocks = [f"# {_title(page)}\n\n{summary}\n"]
    blocks += [f"::: {home}\n    options:\n      heading: {public}\n" for public, home in names.items()]
    return "\n".join(blocks)


def _title(page: str) -> str:
    return page.replace("_", " ").capitalize()


def _table_of_results() -> str:
    lines = ["# Benchmarks\n\nTables of the scripts in `benchmarks/`, with commands, versions and hardware.\n"]
    for path in sorted((ROOT / RESULTS).glob("*.md")):
        title = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        lines.append(f"- [{title}]({path.name})")
    return "\n".join(lines)


def _is_content(path: Path) -> bool:
    return path.is_file() and path.suffix in (".md", ".py", ".yaml", ".sbatch", ".ipynb")
