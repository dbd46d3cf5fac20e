"""Timing: the best of several warm runs, alternating with a peer that runs in a separate process and environment.

Machines are noisy and their clock rates change, so two things that are compared take turns within one run. This module imports
only the standard library, since the peers' environment has neither Numba nor ntksim.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ENVIRONMENT = HERE.parent / ".venv-peers"
TURN = 0.2  # seconds of one turn; a turn has at least one call
ENOUGH = 20.0  # seconds after which a slow function is not called again


class PeerError(Exception):
    """A peer could not be timed; the message says why."""


def best(function: Callable[[], object], seconds: float = 1.5, least: int = 3, warm: bool = True) -> float:
    """Seconds of the fastest of several calls, at least ``least`` unless they are slow; with ``warm`` after a call to warm up."""
    begin = time.perf_counter()
    if warm:
        function()
    shortest, total, calls = float("inf"), 0.0, 0
    while calls == 0 or total < seconds or (calls < least and time.perf_counter() < begin + ENOUGH):
        start = time.perf_counter()
        function()
        spent = time.perf_counter() - start
        shortest, total, calls = min(shortest, spent), total + spent, calls + 1
    return shortest


def one_turn(function: Callable[[], object]) -> Callable[[], float]:
    """A function that runs one turn and returns its best time in seconds."""
    return lambda: best(function, TURN, 1, warm=False)


def alternate(
    ours: Callable[[], object], other: Callable[[], float], seconds: float = 3.0, least: int = 3
) -> tuple[float, float]:
    """Best times of ``ours`` and of ``other``, which take turns. ``other`` runs a whole turn and returns its best time."""
    begin = time.perf_counter()
    ours()
    start = time.perf_counter()
    mine, theirs = [], []
    while not mine or time.perf_counter() < start + seconds or (len(mine) < least and time.perf_counter() < begin + ENOUGH):
        mine.append(one_turn(ours)())
        theirs.append(other())
    return min(mine), min(theirs)


def fresh(*arguments: object, **environment: str) -> dict[str, float]:
    """Run a task of fresh.py in a new process; return what it prints, and ``wall``, the seconds of the whole process."""
    command = [sys.executable, str(HERE / "fresh.py"), *(str(a) for a in arguments)]
    start = time.perf_counter()
    done = subprocess.run(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True)
    wall = time.perf_counter() - start
    return {**json.loads(done.stdout or "{}"), "wall": wall}


class Peer:
    """A process that runs peers.py in the peers' environment, for one precision. Requests and replies are lines of JSON.

    Raises
    ------
    PeerError if the environment does not exist, or when the peer fails.
    """

    def __init__(self, dtype: str) -> None:
        python = ENVIRONMENT / "bin" / "python"
        if not (ENVIRONMENT / ".complete").exists():
            why = ENVIRONMENT / "skipped"
            raise PeerError(why.read_text().strip() if why.exists() else f"{ENVIRONMENT.name} is missing; run `make bench`")
        command = [str(python), str(HERE / "peers.py"), dtype]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _ask(self, **request: Any) -> dict[str, Any]:
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise PeerError(f"its process ended with status {self._process.wait()}")
        reply = json.loads(line)
        if "error" in reply:
            raise PeerError(reply["error"])
        return reply

    def prepare(self, task: str, **arguments: Any) -> dict[str, float]:
        """Compile and check every variant of a task, and keep the fastest; return the seconds of each, the fastest first."""
        return self._ask(task=task, arguments=arguments)["ways"]

    def turn(self) -> float:
        """Best time of one turn of the variant that was kept."""
        return self._ask(turn=TURN)["seconds"]

    def close(self) -> None:
        """Close the peer's input, which ends its process."""
        with contextlib.suppress(OSError):  # it may have died
            self._process.stdin.close()
        self._process.wait()
