#!/usr/bin/env bash
# Numba 0.68.1 (llvmlite 0.50.0, Python 3.11): a function compiled with cache=True can call the wrong closure, silently.
#
# A factory makes two closures, `double` and `triple`, with one qualified name. In machine code their symbols differ by a number
# alone that Numba counts up in each process. A closure that is loaded from the cache uses up no number, so the next one that is
# compiled takes the symbol of the loaded one. A third function that calls both is then linked with one body for both.
#
#   process 1 calls double(1.0) and fills the cache             -> 2.0
#   process 2 calls double, triple, both(1.0) = 100 double + triple -> 2.0 3.0 202.0   (203.0 is right)
#   process 3, all from the cache, repeats it                   -> 2.0 3.0 202.0
#
# Called from Python each closure is right; only compiled callers see the mix-up. A qualified name of its own for every closure
# (set __qualname__ before decorating) avoids it: the last run prints 203.0. Numba issue 10486 describes the same for forked processes.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numba==0.68.1 llvmlite==0.50.0 numpy==2.4.6
cat > "$work/example.py" <<'PY'
import os

from numba import njit


def scaled(factor):
    def times(x):
        return x * factor

    if os.environ.get("OWN_NAMES"):
        times.__qualname__ += f"_{factor:g}"
    return njit(cache=True)(times)


double, triple = scaled(2.0), scaled(3.0)


@njit(cache=True)
def both(x):
    return 100.0 * double(x) + triple(x)
PY
run() { (cd "$work" && NUMBA_CACHE_DIR="$work/$1" ${3:+env OWN_NAMES=1} venv/bin/python -c "from example import *; print($2)"); }
all="double(1.0), triple(1.0), both(1.0)"
first=$(run shared "double(1.0)"); second=$(run shared "$all"); third=$(run shared "$all")
run named "double(1.0)" own > /dev/null; named=$(run named "$all" own)
echo "process 1: $first"; echo "process 2: $second"; echo "process 3: $third"; echo "with names of their own: $named"
[ "$first" = "2.0" ] && [ "$second" = "2.0 3.0 202.0" ] && [ "$third" = "2.0 3.0 202.0" ] && [ "$named" = "2.0 3.0 203.0" ]
