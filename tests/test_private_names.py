"""Private names of other packages appear in two files alone, where each has its reason and its test.

Private is what begins with one underscore. Found are imports of such a name, access to it on any object, by `getattr`
too, and its use or redefinition in a class that inherits it.
"""

import ast
import contextlib
import functools
import importlib
import inspect
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "gan_lightning"
FENCED = {"resume/lightning_internals.py", "options/jsonargparse_internals.py"}
PUBLIC = {"_replace", "_exit"}  # of named tuples, and of `os`: both are documented


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


@functools.cache
def private_names_of(foreign):
    """Return the private names of a class, those that its methods set on `self` included."""
    names = {name for name in vars(foreign) if is_private(name)}
    with contextlib.suppress(OSError, TypeError):  # some classes have no Python source
        names |= set(re.findall(r"\bself\.(_[a-zA-Z]\w*)", inspect.getsource(foreign)))
    return names


def inherited(cls):
    """Return the private names that a class inherits from other packages."""
    foreign = [base for base in cls.__mro__ if not base.__module__.startswith("gan_lightning")]
    return set().union(*(private_names_of(base) for base in foreign))


class Finder(ast.NodeVisitor):
    """Collects the private names of other packages that a module uses; `classes` has the module's classes by name."""

    def __init__(self, classes):
        self.classes, self.found, self.forbidden = classes, [], [set()]

    def add(self, node, name):
        self.found.append((node.lineno, name))

    def visit_Import(self, node):
        for alias in node.names:
            self.check_module(node, alias.name)

    def visit_ImportFrom(self, node):
        self.check_module(node, node.module)
        if node.module.split(".")[0] not in ("gan_lightning", "__future__"):
            for alias in node.names:
                if is_private(alias.name):
                    self.add(node, alias.name)

    def check_module(self, node, module):
        parts = module.split(".")
        if parts[0] != "gan_lightning" and any(is_private(part) for part in parts):
            self.add(node, module)

    def visit_ClassDef(self, node):
        cls = self.classes.get(node.name)
        self.forbidden.append(set() if cls is None else inherited(cls))
        self.generic_visit(node)
        self.forbidden.pop()

    def visit_FunctionDef(self, node):
        if node.name in self.forbidden[-1]:
            self.add(node, node.name)
        self.generic_visit(node)

    def visit_Attribute(self, node):
        if is_private(node.attr):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if node.attr in self.forbidden[-1] if own or is_super(node.value) else node.attr not in PUBLIC:
                self.add(node, node.attr)
        self.generic_visit(node)

    def visit_Call(self, node):
        by_name = isinstance(node.func, ast.Name) and node.func.id in ("getattr", "setattr", "hasattr", "delattr")
        if by_name and isinstance(node.args[1], ast.Constant) and is_private(node.args[1].value):
            self.add(node, node.args[1].value)
        self.generic_visit(node)


def is_super(node):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"


def find(source, classes=()):
    finder = Finder(dict(classes))
    finder.visit(ast.parse(source))
    return finder.found


def private_names_in(path):
    name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    module = importlib.import_module(name)
    classes = {key: value for key, value in vars(module).items() if inspect.isclass(value)}
    return find(path.read_text(), classes)


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.relative_to(PACKAGE).as_posix() not in FENCED]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_private_names_of_other_packages_stay_behind_the_fence(path):
    found = [f"line {line}: {name}" for line, name in private_names_in(path)]
    assert not found, "move them to resume/lightning_internals.py, each with its reason and a test"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("trainer.fit_loop._data_fetcher", "_data_fetcher"),
        ("trainer.fit_loop._data_fetcher.fetched = 3", "_data_fetcher"),
        ("def f(strategy):\n    return getattr(strategy, '_layer_sync', None)", "_layer_sync"),
        ("from lightning.pytorch.strategies.launchers.subprocess_script import _Launcher", "_Launcher"),
        ("from torch.utils.data._utils import signal_handling", "torch.utils.data._utils"),
        ("import torch._dynamo", "torch._dynamo"),
        ("torch._foreach_lerp_(a, b, 0.5)", "_foreach_lerp_"),
        ("class Bar:\n    def _should_update(self, current, total): pass", "_should_update"),
        ("class Bar:\n    def on_train_start(self, *_): self._enabled = False", "_enabled"),
        ("class Bar:\n    def f(self): return super()._resolve_refresh_rate(1)", "_resolve_refresh_rate"),
    ],
)
def test_the_finder_finds(source, name):
    from lightning.pytorch.callbacks import TQDMProgressBar

    assert [found for _, found in find(source, {"Bar": type("Bar", (TQDMProgressBar,), {})})] == [name]


@pytest.mark.parametrize(
    "source",
    [
        "from __future__ import annotations",
        "from gan_lightning.faces.canvas import _own",
        "area._replace(x=1)",
        "class Bar:\n    def _mine(self): return self._own + super().__init__()",
        "_log = 3\n_log",
    ],
)
def test_the_finder_leaves_our_own_names_alone(source):
    from lightning.pytorch.callbacks import TQDMProgressBar

    assert not find(source, {"Bar": type("Bar", (TQDMProgressBar,), {})})
