"""Run the cells of a notebook in order and in one namespace, as a kernel does: NOTEBOOK [SETTING=VALUE ...].

Settings replace those of the cell that is tagged "parameters", and the cell tagged "install" is left out. A line that
starts with `!` is a command, in which expressions in braces are replaced by their values; restorations take few steps.
What a cell shows, the value of its last line, is printed as one line of JSON: its type, and the size of an image.
"""

import ast
import json
import re
import shlex
import sys
from pathlib import Path

from gan_lightning.__main__ import main

FEW_STEPS = ["--model.inversion.num_steps", "3", "--model.inversion.refine_steps", "3"]


def shell(line):
    sys.argv = shlex.split(line)
    sys.argv += FEW_STEPS if "--model.generator_ckpt" in sys.argv else []
    assert sys.argv[0] == "gan-lightning", f"{sys.argv[0]} is not run by this test"
    status = main()
    assert status == 0, f"{line} ended with status {status}"


def run(source, names):
    joined = source.replace("\\\n", " ")
    code = re.sub(r"^( *)!(.*)$", lambda found: f"{found[1]}shell(f{found[2]!r})", joined, flags=re.MULTILINE)
    *statements, last = ast.parse(code).body
    shows = isinstance(last, ast.Expr)
    exec(compile(ast.Module(statements if shows else [*statements, last], []), "cell", "exec"), names)
    value = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if shows else None
    if value is not None:
        print(json.dumps({"type": type(value).__name__, "size": getattr(value, "size", None)}))


notebook, *settings = sys.argv[1:]
names = {"shell": shell, "IN_COLAB": False}
for cell in json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]:
    tags = cell["metadata"].get("tags", [])
    if cell["cell_type"] != "code" or "install" in tags:
        continue
    run("".join(cell["source"]), names)
    if "parameters" in tags:
        for setting in settings:
            name, _, value = setting.partition("=")
            assert name in names, f"the notebook has no setting {name}"
            names[name] = ast.literal_eval(value)
