"""The picture of the code in CONTRIBUTING.md: every floor imports floors below it only."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import ntksim

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ntksim"
# Imports inside functions that point up: code of a device is loaded when it is asked for, known answers ask everything, and a
# user's own activation is known by the digest of its functions.
UPWARD = {
    ("engine", "engine/cuda"),
    ("engine", "engine/compiled"),
    ("engine/known_answers", "engine/finite"),
    ("engine/known_answers", "engine/formulas"),
    ("engine/known_answers", "engine/infinite"),
    ("engine/known_answers", "engine/training"),
}
# Limits on size, and what may exceed them, each with its reason. Whoever mends what is TO_SPLIT deletes its line. Other
# lines are to be deleted once they are not needed, which a test says.
MOST_LINES, MOST_FUNCTION_LINES, MOST_ARGUMENTS, MOST_FILES = 400, 60, 8, 14
TO_SPLIT = "to split"
LONG_FILES = {}
LONG_FUNCTIONS = {}
# Beside compiled functions, which cannot take objects, and public ones, whose arguments are keywords that users know.
MANY_ARGUMENTS = {
    "estimators.py: __init__": "scikit-learn reads an estimator's parameters there",
    "engine/cuda/library.py: multiply": "the operands, places and shapes of a product, as its kernel has them",
    "engine/cuda/library.py: _library_products": "the same",
    "engine/cuda/passes.py: add_products": "the same",
    "engine/cuda/passes.py: _gram": "the operands, places and shapes of a product, as its kernel has them",
    "engine/layout.py: make_room": TO_SPLIT,
}
COMPILED = {"jit", "jit_inner", "jit_inline", "jit_parallel", "jit_allocating", "compiled_once"}
COMPILED |= {"launched", "device_function", "intrinsic"}


def floors():
    """The floor of every unit, counted from the top; "engine" stands for the files that no line names."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    picture = re.search(r"^    cli.*?\n\n", text, re.MULTILINE | re.DOTALL)
    lines = picture[0].rstrip().splitlines()
    return {
        unit: floor
        for floor, line in enumerate(lines)
        for unit in re.findall(r"cli|estimators|frameworks|(?:engine|study)/\w*", line)
    }


def unit_of(module, known):
    """The unit of ``ntksim.a.b.c``: a/b, or "engine/" for the engine's other files."""
    parts = module.split(".")[1:3]
    name = parts[0] if parts[0] in known else "/".join(parts)
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


def functions():
    """(file: name, node) of every function of the package, those inside others too."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(PACKAGE).as_posix()}: {node.name}", node


def lines_of(node):
    """From `def` to the last line, but for the docstring, which public functions have a long one of."""
    lines, first = node.end_lineno - node.lineno + 1, node.body[0]
    return lines - (first.end_lineno - first.lineno + 1 if ast.get_docstring(node) is not None else 0)


def arguments_of(node):
    """The number of arguments of a function that Python runs, but for `self`; 0 of compiled ones."""
    called = [decorator.func if isinstance(decorator, ast.Call) else decorator for decorator in node.decorator_list]
    if any(isinstance(name, ast.Name) and name.id in COMPILED for name in called):
        return 0
    taken, also = node.args, [node.args.vararg, node.args.kwarg]
    names = [argument.arg for argument in (*taken.posonlyargs, *taken.args, *taken.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")]) + len([one for one in also if one is not None])


def public(name):
    """Whether a user of Python calls it, so that its arguments are what the interface says."""
    file, _, function = name.partition(": ")
    return ntksim._HOME.get(function) == "ntksim." + file.removesuffix(".py").replace("/", ".")


def check_sizes(sizes, most, exceptions):
    """No size (name, number) is above the limit but for exceptions, which must be needed unless they are to be split."""
    above = {name: size for name, size in sizes if size > most}
    assert {name: size for name, size in above.items() if name not in exceptions} == {}
    assert [name for name, reason in exceptions.items() if name not in above and reason != TO_SPLIT] == []


def test_folders_are_small():
    """But for the one that has a file for every activation, which is a list."""
    for folder in {path.parent for path in PACKAGE.rglob("*.py")} - {PACKAGE / "engine" / "formulas" / "activations"}:
        assert len(list(folder.glob("*.py"))) <= MOST_FILES, folder


def test_files_are_short():
    files = PACKAGE.rglob("*.py")
    sizes = [(path.relative_to(PACKAGE).as_posix(), len(path.read_text(encoding="utf-8").splitlines())) for path in files]
    assert len(sizes) > 90
    check_sizes(sizes, MOST_LINES, LONG_FILES)


def test_functions_are_short_and_take_few_arguments():
    found = list(functions())
    assert len(found) > 800
    check_sizes([(name, lines_of(node)) for name, node in found], MOST_FUNCTION_LINES, LONG_FUNCTIONS)
    check_sizes([(name, arguments_of(node)) for name, node in found if not public(name)], MOST_ARGUMENTS, MANY_ARGUMENTS)


def test_functions_of_activations_say_their_formula():
    """Those that an activation's file holds for the engine (`engine.formulas.activations`)."""
    for path in (PACKAGE / "engine" / "formulas" / "activations").glob("*.py"):
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"


def test_what_counts_as_a_line_and_as_an_argument():
    code = '''
class A:
    @property
    def plain(self, a, /, b, *rest, c, **others):
        """Docs."""
        return a

@compiled_once(types)
def kernel(a, b, c):
    return a
'''
    plain, kernel = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef)][::-1]
    assert (lines_of(plain), arguments_of(plain)) == (2, 5)
    assert (lines_of(kernel), arguments_of(kernel)) == (2, 0)
    for size, exceptions in ((9, {}), (8, {"f": "a reason"})):
        with pytest.raises(AssertionError):
            check_sizes([("f", size)], 8, exceptions)
    check_sizes([("f", 8), ("g", 9)], 8, {"f": TO_SPLIT, "g": "a reason"})


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


def test_reading_results_loads_no_numba():
    """Tables, kernels, the summary and the page are read on machines and in notebooks that compute nothing."""
    code = """
import sys
import ntksim
import ntksim.study.report.page
for read in (ntksim.read_table, ntksim.read_kernels):
    try:
        read("nowhere", "convergence", *([8] if read is ntksim.read_kernels else []))
    except FileNotFoundError:
        print("missing")
print(*({"numba", "sklearn"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["missing", "missing"]


def test_public_names_are_functions_and_classes():
    """`ntksim.train` is not the module of that name."""
    modules = {name for name in ntksim.__all__ if isinstance(getattr(ntksim, name), ModuleType)}
    assert modules == {"measures", "modes"}
