"""What is known of an activation without compiling anything: its name, parameter, smoothness and gate; and a user's own.

Each shipped activation is a file of `formulas.activations`, whose literal ``ABOUT`` says it. The literal is read from the source,
since running the file loads Numba, which neither the workflow nor the options of a job may do.

    smooth      whether phi' is continuous, which decides the exponents of the drift; a number: smooth at this parameter alone
    analytic    whether phi is analytic; if not, it is on either side of 0 (as ``smooth`` where it is left out)
    gate        "value" or "slope": the one that is above 0 exactly where z is; a number: phi is above it exactly where z is
                above 0; None where neither tells; left out where a function ``gate(parameter)`` of the file says it
    parameter   name, default, least and greatest value of the number in brackets, as in leaky_relu(0.2), if there is one
    integer     whether the parameter is a whole number
"""

import ast
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_FOLDER = Path(__file__).parent / "formulas" / "activations"
_SPELLING = re.compile(r"(\w+)\((.*)\)", re.DOTALL)


class Phi(NamedTuple):
    """An activation as compiled code knows it, from `formulas.blocks.phi_of`.

    ``code`` is its number among those that this process uses; ``single``, ``double`` and ``duals`` are the addresses of its loops
    over float32 and float64 numbers, and over a row of pairs of points, 0 if it has none.
    """

    code: int
    parameter: float
    single: int
    double: int
    duals: int


@dataclass(frozen=True)
class About:
    """What the literal of an activation's file says; see the module."""

    smooth: bool | float
    gate: str | float | None = None
    analytic: bool | None = None
    parameter: tuple[str, float, float, float] | None = None
    integer: bool = False


