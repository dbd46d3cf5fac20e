"""Training on the CPU: parameters are one flat array, and rooms are those of `layout`."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from ntksim.engine.cpu import shallow
from ntksim.engine.cpu.descent import advance, evaluate_at, pull_back_at, square_distance_and_norm
from ntksim.engine.cpu.draws import draw_into
from ntksim.engine.cpu.passes import group_rows, read_kernel
from ntksim.engine.cpu.product import padded_points
from ntksim.engine.cpu.shallow import Sweep, is_shallow, make_sweep, worth_sharing
from ntksim.engine.formulas.blocks import gated
from ntksim.engine.layout import (
    Pairs,
    Room,
    Weights,
    aligned,
    for_descent,
    make_room,
    operations_of_pass,
    parameter_offsets,
    stored_weights,
)
from ntksim.engine.machine import Inside, Machine, Points, Step, Task, inside_of, shift_parameters
from ntksim.engine.threads import in_slices, runs

_STEP = 1 << 15  # operations that a step of the smallest network takes the time of


class _Batch(NamedTuple):
    """Room for steps of descent, and the points that it holds."""

    room: Room
    pairs: Pairs


class CpuMachine(Machine):
    """A network whose parameters are a flat array (numbers,)."""

    def __init__(self, threads: int, seed: np.uint64, task: Task) -> None:
        super().__init__(threads, seed, task)
        self.offsets, self.rows = parameter_offsets(self.net), group_rows(threads, self.net)
        self.test_room: Room | None = None

    def _weights(self, theta: np.ndarray) -> Weights:
        return stored_weights(self.net, theta)

    def draw(self) -> np.ndarray:
        theta = self.zeros()
        draw_into(self.seed, self.net, self._weights(theta))
        return theta

    def zeros(self) -> np.ndarray:
        return aligned(self.offsets[-1], self.kind)

    def copy(self, theta: np.ndarray) -> np.ndarray:
        twin = self.zeros()
        twin[:] = theta
        return twin

    def pack(self, theta: np.ndarray) -> np.ndarray:
        return theta

    def unpack(self, array: np.ndarray) -> np.ndarray:
        return self.copy(array)

    def square_distances(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return self._squares(a, b)[:, 0]

    def square_norms(self, start: np.ndarray) -> np.ndarray:
        return self._squares(start, start)[:, 1]

    def _squares(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """||a_l - b_l||^2 and ||b_l||^2, (L+1, 2)."""
        spans = zip(self.offsets[:-1:2], self.offsets[2::2], strict=True)
        return np.array([square_distance_and_norm(a[begin:end], b[begin:end]) for begin, end in spans])

    def make_room(self) -> Room:
        return self._with_kernels((self.columns, self.pairs))

    def _with_kernels(self, points: Points) -> Room:
        return make_room(self.net, *points, self.rows, streamed=False, backward=True, kernel=True, by_layer=True)

    def evaluate(self, theta: np.ndarray, room: Room) -> tuple[np.ndarray, np.ndarray]:
        outputs = self._outputs(theta, room, self.pairs)
        return outputs, self._kernels(room, self.pairs)

    def _outputs(self, theta: np.ndarray, room: Room, pairs: Pairs) -> np.ndarray:
        """Outputs (n k,) at ``theta``; as far as ``room`` has room for it the kernel stays there."""
        run = partial(evaluate_at, self.threads, self.seed, self.net, self._weights(theta), room, pairs)
        in_slices(room.window, run, operations_of_pass(self.net, room, pairs), self.threads)
        return room.outputs[:, : pairs.cols].T.flatten()

    def _kernels(self, room: Room, pairs: Pairs) -> np.ndarray:
        """Every layer's kernel, (L+1, rows k, columns k), of a room that has been evaluated."""
        outputs = len(room.outputs)
        kernels = np.empty((len(room.kernel), pairs.rows * outputs, pairs.cols * outputs))
        for own, kernel in zip(room.kernel, kernels, strict=True):
            read_kernel(own, pairs, kernel[None])
        return kernels

    def test_outputs(self, theta: np.ndarray) -> np.ndarray:
        assert self.tests is not None
        if self.test_room is None:
            self.test_room = make_room(self.net, *self.tests, self.rows, streamed=False, backward=False, kernel=False)
        return self._outputs(theta, self.test_room, self.tests[1])

    def test_kernels(self, theta: np.ndarray) -> np.ndarray:
        assert self.across is not None
        room, pairs = self._with_kernels(self.across), self.across[1]
        self._outputs(theta, room, pairs)
        return self._kernels(room, pairs)

    def remember(self, room: Room) -> tuple[np.ndarray, np.ndarray | None]:
        last, points, cols = self.net.widths.size - 2, self.pairs.points, self.pairs.cols
        features = room.h[room.at[last] : room.at[last + 1]].reshape(-1, points)[:, :cols].copy()
        return features, self._gates(room)

    def _gates(self, room: Room) -> np.ndarray | None:
        """Where hidden neurons are open; None where neither values nor slopes of the activation tell it."""
        values, bound = gated(self.net, room.h, room.slope)
        if values is None:
            return None
        open_ones: np.ndarray = values[room.at[1] :].reshape(-1, self.pairs.points)[:, : self.pairs.cols] > bound
        return open_ones

    def movement(
        self, now: tuple[np.ndarray, np.ndarray | None], before: tuple[np.ndarray, np.ndarray | None]
    ) -> tuple[float, float, float]:
        first = before[0].astype(np.float64)
        flipped = np.nan if now[1] is None else np.count_nonzero(now[1] != before[1]) / now[1].size
        return float(np.linalg.norm(now[0] - first)), float(np.linalg.norm(first)), flipped

    def open_gates(self, room: Room) -> np.ndarray:
        gates = self._gates(room)
        assert gates is not None
        return gates

    def inside(self, theta: np.ndarray, room: Room) -> Inside:
        return inside_of(self.net, self.pairs, theta, (room.h, room.slope, room.delta))

    def inside_at_tests(self, theta: np.ndarray) -> Inside:
        assert self.tests is not None
        room = make_room(self.net, *self.tests, self.rows, streamed=False, backward=True, kernel=False)
        self._outputs(theta, room, self.tests[1])
        return inside_of(self.net, self.tests[1], theta, (room.h, room.slope, room.delta))

    def shift(self, theta: np.ndarray, weights: list[np.ndarray], biases: list[np.ndarray]) -> None:
        shift_parameters(self.net, theta, weights, biases)

    def pull_back(self, room: Room, vector: np.ndarray, theta: np.ndarray) -> None:
        rows = np.ascontiguousarray(vector.reshape(self.pairs.cols, -1).T, theta.dtype)
        run = partial(pull_back_at, self.threads, self.net, self._weights(theta), room, self.pairs, rows)
        in_slices(room.window, run, 2.0 * self.numbers * self.points, self.threads)

    def make_descent_room(self, room: Room, size: int | None) -> _Batch | Sweep:
        if is_shallow(self.net):
            return make_sweep(self.net, self.columns, self.points if size is None else size, self.threads)
        if size is None:
            return _Batch(for_descent(room), self.pairs)
        lanes = padded_points(size, self.kind.itemsize)
        pairs, columns = Pairs(0, size, size, lanes, lanes, True), np.zeros((len(self.columns), lanes), self.kind)
        small = make_room(self.net, columns, pairs, self.rows, streamed=False, backward=True, kernel=False, pulled=True)
        return _Batch(small, pairs)

    def descend(
        self, theta: np.ndarray, velocity: np.ndarray | None, room: _Batch | Sweep, y: np.ndarray, order: np.ndarray | None,
        step: Step, count: int, ready: bool,
    ) -> int:  # fmt: skip
        moving = self._weights(aligned(0, self.kind) if velocity is None else velocity)
        targets, size = y.reshape(self.points, -1), self.points if order is None else order.shape[1]
        if isinstance(room, Sweep):
            threads = self.threads if worth_sharing(self.net, size) else 1
            chosen = np.arange(size)[None] if order is None else order

            def take(begin: int, end: int) -> int:
                own = chosen if order is None else chosen[begin:end]
                return int(
                    shallow.advance(
                        threads, self.net, self._weights(theta), moving, room, self.columns, targets, own, step, end - begin
                    )
                )

            return _taken(room.window, take, count, shallow.operations(self.net, size), threads)
        whole, batches = order is None, np.empty((0, 0), np.int64) if order is None else order
        gradient = np.empty((targets.shape[1], size), self.kind)

        def advanced(begin: int, end: int) -> int:
            return int(
                advance(
                    self.threads, self.seed, self.net, self._weights(theta), moving, room.room, room.pairs, self.columns, targets,
                    gradient, whole, batches[begin:end], step, end - begin, ready and begin == 0,
                )
            )  # fmt: skip

        return _taken(room.room.window, advanced, count, 6.0 * self.numbers * size + _STEP, self.threads)


def _taken(window: np.ndarray, take: Callable[[int, int], int], count: int, operations: float, threads: int) -> int:
    """How many of ``count`` steps, of so many operations each, ``take(begin, end)`` has taken, a slice at a time."""
    for begin, end in runs(0, count, 1, operations, threads):
        done = end - begin

        def some(begin: int = begin, end: int = end) -> bool:
            nonlocal done
            found = take(begin, end)
            done = min(done, found)
            return found == end - begin

        in_slices(window, some, (end - begin) * operations, threads)
        if done < end - begin:
            return begin + done
    return count
