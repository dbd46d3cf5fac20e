"""Threads: a seed each, or all of them at one wide network.

A process that was forked after threads had been used cannot share work among threads again: GNU OpenMP, on which Numba runs,
would end it, and a `multiprocessing.Pool` would start another one for ever. `refuse_forked` says so at once. Calls from several
Python threads need Numba's omp or tbb layer, which it takes where it can.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numba

_forked = False


def _after_fork() -> None:
    """In the child: whether the parent had used threads."""
    global _forked
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
