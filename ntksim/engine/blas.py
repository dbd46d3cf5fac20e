"""BLAS at one thread: the parallelism is outside, over seeds, and bits do not depend on how many threads there are.

Numba is not loaded: the workflow reads what needs this module in every job, before the number of its threads is known.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import ThreadpoolController

_controller: ThreadpoolController | None = None
_lock, _holders = threading.Lock(), 0
_limit: Any = None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold every loaded BLAS at one thread.

    The number of threads is the process's own: it goes back when the last of several Python threads leaves.
    """
    global _controller, _holders, _limit
    with _lock:
        if _holders == 0:
            if _controller is None:
                _controller = ThreadpoolController()
            _limit = _controller.limit(limits=1, user_api="blas")
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0:
                _limit.restore_original_limits()


def _after_fork() -> None:
    """In the child: no lock that another thread of the parent may have held."""
    global _lock, _holders
    _lock, _holders = threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
