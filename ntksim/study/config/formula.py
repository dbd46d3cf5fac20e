"""Targets and densities as formulas, in a small closed grammar that is read here; Python's own evaluation has no part in it.

    sum       [+ | -] product, and any number of + product, - product
    product   signed, and any number of * signed, / signed; a number or pi may stand before a name or a parenthesis without *
    signed    any number of + and -, then a power
    power     atom, or atom ^ whole number
    atom      a number, pi, a coordinate (x1, x2, ...; theta on the circle), (sum), sin(sum), cos(sum), exp(sum), or
              gegenbauer(degree, sum)

``gegenbauer(k, u)`` is P_k(u / |x|), the Gegenbauer polynomial of degree k of the sphere S^(d-1) with P_k(1) = 1 at the cosine
u / |x|. With u = x1, or another coordinate such as 0.6 x1 + 0.8 x2, it is a spherical harmonic of degree k on spheres about 0.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import numpy as np

from ntksim.engine.infinite.harmonics import circle_angles, gegenbauer
from ntksim.study.errors import StageError, shown

FUNCTIONS = {"sin": np.sin, "cos": np.cos, "exp": np.exp}
_MOST_POWER = 100  # of exponents and degrees
_DEEPEST = 50  # parentheses inside one another
_TOKEN = re.compile(
    r"(?P<number>(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<blank>\s+)|(?P<symbol>.)", re.ASCII | re.DOTALL
)
_OPERATOR = "an operator (+ - * / ^)"

_Values = Callable[[np.ndarray], np.ndarray]  # of points (n, d), (n,)


@dataclass(frozen=True)
class Formula:
    """A function of points; ``key`` is that of the configuration, ``text`` the formula as it is written there."""

    key: str
    text: str
    values: _Values

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Values (n,) at points (n, d). Raises StageError if one of them is not finite."""
        with np.errstate(all="ignore"):
            values = self.values(points)
        if len(bad := np.flatnonzero(~np.isfinite(values))):
            raise StageError(
                f"{self.key}: {shown(self.text)} is {values[bad[0]]:g} at {len(bad)} of {len(values)} points, for example at "
                f"{shown(points[bad[0], :4].tolist())}; give a formula that is finite everywhere"
            )
        return values


def formula(key: str, text: str, features: int, *, on_circle: bool) -> Formula:
    """Read a formula of points with so many features.

    Raises StageError, with the column (counted from 1) where the formula stops being one, and what was expected there.
    """
    return Formula(key, text, _Reader(key, text, features, on_circle).formula())


class _Token(NamedTuple):
    kind: str
    text: str
    column: int


