"""The architecture page describes the package as it is: files, names, and imports between folders."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gan_lightning"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
REFERENCES = sorted(set(re.findall(r"`([\w/]+\.py(?::[\w.]+)?)`", PAGE)))


def defined_names(path: Path) -> set[str]:
    """Return the names that a file defines at the top level, and "Class.member" for the members of its classes."""
    names: set[str] = set()

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                collect(node.body, f"{prefix}{node.name}.")
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                names.add(prefix + node.name)
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            names.update(prefix + target.id for target in targets if isinstance(target, ast.Name))

    collect(ast.parse(path.read_text()).body, "")
    return names


def exists(reference: str) -> bool:
    file, _, name = reference.partition(":")
    path = PACKAGE / file
    return path.is_file() and (not name or name in defined_names(path))


def table_rows() -> dict[str, set[str]]:
    """Return the folders that each module of the table imports from."""
    section = PAGE.split("## Modules")[1].split("\n## ")[0]
    cells = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("| `")
    ]
    return {
        module: {folder for folder in row[3].split(", ") if folder}
        for row in cells
        for module in re.findall(r"`([\w/.]+)`", row[0])
    }


def imported_folders(files: list[Path]) -> set[str]:
    """Return the folders of the package that files import from."""
    modules: set[str] = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                modules.update(f"{node.module}.{alias.name}" for alias in node.names)
    folders = {module.split(".")[1] for module in modules if module.startswith("gan_lightning.")}
    return {folder for folder in folders if (PACKAGE / folder).is_dir()}


MODULES = sorted(
    f"{path.name}/" if path.is_dir() else path.name
    for path in PACKAGE.iterdir()
    if path.name != "__init__.py" and (path.suffix == ".py" or (path / "__init__.py").is_file())
)


def test_the_page_has_references() -> None:
    assert len(REFERENCES) > 50


@pytest.mark.parametrize("reference", REFERENCES)
def test_files_and_names_of_the_page_exist(reference: str) -> None:
    assert exists(reference), f"docs/architecture.md mentions {reference}, which does not exist"


@pytest.mark.parametrize("module", MODULES)
def test_every_module_is_in_the_table_with_its_imports(module: str) -> None:
    assert module in table_rows(), f"add {module} to the table of docs/architecture.md"
    path = PACKAGE / module
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    undocumented = imported_folders(files) - table_rows()[module] - {path.name}
    assert not undocumented, f"add {sorted(undocumented)} to the imports of {module} in docs/architecture.md"
