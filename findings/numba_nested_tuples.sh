#!/usr/bin/env bash
# Numba 0.68.1, NumPy 2.4.6 (Python 3.11): a named tuple inside another one compiles with `njit`, but not where a `prange` reads it.
#
# With `parallel=True` the loop's body becomes a function of its own, whose arguments are the outer tuple's entries, taken apart
# once. An entry that is a tuple itself is neither a scalar nor an array: "scalar type Inner(float64 x 2) given for non scalar
# argument". A flat tuple of the same numbers works.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3.11 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numba==0.68.1 numpy==2.4.6
cat > "$work/tuples.py" <<'PY'
from typing import NamedTuple

import numpy as np
from numba import njit, prange


class Inner(NamedTuple):
    a: float
    b: float


class Outer(NamedTuple):
    inner: Inner
    x: np.ndarray


class Flat(NamedTuple):
    a: float
    x: np.ndarray


def nested(t, out):
    for i in prange(out.size):
        out[i] = t.inner.a * t.x[i]


def flat(t, out):
    for i in prange(out.size):
        out[i] = t.a * t.x[i]


x = np.arange(4.0)
for name, function, given, parallel in [
    ("nested, one thread", nested, Outer(Inner(2.0, 3.0), x), False),
    ("nested, parallel", nested, Outer(Inner(2.0, 3.0), x), True),
    ("flat, parallel", flat, Flat(2.0, x), True),
]:
    out = np.zeros(4)
    try:
        njit(parallel=parallel)(function)(given, out)
        print(f"{name}: {out.tolist()}")
    except TypeError as error:
        print(f"{name}: {str(error).splitlines()[0]}")
PY
found=$("$work/venv/bin/python" "$work/tuples.py"); echo "$found"
[ "$found" = "nested, one thread: [0.0, 2.0, 4.0, 6.0]
nested, parallel: scalar type Inner(float64 x 2) given for non scalar argument #2
flat, parallel: [0.0, 2.0, 4.0, 6.0]" ]