@cache
def names() -> tuple[str, ...]:
    """The shipped activations, in the order of the alphabet."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.py") if path.stem != "__init__"))


@cache
def about(name: str) -> About:
    """What the file of a shipped activation says of it."""
    tree = ast.parse((_FOLDER / f"{name}.py").read_bytes(), f"{name}.py")
    literal = next(
        node.value for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "ABOUT"
    )  # fmt: skip
    return About(**ast.literal_eval(literal))


def parsed(spelling: object) -> tuple[str, float]:
    """Name and parameter of a shipped activation, from a name or a name and a number in brackets; 0 if it has no parameter.

    Raises
    ------
    ValueError for a name that is not known, or a number that the activation does not take.
    """
    found = _SPELLING.fullmatch(spelling) if isinstance(spelling, str) else None
    name, number = (found[1], found[2]) if found else (str(spelling), None)
    if name not in names():
        raise ValueError(f"activation must be one of {', '.join(names())}; got {spelling!r}")
    own = about(name)
    if own.parameter is None:
        if number is not None:
            raise ValueError(f"activation must be {name} without a number in brackets; got {spelling!r}")
        return name, 0.0
    what, value, least, most = own.parameter
    if number is not None:
        try:
            value = float(number)
        except ValueError:
            value = math.nan
    if not least <= value <= most or (own.integer and value != round(value)):
        kind = "a whole number" if own.integer else "a number"
        expected = f"{name} with {kind} from {least:g} to {most:g} in brackets, its {what}"
        raise ValueError(f"activation must be {expected}; got {spelling!r}")
    return name, value


def spelled(spelling: str) -> str:
    """The one spelling of a shipped activation, so that equal networks are equal: a usual number is left out.

    Raises
    ------
    ValueError as `parsed` does.
    """
    name, value = parsed(spelling)
    usual = about(name).parameter
    if usual is None or value == usual[1]:
        return name
    return f"{name}({int(value) if about(name).integer else value!r})"


class Activation:
    """An activation of one's own, from scalar functions.

    Parameters
    ----------
    name : a name that no shipped activation has, by which tables and messages call it.
    value : phi, a function of a number that returns a number and that ``numba.njit`` can compile: it may use the functions of
        ``math``, conditions, and functions that ``numba.njit`` has decorated.
    slope : its derivative, likewise. Without it the slope is a difference of values of order 4, right to some 1e-12 of the
        values nearby, which costs five values instead of two; ``slope_error`` is the distance of two such differences.
    smooth : whether phi is smooth. If not, it is on either side of 0. The exponents that theory gives the drift of kernels, and
        the quadrature of infinite-width limits, depend on it.

    Raises
    ------
    TypeError or ValueError naming the argument: for a value or slope that is no finite number somewhere from -8 to 8, a kink at a
    multiple of 1/8 of what is said to be smooth, a slope that is not the derivative, or one that differences do not tell to 1e-8.
    """

    def __init__(
        self, name: str, value: Callable[[float], float], slope: Callable[[float], float] | None = None, smooth: bool = True
    ) -> None:
        if not isinstance(name, str) or not name.isidentifier() or name in names():
            raise ValueError(f"name must be a word of letters, digits and _ that no shipped activation has; got {name!r}")
        for what, function in (("value", value), ("slope", value if slope is None else slope)):
            if not callable(function):
                raise TypeError(f"{what} of activation {name} must be a function of a number, got {function!r}")
        if not isinstance(smooth, (bool, np.bool_)):
            raise TypeError(f"smooth of activation {name} must be True or False, got {smooth!r}")
        self.name, self.value, self.smooth = name, _plain(value), bool(smooth)
        self.slope = None if slope is None else _plain(slope)
        self.slope_error = max(self._checked(z) for z in _GRID)
        self.about = About(self.smooth, self._gate())
        from ntksim.engine.compiled.function_names import digest_of  # it loads no Numba

        kink = "" if self.smooth else "-kinked"  # which limits and theory depend on
        self.digest = digest_of(self.value) + ("" if self.slope is None else digest_of(self.slope)) + kink
        _own[name] = self

    def __repr__(self) -> str:
        return f"Activation({self.name!r}, {self.digest}, smooth={self.smooth})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Activation) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def _at(self, what: str, z: float) -> float:
        try:
            number = float(getattr(self, what)(z))
        except (ArithmeticError, TypeError, ValueError) as error:
            raise ValueError(f"{what} of activation {self.name} fails at {z:g}: {error}") from None
        if not math.isfinite(number):
            raise ValueError(f"{what} of activation {self.name} must be a finite number, got {number} at {z:g}")
        return number

    def _checked(self, z: float) -> float:
        """The distance of two differences at a point; refuses what the class says."""
        if z == 0 and not self.smooth:
            return 0.0
        one, two = (_difference(lambda x: self._at("value", x), z, step) for step in (STEP, STEP / 2))
        jumps = [self._jump(z, side) for side in (_SIDE, _SIDE / 4)]
        size = max(abs(one), abs(two), 1e-3)
        if self.smooth and jumps[1] > max(0.5 * jumps[0], 1e-4 * size):  # without a kink it falls with the side
            raise ValueError(f"activation {self.name} has a kink at {z:g}: give smooth=False, which allows one at 0")
        if abs(one - two) > 1e-8 * size:
            if self.slope is None:
                raise ValueError(f"differences do not tell the slope of activation {self.name} at {z:g}: give its slope too")
        elif self.slope is not None and not abs(self._at("slope", z) - two) <= 1e-5 * size:
            own = self._at("slope", z)
            raise ValueError(f"slope of activation {self.name} must be {two:.6g} at {z:g}, as its values say; got {own:.6g}")
        return abs(one - two)

    def _jump(self, z: float, side: float) -> float:
        """The distance of the one-sided differences on both sides of a point."""
        before, here, behind = (self._at("value", z + step) for step in (-side, 0.0, side))
        return abs((behind - here) - (here - before)) / side

    def _gate(self) -> str | float | None:
        """What tells whether z is above 0, as far as the points that are looked at show."""
        values, middle = [self._at("value", z) for z in _GRID], self._at("value", 0.0)
        if all((value > middle) == (z > 0) for z, value in zip(_GRID, values, strict=True)):
            return middle
        slopes = [0.0 if z == 0 else _difference(lambda x: self._at("value", x), z, STEP) for z in _GRID]
        return "slope" if all((slope > 0) == (z > 0) for z, slope in zip(_GRID, slopes, strict=True)) else None


_own: dict[str, Activation] = {}  # by name: the last that was made
_GRID = tuple(k / 8 for k in range(-64, 65))
_SIDE = 2.0**-16  # of one-sided differences
STEP = 2.0**-10  # of the differences that a slope is made of: what is left out is 3e-14 of the fifth derivative


def _difference(value: Callable[[float], float], z: float, step: float) -> float:
    return (8 * (value(z + step) - value(z - step)) - (value(z + 2 * step) - value(z - 2 * step))) / (12 * step)


def _plain(function: Any) -> Any:
    """A function as it was before a compiler decorated it."""
    return getattr(function, "py_func", function)


def name_of(activation: str | Activation) -> str:
    """How tables and messages call an activation."""
    return activation if isinstance(activation, str) else activation.name


def is_smooth(activation: str | Activation) -> bool:
    """Whether phi' is continuous, so that the drift of the kernel has the exponents of smooth networks.

    Raises
    ------
    ValueError for the name of no shipped activation, nor of one that was made in this process.
    """
    own = _own.get(activation) if isinstance(activation, str) else activation
    if own is not None:
        return own.smooth
    name, value = parsed(activation)
    smooth = about(name).smooth
    return smooth if isinstance(smooth, bool) else value == smooth
