"""Threads: one BLAS thread below, seeds outside.

A process that has shared a network among threads must not be forked (use multiprocessing's "spawn"): GNU OpenMP, on which
Numba runs, ends its children. Calls from several Python threads need Numba's omp or tbb layer, which it takes where it can.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numba
from threadpoolctl import ThreadpoolController

_controller: ThreadpoolController | None = None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold every loaded BLAS at one thread: the parallelism is outside, over seeds."""
    global _controller
    if _controller is None:
        _controller = ThreadpoolController()
    with _controller.limit(limits=1, user_api="blas"):
        yield


def spread(count: int, wide: bool, work: Callable[[int, int, int, int], None]) -> None:
    """Call ``work(threads, first, end, step)`` for ``count`` seeds, so that every core is busy.

    Threads have a seed each. What is left when they do not divide the seeds goes one seed after the other with all threads at
    it, if networks are ``wide`` enough to be shared.
    """
    threads = numba.get_num_threads()
    rest = count % threads if wide else 0
    workers = min(threads, count - rest)
    if workers == 1:
        work(1, 0, count - rest, 1)
    elif workers:
        with ThreadPoolExecutor(workers) as pool:
            for done in [pool.submit(work, 1, worker, count - rest, workers) for worker in range(workers)]:
                done.result()
    if rest:
        work(threads, count - rest, count, 1)
