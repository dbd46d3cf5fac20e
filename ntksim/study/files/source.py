"""Digests of the code that results depend on: a module and all modules of ntksim that it imports, directly or indirectly.

A digest is a hash of syntax trees without docstrings, so changes of comments and layout leave results up to date. The imported
modules are found from the import statements in the source, including those inside functions, so no list is kept by hand (those
inside functions of `engine.known_answers`, which only compares, are left out). This
module imports only the standard library, since every job of the workflow loads it. What was found in a file is kept in the user's
cache, by a hash of its bytes: parsing all files takes as long as importing NumPy and Numba.
"""

import ast
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).parents[2]
_ROOT = _PACKAGE.name
_BY_NAME = "ntksim.engine.formulas.activations"  # its modules are imported by their names: whoever imports it may use any
# Its functions ask all compiled code for known answers, and make no number of a result: their imports do not count.
_ASKS = "ntksim.engine.known_answers"
# The module that computes each kind of result.
MODULES = {
    "limit": "ntksim.study.stages.limit",
    "initial": "ntksim.study.stages.kernels",
    "first_step": "ntksim.study.stages.initial",  # shards at initialisation with a step of descent
    "training": "ntksim.study.stages.training",
    "tables": "ntksim.study.statistics.tables",
    "figures": "ntksim.study.report.figures",
    "page": "ntksim.study.report.page",
    "package": "ntksim.cli",
}


def digest_of(kind: str) -> str:
    """Digest of the code behind a kind of result, which is a key of ``MODULES``."""
    return digest(MODULES[kind])


def digest_of_files(paths: Iterable[Path]) -> str:
    """Hash of the contents of some files, in this order: 16 hexadecimal digits."""
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()[:16]


@cache
def digest(module: str) -> str:
    """Hash of a module's code and of all code that it imports from ntksim: 16 hexadecimal digits."""
    lines = [f"{name} {_read(name)[0]}\n" for name in sorted(reached(module))]
    _keep()
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def reached(module: str) -> set[str]:
    """Names of a module, of all modules of ntksim that it imports, directly or indirectly, and of the packages around them.

    The package ``ntksim`` itself is left out: identities name its version separately, and it imports its contents on first use.
    """
    found, fresh = set[str](), {module}
    while fresh:
        found |= fresh
        imported = {name for importer in fresh for name in _read(importer)[1]}
        fresh = {parent for name in imported | fresh for parent in _with_packages(name)} - found
    return found


def _with_packages(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[:end]) for end in range(2, len(parts) + 1))


@cache
def _read(module: str) -> tuple[str, frozenset[str]]:
    """Hash of a module's code, without that of its imports, and the names that it imports from ntksim."""
    path = _path(module)
    assert path is not None, module
    package, content = module if path.name == "__init__.py" else module.rpartition(".")[0], path.read_bytes()
    key = hashlib.sha256(b"\0".join([_PARSER, package.encode(), content])).hexdigest()
    if key not in _kept():
        tree, words, imports = ast.parse(content, str(path)), list[str](), list[ast.stmt]()
        _write(tree, words, imports)
        if module == _ASKS:
            imports = [node for node in imports if node in tree.body]
        names = sorted({name for node in imports for name in _names(node, package)})
        _kept()[key] = [hashlib.sha256("\n".join(words).encode()).hexdigest(), *names]
        _fresh.append(key)
    found, *names = _kept()[key]
    imported = frozenset(name for name in names if _path(name))
    if module == _BY_NAME:
        imported |= {f"{module}.{other.stem}" for other in path.parent.glob("*.py") if other != path}
    return found, imported


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
    """The file of a module or package of ntksim; None for any other name."""
    base = _PACKAGE.joinpath(*module.split(".")[1:])
    return next((path for path in (base.with_name(f"{base.name}.py"), base / "__init__.py") if path.is_file()), None)


def _names(node: ast.stmt, package: str) -> Iterator[str]:
    """Names of ntksim that an import statement may load; ``package`` is the package of the importing module.

    `from a import b` yields both a and a.b, since b may be a module.
    """
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        parts = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
        base = ".".join([*parts, *([node.module] if node.module else [])])
        names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return (name for name in names if name.startswith(f"{_ROOT}."))


def _write(node: ast.AST, words: list[str], imports: list[ast.stmt]) -> None:
    """Append a syntax tree to ``words``, without docstrings, and its import statements to ``imports``.

    Imports under `if TYPE_CHECKING` are left out. Empty fields are skipped, since new Python versions add fields, which are empty
    in existing code.
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
        for index, part in enumerate(parts):
            if not isinstance(part, ast.AST):
                words.append(repr(part))
            elif index > 0 or name != "body" or not _is_docstring(part):
                _write(part, words, imports)
        words.append(".")


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
