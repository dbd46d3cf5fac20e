#!/usr/bin/env bash
# Numba 0.68.1 (llvmlite 0.50.0, Python 3.11): forceinline=True goes over to callees, or not, by which is compiled first.
#
# `leaf` is decorated with plain njit, `inlined` with njit(forceinline=True) and calls it. If `leaf` is compiled on the way, as a
# callee of `inlined`, its LLVM code has the attribute alwaysinline, and keeps it for all later callers. If `leaf` was called
# before, it has not. njit(forceinline=False) on the callee holds it off.
#
#   leaf first, then inlined -> alwaysinline in leaf: False
#   inlined alone            -> alwaysinline in leaf: True
#   inlined alone, leaf with forceinline=False -> False
#
# A callee that asks LLVM for "noinline" (by an intrinsic) then fails to compile: the two attributes exclude each other.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numba==0.68.1 llvmlite==0.50.0 numpy==2.4.6
cat > "$work/example.py" <<'PY'
import re
import sys

from numba import njit


def double(x):
    return 2.0 * x


leaf = njit(forceinline=False)(double) if "explicit" in sys.argv else njit(double)


@njit(forceinline=True)
def inlined(x):
    return leaf(x) + 1.0


@njit
def outer(x):
    return inlined(x)


if "first" in sys.argv:
    leaf(1.0)
outer(1.0)
(code,) = leaf.inspect_llvm().values()
groups = re.findall(r"^define .*double.* (#\d+)", code, re.MULTILINE)
attributes = dict(re.findall(r"^attributes (#\d+) = \{(.*)\}", code, re.MULTILINE))
print(any("alwaysinline" in attributes[group] for group in groups))
PY
run() { "$work/venv/bin/python" "$work/example.py" "$@"; }
first=$(run first); alone=$(run alone); explicit=$(run explicit)
echo "leaf first: $first"; echo "on the way: $alone"; echo "explicitly off: $explicit"
[ "$first" = "False" ] && [ "$alone" = "True" ] && [ "$explicit" = "False" ]
