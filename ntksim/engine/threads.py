"""Threads: one BLAS thread below, seeds outside.

A process that was forked after threads had been used cannot share work among threads again: GNU OpenMP, on which Numba runs,
would end it, and a `multiprocessing.Pool` would start another one for ever. `refuse_forked` says so at once. Calls from several
Python threads need Numba's omp or tbb layer, which it takes where it can.
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import numba
from threadpoolctl import ThreadpoolController

_controller: ThreadpoolController | None = None
_lock, _holders = threading.Lock(), 0
_limit: Any = None
_forked = False


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold every loaded BLAS at one thread: the parallelism is outside, over seeds, or bits are not to depend on threads.

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
    """In the child: whether the parent had used threads, and no lock that another of its threads may have held."""
    global _forked, _lock, _holders
    _lock, _holders = threading.Lock(), 0
    with suppress(ValueError):  # no threads yet
        _forked = _forked or numba.threading_layer() == "omp"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def refuse_forked() -> None:
    """Raise RuntimeError where threads would hang or end the process."""
    if _forked:
        raise RuntimeError(
            "this process was forked after ntksim, or Numba, had used threads, and cannot use them: start processes with "
            'multiprocessing.get_context("spawn"), or fork before the first call'
        )


def spread(count: int, wide: bool, work: Callable[[int, int, int, int], None]) -> None:
    """Call ``work(threads, first, end, step)`` for ``count`` seeds, so that every core is busy.

    Threads have a seed each. What is left when they do not divide the seeds goes one seed after the other with all threads at
    it, if networks are ``wide`` enough to be shared.
    """
    threads = numba.get_num_threads()
    rest = count % threads if wide else 0
    if rest and threads > 1:
        refuse_forked()
    workers = min(threads, count - rest)
    if workers == 1:
        work(1, 0, count - rest, 1)
    elif workers:
        with ThreadPoolExecutor(workers) as pool:
            for done in [pool.submit(work, 1, worker, count - rest, workers) for worker in range(workers)]:
                done.result()
    if rest:
        work(threads, count - rest, count, 1)
