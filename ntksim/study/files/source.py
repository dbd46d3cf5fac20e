"""The code that results depend on: a digest of a module and of every module of ntksim that it imports, directly or not.

It is taken of syntax trees without docstrings, so that no comment and no layout ages a result, and follows the import
statements of the source, those inside functions too: no list is kept by hand. It loads nothing but Python's own library, since
the workflow reads it in every job. What was found in a file is kept in the user's cache by the file's bytes: parsing all of them
takes as long as importing NumPy and Numba.
"""

import ast
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).parents[2]
_ROOT = _PACKAGE.name
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
    lines = [f"{name} {_read(name)[0]}\n" for name in sorted(reached(module))]
    _keep()
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
    package, content = module if path.name == "__init__.py" else module.rpartition(".")[0], path.read_bytes()
    key = hashlib.sha256(b"\0".join([_PARSER, package.encode(), content])).hexdigest()
    if key not in _kept():
        tree, words, imports = ast.parse(content, str(path)), list[str](), list[ast.stmt]()
        _write(tree, words, imports)
        names = sorted({name for node in imports for name in _names(node, package)})
        _kept()[key] = [hashlib.sha256("\n".join(words).encode()).hexdigest(), *names]
        _fresh.append(key)
    found, *names = _kept()[key]
    return found, frozenset(name for name in names if _path(name))


_PARSER = hashlib.sha256(Path(__file__).read_bytes() + sys.version.encode()).digest()  # what was found depends on it too
_MOST_KEPT = 4096  # files; then all are forgotten, since most are of code that was edited away
_fresh: list[str] = []  # keys of what is found, and not yet written


def _file() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "ntksim" / "sources.json"


@cache
def _kept() -> dict[str, list[str]]:
    """By a key of a file's bytes the hash of its code and the names that it imports; a file of them that is damaged is empty."""
    with suppress(OSError, ValueError, RecursionError):
        kept = json.loads(_file().read_bytes())
        if isinstance(kept, dict) and len(kept) < _MOST_KEPT and all(map(_is_entry, kept.values())):
            return kept
    return {}


def _is_entry(value: object) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(isinstance(word, str) for word in value)


def _keep() -> None:
    """Write what is new, whole or not at all; nowhere to write it costs time alone."""
    if not _fresh:
        return
    _fresh.clear()
    with suppress(OSError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=_file().parent, prefix=".sources", delete=False) as file:
            json.dump(_kept(), file)
        os.replace(file.name, _file())


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
