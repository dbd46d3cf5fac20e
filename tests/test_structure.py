"""The picture of the code in CONTRIBUTING.md: every floor imports floors below it only."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import ntksim

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ntksim"
# Imports inside functions that point up: code of a device is loaded when it is asked for, known answers ask everything, and a
# user's own activation is known by the digest of its functions.
UPWARD = {
    ("engine", "engine/cuda"),
    ("engine", "engine/compiled"),
    ("engine/empirical", "engine/cuda"),
    ("engine/training", "engine/cuda"),
    ("engine/known_answers", "engine/empirical"),
    ("engine/known_answers", "engine/formulas"),
    ("engine/known_answers", "engine/infinite"),
    ("engine/known_answers", "engine/training"),
}


def floors():
    """The floor of every unit, counted from the top; "engine" stands for the files that no line names."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    picture = re.search(r"^    cli.*?\n\n", text, re.MULTILINE | re.DOTALL)
    lines = picture[0].rstrip().splitlines()
    return {unit: floor for floor, line in enumerate(lines) for unit in re.findall(r"cli|(?:engine|study)/\w*", line)}


def unit_of(module, known):
    """The unit of ``ntksim.a.b.c``: a/b, or "engine/" for the engine's other files."""
    name = "/".join(module.split(".")[1:3])
    return name if name in known or not name.startswith("engine") else "engine/"


def imports():
    """(unit, imported unit, whether it is inside a function) of every import in the package."""
    known = floors()
    for path in PACKAGE.rglob("*.py"):
        module = "ntksim." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        tree = ast.parse(path.read_bytes())
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("ntksim."):
                continue
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                target = full if PACKAGE.joinpath(*full.split(".")[1:]).with_suffix(".py").is_file() else node.module
                if PACKAGE.joinpath(*full.split(".")[1:]).is_dir():
                    target = full
                if target not in ("ntksim.engine", "ntksim.study"):
                    yield unit_of(module, known), unit_of(target, known), node not in tree.body


def test_every_unit_is_in_the_picture():
    known = floors()
    packages = {f"{path.parent.relative_to(PACKAGE)}" for path in PACKAGE.glob("*/*/__init__.py")}
    assert {package for package in packages if "project" not in package} <= set(known)


def test_arrows_point_down():
    known, found = floors(), list(imports())
    assert len(found) > 300
    for own, other, lazy in found:
        if own in ("__init__",) or own == other:  # the package's own file loads names when they are asked for
            continue
        assert known[own] < known[other] or (lazy and (own.rstrip("/"), other) in UPWARD), f"{own} imports {other}"


def test_only_one_package_imports_numba_cuda():
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name != "cuda" and re.search(
            r"^\s*(from numba import .*\bcuda\b|import numba\.cuda|from numba\.cuda)", path.read_text(), re.M
        ):
            assert path.name in ("devices.py", "known_answers.py"), path


def test_folders_are_small():
    """But for the one that has a file for every activation, which is a list."""
    for folder in {path.parent for path in PACKAGE.rglob("*.py")} - {PACKAGE / "engine" / "formulas" / "activations"}:
        assert len(list(folder.glob("*.py"))) <= 14, folder


def test_the_workflow_and_options_of_jobs_load_no_numba():
    """Every job reads the workflow, and Numba reads the number of threads when it is first loaded: after the options."""
    code = """
import sys
from ntksim import cli
import ntksim.study.plan.jobs, ntksim.study.config.study
for command in ("initial", "training", "limit"):
    cli._parser([command])
print(*({"numba", "pandas", "pyarrow", "scipy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []


def test_public_names_are_functions_and_classes():
    """`ntksim.train` is not the module of that name."""
    modules = {name for name in ntksim.__all__ if isinstance(getattr(ntksim, name), ModuleType)}
    assert modules == {"measures"}
