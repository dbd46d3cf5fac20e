#!/usr/bin/env bash
# Numba 0.68.1 (Python 3.11): the error about a changed NUMBA_NUM_THREADS names its two numbers the wrong way round.
#
# A process is started with NUMBA_NUM_THREADS=2 and launches its threads. Its environment then says 1, and the next compilation
# reads it. Two threads run and one is asked for, but the message is
#
#   Cannot set NUMBA_NUM_THREADS to a different value once the threads have been launched (currently have 1, trying to set 2)
#
# The usual cause is a program that sets the variable after something else has imported Numba already.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numba==0.68.1 llvmlite==0.50.0 numpy==2.4.6
cat > "$work/example.py" <<'PY'
import os

import numba

print(numba.get_num_threads(), "threads run")
os.environ["NUMBA_NUM_THREADS"] = "1"
try:
    numba.njit(lambda x: x)(1)
except RuntimeError as error:
    print(error)
PY
found=$(NUMBA_NUM_THREADS=2 "$work/venv/bin/python" "$work/example.py")
echo "$found"
grep -q "^2 threads run" <<< "$found" && grep -q "(currently have 1, trying to set 2)" <<< "$found"
