"""Threads: a seed each, or all of them at one wide network; and slices of work, between which a call can be stopped.

Python notices Ctrl-C in the main thread, between two calls of compiled code. So long calls are made in slices of ``SLICE``
operations, some tenths of a second. Where the main thread waits for others, these are told by a flag that they look at between
two slices (:func:`check`). No number depends on where slices end. Slices also tell of the seeds that are done (:func:`advance`):
bars show them, by tqdm, which nothing else needs, and which has bars of its own for notebooks.

A process that was forked after threads had been used cannot share work among threads again: GNU OpenMP, on which Numba runs,
would end it, and a `multiprocessing.Pool` would start another one for ever. `refuse_forked` says so at once. Calls from several
Python threads need Numba's omp or tbb layer, which it takes where it can.

Threads that share a network wait for each other at every layer. GNU OpenMP's waiting threads keep a processor busy for
milliseconds before they sleep, which other work on the machine, the thread that is waited for too, cannot use: a step would take
ten times as long as on one thread. So they are told to sleep after some tens of microseconds, unless the environment says how
they are to wait.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TypeVar

import numba
import numpy as np

from ntksim.engine.arguments import flag

if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
    os.environ["GOMP_SPINCOUNT"] = "1000"  # turns of its loop; GNU OpenMP reads it when it is loaded

SLICE = 1 << 33  # floating-point operations of a thread between two looks at whether to stop
_MISSED = 0.5  # seconds until the main thread notices a signal that it has missed
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} seeds [{elapsed}<{remaining}{postfix}]"
T = TypeVar("T")
_forked = False
_own = threading.local()  # the call that this thread works for


class Call:
    """What the threads of one call share: whether to stop, and what to tell of seeds that are done, if anything."""

    def __init__(self, show: Callable[[float, float | None], None] | None = None) -> None:
        self.stop, self.show = threading.Event(), show


class Stopped(Exception):
    """The call that this thread works for has been interrupted, or has failed in another thread."""


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


def current() -> Call | None:
    """The call that this thread works for; None where nobody but Python itself can stop it, and nothing is shown."""
    return getattr(_own, "call", None)


def check() -> None:
    """Raise Stopped where the call that this thread works for has ended; in the main thread Python raises KeyboardInterrupt."""
    call = current()
    if call is not None and call.stop.is_set():
        raise Stopped


def advance(seeds: float, time: float | None = None) -> None:
    """Tell that so many more seeds, or so much of one, are done; in training the time that one has reached."""
    call = current()
    if call is not None and call.show is not None:
        call.show(seeds, time)


@contextmanager
def working_for(call: Call) -> Iterator[None]:
    """Let this thread work for a call."""
    before, _own.call = current(), call
    try:
        yield
    finally:
        _own.call = before


def another(parts: float = 1.0) -> Call:
    """A call within the current one, shown where that is; what it tells of is one of ``parts`` of a seed."""
    call = current()
    show = None if call is None else call.show
    return Call(None if show is None else lambda seeds, time: show(seeds / parts, time))


def together(count: int, pool: Callable[[int], ThreadPoolExecutor], work: Callable[[int], T]) -> list[T]:
    """``work(0)``, ``work(1)``, ... at the same time, each in a thread of ``pool(number)``; what each returns.

    Where one fails, or Ctrl-C comes, the others are stopped and waited for, and what was first is raised.
    """
    call, ended = another(), SimpleQueue[bool]()  # of each thread, and of Ctrl-C, whether the others are to end too

    def own(number: int) -> T:
        failed = True
        try:
            with working_for(call):
                found = work(number)
            failed = False
            return found
        finally:
            ended.put(failed)

    with _interrupt_later(lambda: ended.put(True)):
        try:
            running = [pool(number).submit(own, number) for number in range(count)]
            any(_next(ended) for _ in running)  # waits for all, or for the first that is to end the others
        finally:  # where no more threads can be had too
            call.stop.set()
        faults = [fault for each in running if (fault := each.exception()) is not None]
    for fault in sorted(faults, key=lambda fault: isinstance(fault, Stopped)):
        raise fault
    return [each.result() for each in running]


@contextmanager
def _interrupt_later(tell: Callable[[], object]) -> Iterator[None]:
    """Where Ctrl-C raises KeyboardInterrupt in the main thread, have it call ``tell``, and raise that at the end of the block.

    The standard library's pools and futures are Python code, which it would leave anywhere: with locks that stay locked, and
    threads that nobody knows of. Such blocks are not nested.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    raised: list[BaseException] = []

    def later(number: int, frame: FrameType | None) -> None:
        try:
            before(number, frame)
        except BaseException as error:
            raised.append(error)
            tell()

    signal.signal(signal.SIGINT, later)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if raised:
            raise raised[0]