class _Reader:
    """A reader by recursive descent: a method for each line of the grammar, which returns the function that it reads."""

    def __init__(self, key: str, text: str, features: int, on_circle: bool) -> None:
        self._key, self._features, self._on_circle = key, features, on_circle
        found = [(match.lastgroup or "", match[0], match.start() + 1) for match in _TOKEN.finditer(text)]
        self._tokens = [_Token(*token) for token in found if token[0] != "blank"] + [_Token("end", "the end", len(text) + 1)]
        self._at = self._depth = 0

    def formula(self) -> _Values:
        values = self._sum()
        if self._next.kind != "end":
            raise self._expected(f"{_OPERATOR} or the end")
        return values

    def _sum(self) -> _Values:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._expected(f"at most {_DEEPEST} parentheses inside one another")
        terms = [self._product()]
        while self._next.text in ("+", "-"):
            terms.append(_negative(self._product()) if self._take().text == "-" else self._product())
        self._depth -= 1
        return terms[0] if len(terms) == 1 else lambda points: reduce(np.add, [term(points) for term in terms])

    def _product(self) -> _Values:
        factors = [self._signed()]
        divides = False
        while True:
            if self._next.text in ("*", "/"):
                divides = self._take().text == "/"
                factors.append(_inverse(self._signed()) if divides else self._signed())
            elif self._follows_number and (self._next.kind == "name" or self._next.text == "("):
                if divides:  # 1 / 2 theta would be read in two ways
                    raise self._expected(f"{_OPERATOR}, or parentheses around what stands after /")
                factors.append(self._power())
            else:
                return factors[0] if len(factors) == 1 else lambda points: reduce(np.multiply, [each(points) for each in factors])

    def _signed(self) -> _Values:
        negative = False
        while self._next.text in ("+", "-"):
            negative ^= self._take().text == "-"
        values = self._power()
        return _negative(values) if negative else values

    def _power(self) -> _Values:
        base = self._atom()
        if self._next.text != "^":
            return base
        self._take()
        exponent = self._whole_number("an exponent")
        return lambda points: base(points) ** exponent

    def _atom(self) -> _Values:
        token = self._next
        if token.kind == "number":
            number = float(self._take().text)
            if math.isinf(number):
                self._at -= 1
                raise self._expected("a number below 1.8e308")
            return lambda points: np.full(len(points), number)
        if token.text == "(":
            return self._parenthesis()
        if token.text == "pi":
            self._take()
            return lambda points: np.full(len(points), np.pi)
        if token.text in FUNCTIONS:
            self._take()
            inner = self._parenthesis()
            return lambda points: FUNCTIONS[token.text](inner(points))
        if token.text == "gegenbauer":
            return self._gegenbauer()
        return self._coordinate()

    def _coordinate(self) -> _Values:
        token = self._next
        if token.text == "theta" and self._on_circle:
            self._take()
            return circle_angles
        index = int(token.text[1:]) if re.fullmatch(r"x[1-9]\d{0,9}", token.text) else 0
        if not 1 <= index <= self._features:
            own = ["theta"] if self._on_circle else []
            last = f"x{self._features}"
            own += ["x1", "x2"] if self._features == 2 else [f"x1 to {last}"]
            raise self._expected(f"a number, {', '.join(own)}, pi, {', '.join(FUNCTIONS)}, gegenbauer or (")
        self._take()
        return lambda points: points[:, index - 1]

    def _parenthesis(self) -> _Values:
        self._symbol("(")
        values = self._sum()
        self._symbol(")", f"{_OPERATOR} or )")
        return values

    def _gegenbauer(self) -> _Values:
        self._take()
        self._symbol("(")
        degree = self._whole_number("a degree")
        self._symbol(",")
        inner = self._sum()
        self._symbol(")", f"{_OPERATOR} or )")

        def values(points: np.ndarray) -> np.ndarray:
            cosines = inner(points) / np.linalg.norm(points, axis=1)
            return gegenbauer(cosines, points.shape[1], degree + 1)[degree]

        return values

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    @property
    def _follows_number(self) -> bool:
        """Whether what was read last is a number, or pi, that is no exponent."""
        before, last = self._tokens[max(self._at - 2, 0)], self._tokens[self._at - 1]
        return last.text == "pi" or (last.kind == "number" and before.text != "^")

    def _take(self) -> _Token:
        self._at += 1
        return self._tokens[self._at - 1]

    def _symbol(self, symbol: str, expected: str | None = None) -> None:
        if self._next.text != symbol:
            raise self._expected(expected or symbol)
        self._take()

    def _whole_number(self, what: str) -> int:
        if not self._next.text.isdecimal() or len(self._next.text) > 9 or int(self._next.text) > _MOST_POWER:
            raise self._expected(f"{what}, a whole number from 0 to {_MOST_POWER}")
        return int(self._take().text)

    def _expected(self, what: str) -> StageError:
        token = self._next
        got = token.text if token.kind == "end" else shown(token.text)
        if token.text == "theta" and not self._on_circle:
            got = "'theta', which only name: circle has"
        return StageError(f"{self._key}: column {token.column}: expected {what}, got {got}")


def _negative(values: _Values) -> _Values:
    return lambda points: -values(points)


def _inverse(values: _Values) -> _Values:
    return lambda points: 1 / values(points)
