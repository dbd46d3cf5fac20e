"""The code that results depend on: a digest of a module and of every module of ntksim that it imports, directly or not.

It is taken of syntax trees without docstrings, so that no comment and no layout ages a result, and follows the import
statements of the source, those inside functions too: no list is kept by hand. It loads nothing but Python's own library, since
the workflow reads it in every job.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).parents[2]
_ROOT = _PACKAGE.name
_BY_NAME = "ntksim.engine.formulas.activations"  # its modules are imported by their names: whoever imports it may use any
# What computes each kind of result.
MODULES = {
    "limit": "ntksim.study.stages.initial",
    "initial": "ntksim.study.stages.initial",
    "training": "ntksim.study.stages.training",
    "tables": "ntksim.study.statistics.tables",
    "figures": "ntksim.study.report.figures",
    "summary": "ntksim.study.report.summary",
    "package": "ntksim.cli",
}


def digest_of(kind: str) -> str:
    """The digest of the code behind a kind of result, a key of ``MODULES``."""
    return digest(MODULES[kind])


@cache
def digest(module: str) -> str:
    """Hash of the code of a module and of all that it imports from ntksim; 16 hexadecimal digits."""
    lines = (f"{name} {_read(name)[0]}\n" for name in sorted(reached(module)))
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def reached(module: str) -> set[str]:
    """The module and all modules of ntksim that it imports, directly or not, with the packages that hold them.

    The package ``ntksim`` itself is left out: it holds the version, which identities name, and loads what it names on first use.
    """
    found, fresh = set[str](), {module}
    while fresh:
        found |= fresh
        imported = {name for own in fresh for name in _read(own)[1]}
        fresh = {parent for name in imported | fresh for parent in _with_packages(name)} - found
    return found


def _with_packages(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[:end]) for end in range(2, len(parts) + 1))


@cache
def _read(module: str) -> tuple[str, frozenset[str]]:
    """The hash of a module's own code, and what it imports from ntksim."""
    path = _path(module)
    assert path is not None, module
    tree, words, imports = ast.parse(path.read_bytes(), str(path)), list[str](), list[ast.stmt]()
    _write(tree, words, imports)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    imported = frozenset(name for node in imports for name in _names(node, package) if _path(name))
    if module == _BY_NAME:
        imported |= {f"{module}.{other.stem}" for other in path.parent.glob("*.py") if other != path}
    return hashlib.sha256("\n".join(words).encode()).hexdigest(), imported


def _path(module: str) -> Path | None:
    """The file of a module or package; None for any other name."""
    base = _PACKAGE.joinpath(*module.split(".")[1:])
    return next((path for path in (base.with_name(f"{base.name}.py"), base / "__init__.py") if path.is_file()), None)


def _names(node: ast.stmt, package: str) -> Iterator[str]:
    """What an import statement may load of ntksim; ``package`` is the one in which it stands."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        parts = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
        base = ".".join([*parts, *([node.module] if node.module else [])])
        names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return (name for name in names if name.startswith(f"{_ROOT}."))


def _write(node: ast.AST, words: list[str], imports: list[ast.stmt]) -> None:
    """A syntax tree in words, without docstrings, and its import statements but for those that serve type checkers alone.

    What is absent is not written: Python's versions add fields, empty at first.
    """
    words.append(type(node).__name__)
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        imports.append(node)
    elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        imports = []
    for name in node._fields:
        value = getattr(node, name, None)
        if value is None or value == []:
            continue
        words.append(name)
        parts = value if isinstance(value, list) else [value]
        for place, part in enumerate(parts):
            if not isinstance(part, ast.AST):
                words.append(repr(part))
            elif place > 0 or name != "body" or not _is_docstring(part):
                _write(part, words, imports)
        words.append(".")


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