def _next(queue: SimpleQueue[T]) -> T:
    """What comes next in a queue; Python misses a signal that comes just as it begins to wait, so it never waits for long."""
    while True:
        with suppress(Empty):
            return queue.get(timeout=_MISSED)


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
            together(workers, lambda _: pool, lambda worker: work(1, worker, count - rest, workers))
    if rest:
        work(threads, count - rest, count, 1)


# --- slices -----------------------------------------------------------------------------------------------------------


def runs(first: int, end: int, step: int, operations: float, threads: int = 1) -> Iterator[tuple[int, int]]:
    """first, first + step, ... below ``end`` in runs of about a slice: where each begins and ends; each takes ``operations``."""
    stride = step * max(1, int(SLICE * threads / operations))
    for begin in range(first, end, stride):
        check()
        yield begin, min(end, begin + stride)


def window() -> np.ndarray:
    """Which parts of its work a compiled function does, the first and the end, -1 for all; and a place to count them."""
    return np.array([-1, 0, 0])


def in_slices(parts: np.ndarray, call: Callable[[], object], operations: float, threads: int = 1) -> None:
    """Call compiled code whose ``parts`` are a :func:`window`, as often as its ``operations`` have slices.

    A call that returns False is the last one.
    """
    check()
    if operations < 2 * SLICE * threads:
        call()
        return
    try:
        parts[:] = 0
        call()  # does nothing but count
        count = int(parts[2])
        some = max(1, int(count * SLICE * threads / operations))
        for begin in range(0, count, some):
            check()
            parts[:] = begin, begin + some, 0
            if call() is False:
                return
    finally:
        parts[:] = window()


def seeds_in_slices(
    seeds: range, parts: np.ndarray, call: Callable[[int, int], object], operations: float, threads: int = 1
) -> None:
    """Call ``call(first, end)`` for runs of seeds, or for many parts of each, whose ``operations`` are those of one seed."""
    for first, end in runs(seeds.start, seeds.stop, seeds.step, operations, threads):
        some = len(range(first, end, seeds.step))
        in_slices(parts, partial(call, first, end), some * operations, threads)
        advance(some)


# --- bars -------------------------------------------------------------------------------------------------------------


@contextmanager
def shown(progress: object, seeds: int, what: str, unit: float = 1.0) -> Iterator[None]:
    """Show a bar of ``seeds`` seeds while the calls inside tell of theirs, if ``progress`` is True.

    Times that they tell are shown in units of ``unit``.

    Raises
    ------
    TypeError for another kind of ``progress``; ModuleNotFoundError where tqdm is not installed.
    """
    if not flag("progress", progress):
        yield
        return
    try:
        from tqdm.auto import tqdm
    except ModuleNotFoundError:
        raise ModuleNotFoundError("progress=True needs the package tqdm: pip install tqdm, or leave progress out") from None
    lock, bar = threading.Lock(), tqdm(total=seeds, desc=what, bar_format=_BAR)

    def show(some: float, time: float | None) -> None:
        with lock:
            if time is not None:
                bar.set_postfix_str(f"t = {time / unit:.3g}", refresh=False)
            bar.update(some)

    try:
        with working_for(Call(show)):
            yield
    finally:
        bar.close()
