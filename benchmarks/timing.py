"""Times: the best of several warm runs, in alternation with a peer that runs in a process and an environment of its own.

Machines are noisy and their clocks wander, so what is compared takes turns within one run. Standard library alone: the
peers' environment has neither Numba nor this package.
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
TURN = 0.2  # seconds of a turn in an alternation; a turn is at least one call
ENOUGH = 20.0  # seconds after which a slow function is not called again for the sake of a better time


class PeerError(Exception):
    """A peer could not be timed; the message says why."""


def best(function: Callable[[], object], seconds: float = 1.5, least: int = 3, warm: bool = True) -> float:
    """The shortest of several calls, after one that warms up if ``warm``; of a slow function, fewer than ``least``."""
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
    """A function that gives the best time of one turn."""
    return lambda: best(function, TURN, 1, warm=False)


def alternate(
    ours: Callable[[], object], other: Callable[[], float], seconds: float = 3.0, least: int = 3
) -> tuple[float, float]:
    """The best times of ``ours`` and of ``other``, turn by turn; ``other`` gives the time of a turn itself."""
    begin = time.perf_counter()
    ours()
    start = time.perf_counter()
    mine, theirs = [], []
    while not mine or time.perf_counter() < start + seconds or (len(mine) < least and time.perf_counter() < begin + ENOUGH):
        mine.append(one_turn(ours)())
        theirs.append(other())
    return min(mine), min(theirs)


def fresh(*arguments: object, **environment: str) -> dict[str, float]:
    """What fresh.py prints in a process of its own, and ``wall``: the seconds of the whole process."""
    command = [sys.executable, str(HERE / "fresh.py"), *(str(a) for a in arguments)]
    start = time.perf_counter()
    done = subprocess.run(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True)
    wall = time.perf_counter() - start
    return {**json.loads(done.stdout or "{}"), "wall": wall}


class Peer:
    """peers.py in its own environment, in one precision: a line of JSON to it, a line of JSON back.

    Raises
    ------
    PeerError if there is no such environment, or when the peer fails.
    """

    def __init__(self, dtype: str) -> None:
        python = ENVIRONMENT / "bin" / "python"
        if not (ENVIRONMENT / ".complete").exists():
            why = ENVIRONMENT / "skipped"
            raise PeerError(why.read_text().strip() if why.exists() else f"no {ENVIRONMENT.name}; `make bench` makes it")
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
        """Compile and check every way to do a task, and keep the fastest; seconds of each, the fastest first."""
        return self._ask(task=task, arguments=arguments)["ways"]

    def turn(self) -> float:
        """Best time of one turn of what was prepared."""
        return self._ask(turn=TURN)["seconds"]

    def close(self) -> None:
        """Let it end: it does when its input ends."""
        with contextlib.suppress(OSError):  # it may have died
            self._process.stdin.close()
        self._process.wait()
