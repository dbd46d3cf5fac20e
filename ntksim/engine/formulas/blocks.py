"""Activations as compiled code uses them: loops over arrays that it calls by address, so that no kernel names an activation.

Compiled code gets a `Phi` and calls :func:`activate` with whole rows of numbers. An activation's loops are compiled when they are
first asked for.
"""

import threading
from importlib import import_module
from typing import Any

import numpy as np
from numba import types
from numba.core.errors import NumbaError

import ntksim.engine.formulas.activations
from ntksim.engine import known_answers
from ntksim.engine.activation import STEP, About, Activation, Phi, about, parsed
from ntksim.engine.compiled.function_names import told_apart
from ntksim.engine.compiled.jit import REALS, CalledByAddress, jit, jit_inline, jit_inner, on_compile_anew, wide_vectors

_LOOP = CalledByAddress(lambda real: (types.float64, real[::1], real[::1]))
_CALL_LOOP = _LOOP.call
_DOUBLES = types.float64[::1]
_DUALS = CalledByAddress(
    lambda real: (types.float64, types.UniTuple(types.float64, 6), types.float64[:, ::1], types.intp, _DOUBLES, _DOUBLES)
)
_CALL_DUALS = _DUALS.call


class Block:
    """A compiled activation.

    ``name`` is its own, ``value_and_slope(z, parameter)`` the scalar function and ``loop(parameter, z, derivative)`` the one that
    :func:`activate` calls; ``module`` holds the closed forms of `formulas.activations`, where it has them; others are None.
    """

    fill_points: Any
    fill_fourth_moments: Any

    def __init__(self, name: str, about: About, value_and_slope: Any, module: Any = None) -> None:
        self.name, self.shipped = name, module is not None
        self.about, self.value_and_slope, self.loop = about, value_and_slope, _loop(value_and_slope)
        self.analytic = about.smooth is True if about.analytic is None else about.analytic
        self.duals, moments, self.gate = (getattr(module, name, None) for name in ("duals", "fourth_moments", "gate"))
        self.fill_points = None if self.duals is None else _fill_points(module.point)
        self.fill_fourth_moments = None if moments is None else _fill_fourth_moments(moments)


def _loop(value_and_slope: Any) -> Any:
    """A vectorised loop that replaces z by the function's value and fills the derivative."""

    def loop(parameter, z, derivative):
        wide_vectors()
        for j in range(z.size):
            z[j], derivative[j] = value_and_slope(z[j], parameter)

    return jit(loop)


def _fill_points(point: Any) -> Any:
    """From standard deviations, the first row of ``points`` (6, n), all that duals know of points."""

    def fill(parameter, points):
        for i in range(points.shape[1]):
            known = point(parameter, points[0, i])
            for k in range(6):
                points[k, i] = known[k]

    return jit(fill)


def _fill_fourth_moments(fourth_moments: Any) -> Any:
    """Fourth moments of all pairs of points of standard deviations s (n,) and ``gaps`` (n, n)."""

    def fill(parameter, s, gaps, squares, cross, slopes):
        for i in range(s.size):
            for j in range(s.size):
                squares[i, j], cross[i, j], slopes[i, j] = fourth_moments(parameter, s[i], s[j], gaps[i, j])

    return jit(fill)


_SHORTEST = 2.0**-30  # step of a difference next to a kink
_lock = threading.RLock()
_codes: dict[str | Activation, int] = {}
_blocks: list[Block] = []  # by code
_loops: dict[int, tuple[int, int]] = {}  # addresses, by code
_duals: dict[int, int] = {}
on_compile_anew(_loops.clear)
on_compile_anew(_duals.clear)


def code_of(activation: str | Activation) -> int:
    """The number of an activation in this process; nothing of it is compiled yet.

    Raises
    ------
    ValueError for an activation that is not known.
    """
    key = activation if isinstance(activation, Activation) else parsed(activation)[0]
    with _lock:  # threads that come first with two activations must not get one number
        if key not in _codes:
            if isinstance(key, Activation):
                _blocks.append(Block(key.name, key.about, _own_scalars(key)))
            else:
                module = import_module(f"{ntksim.engine.formulas.activations.__name__}.{key}")
                _blocks.append(Block(key, about(key), module.value_and_slope, module))
            _codes[key] = len(_blocks) - 1
        return _codes[key]


def _own_scalars(activation: Activation) -> Any:
    """The scalar function of a user's own activation, in float64."""
    value = jit_inline(told_apart(activation.value, always=True))
    if activation.slope is not None:
        given = jit_inline(told_apart(activation.slope, always=True))

        def value_and_slope(z, parameter):
            wide = np.float64(z)
            return np.float64(value(wide)), np.float64(given(wide))

        return jit_inline(value_and_slope)
    smooth = activation.smooth

    def value_and_difference(z, parameter):
        """A difference of order 4, which does not cross a kink at 0."""
        wide = np.float64(z)
        step = STEP if smooth else max(min(STEP, 0.5 * abs(wide)), _SHORTEST)
        near, far = value(wide + step) - value(wide - step), value(wide + 2 * step) - value(wide - 2 * step)
        return np.float64(value(wide)), (8 * near - far) / (12 * step)

    return jit_inline(value_and_difference)


def phi_of(activation: str | Activation, with_duals: bool = False) -> Phi:
    """An activation as compiled code knows it, compiled if it is the first time; ``duals`` is 0 if they are not asked for.

    Raises
    ------
    ValueError for an activation that is not known.
    """
    code, parameter = code_of(activation), 0.0 if isinstance(activation, Activation) else parsed(activation)[1]
    block = _blocks[code]
    while code not in _loops:  # a wrong answer has all forgotten
        try:
            single, double = (_LOOP.address(block.loop, real) for real in REALS)
        except NumbaError as error:
            if isinstance(activation, str):
                raise
            raise ValueError(_refusal(activation, error)) from None
        _loops[code] = single, double
        for real in REALS:
            known_answers.check("activation", real.name, activation=block.name)
    if with_duals and code not in _duals:
        _duals[code] = 0 if block.duals is None else _DUALS.address(block.duals)
    return Phi(code, parameter, *_loops[code], _duals[code] if with_duals else 0)


def _refusal(activation: Activation, error: Exception) -> str:
    why = next((line for line in str(error).splitlines() if "Untyped" in line or "Unknown" in line), str(error).splitlines()[0])
    return (
        f"activation {activation.name} cannot be compiled ({why.strip()}): its functions may use numbers, conditions, the "
        "functions of math, and functions that numba.njit has decorated"
    )


def block_of(code: int) -> Block:
    """The compiled activation of a code.

    Raises
    ------
    ValueError for a code that no activation of this process has.
    """
    if not 0 <= code < len(_blocks):
        raise ValueError(f"no activation has the code {code}: this process uses {len(_blocks)}")
    return _blocks[code]


@jit_inner
def activate(phi, z, derivative):
    """Replace the flat array ``z`` by phi(z) and fill ``derivative`` with phi'(z), of a `Phi` or a `Net` with its fields."""
    address = phi.single if z.itemsize == 4 else phi.double
    if address == 0:
        raise ValueError("an activation without loops: compiled code knows those that `phi_of` gives")
    _CALL_LOOP(address, (phi.parameter, z, derivative))


@jit
def closed_duals(phi, one, points, first, gap, slope):
    """A row of pairs by the activation's closed forms, in place: see `formulas.duals`."""
    if phi.duals == 0:
        raise ValueError("an activation whose expectations have no closed form")
    _CALL_DUALS(phi.duals, (phi.parameter, one, points, first, gap, slope))


def gated(net: Any, values: Any, slopes: Any) -> tuple[Any, float]:
    """Whichever of phi(z) and phi'(z) is above a number exactly where z is above 0, and the number; None where neither is."""
    block = block_of(net.code)
    gate = block.about.gate if block.gate is None else block.gate(net.parameter)
    if isinstance(gate, float):
        return values, gate
    return {"value": values, "slope": slopes, None: None}[gate], 0.0


# What a pair expectation E[g(u) g(v)] integrates: the activation and its slope, or the factors of a kernel's variance.
MEANS, SQUARES, CROSS = 0, 1, 2


@jit
def pair_factors(factors, phi, z, g):
    """Fill ``z`` and ``g`` with two functions of z: phi and phi' (MEANS), their squares (SQUARES), or phi phi' twice (CROSS)."""
    activate(phi, z, g)
    for i in range(z.size):
        value, slope = z[i], g[i]
        if factors == SQUARES:
            z[i], g[i] = value * value, slope * slope
        elif factors == CROSS:
            z[i], g[i] = value * slope, value * slope
