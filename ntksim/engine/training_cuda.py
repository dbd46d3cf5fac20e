"""Training on a GPU: what `snapshots.Watch` has done by the CPU, by kernels of `numba.cuda`.

Parameters, activations and sensitivities stay on the device. Between two snapshots descent only launches: not even the loss
comes back, but once the first step at which it was not finite. A snapshot brings outputs and kernel, and for features and
gates the activations.
"""

import copy
from typing import Any

import numpy as np
from numba import cuda

from ntksim.engine import kernels_cuda as kernels
from ntksim.engine.layout import Net, Pairs, parameter_offsets
from ntksim.engine.networks_cuda import Batch, allocate, draw_parameters, multiply, over, zeros
from ntksim.engine.product import padded_points
from ntksim.engine.snapshots import State, Watch

_SUMMANDS = 4 if kernels.SIMULATED else 256  # blocks that a square distance is shared out to: always the same


class CudaWatch(Watch):
    """A `Watch` whose parameter vectors are arrays (1, numbers) on the device, and whose rooms are batches of one network."""

    def draw(self, plain: Net) -> Any:
        theta = zeros((1, int(self.offsets[-1])), self.columns.dtype)
        draw_parameters(plain, cuda.to_device(np.array([self.seed], np.uint64)), theta, 1)
        for layer, unit in enumerate(self.units):
            if unit != 1:
                begin, end = self._span(layer)
                kernels.scale[over(end - begin)[0][0], kernels.THREADS](theta, begin, end, unit)
        return theta

    def _span(self, layer: int) -> tuple[int, int]:
        return int(self.offsets[2 * layer]), int(self.offsets[2 * layer + 2])

    def copy(self, theta: Any) -> Any:
        twin = allocate(theta.shape, self.start.dtype)
        if theta.size:
            twin.copy_to_device(theta)
        return twin

    def velocity(self, momentum: float) -> Any:
        return zeros((1, self.start.shape[1] if momentum else 0), self.start.dtype)

    def distance(self, a: Any, b: Any) -> float:
        return float(np.sqrt(_squares(a, b, 0, a.shape[1])[0]))

    def layer_squares(self, theta: Any) -> np.ndarray:
        return np.array([_squares(theta, self.start, *self._span(i)) for i in range(len(self.units))])

    def make_test_room(self, columns: np.ndarray, pairs: Pairs) -> Any:
        return Batch(self.net, columns, pairs, 1, backward=False, kernel=False)

    def make_room(self, columns: np.ndarray | None = None, pairs: Pairs | None = None) -> Any:
        columns, pairs = (self.columns, self.pairs) if columns is None or pairs is None else (columns, pairs)
        return Batch(self.net, columns, pairs, 1, backward=True, kernel=True)

    def make_descent_room(self, room: Any, size: int | None) -> tuple[Any, Pairs]:
        if size is None:
            small = copy.copy(room)  # the same memory
            small.size = 0
            return small, self.pairs
        lanes = padded_points(size, self.columns.itemsize)
        pairs = Pairs(0, size, size, lanes, lanes, True)
        small = Batch(self.net, np.zeros((len(self.columns), lanes), self.columns.dtype), pairs, 1, backward=True, kernel=False)
        small.columns = cuda.to_device(self.columns)
        return small, pairs

    def evaluate(self, theta: Any, room: Any, pairs: Pairs) -> np.ndarray:
        room.theta = theta
        room.put_points(1)
        room.evaluate(1)
        return room.outputs.copy_to_host()[0, : pairs.cols]

    def kernel(self, room: Any, pairs: Pairs) -> np.ndarray:
        half = room.kernel.copy_to_host().reshape(pairs.rows, -1)
        return half if not pairs.symmetric else np.where(np.tri(len(half), k=-1, dtype=np.bool_), half.T, half)

    def activations(self, room: Any) -> tuple[np.ndarray, np.ndarray]:
        return room.h.copy_to_host()[0], room.slope.copy_to_host()[0]

    def pull_back(self, state: State, vector: np.ndarray, theta: Any) -> None:
        _pull_back(state.room, cuda.to_device(vector.astype(theta.dtype)), theta)

    def advance(
        self, theta: Any, velocity: Any, room: Any, pairs: Pairs, order: np.ndarray, count: int, ready: bool,
        rate: float, momentum: float, before: float, after: float,
    ) -> int:  # fmt: skip
        whole, size = order.size == 0, pairs.cols
        y, done = cuda.to_device(np.ascontiguousarray(self.y)), cuda.to_device(np.full(1, -1, np.int64))
        gradient, chosen = allocate((size,), theta.dtype), None if whole else cuda.to_device(order)
        room.theta = theta
        for step in range(count):
            points = room.every if chosen is None else chosen[step]
            if chosen is not None:
                room.put_points(1, points)
            if step > 0 or not ready:
                room.evaluate(1)
            kernels.residuals[1, kernels.THREADS](room.outputs, y, points, step, rate * y.size / size, gradient, done)
            if momentum == 0:
                _pull_back(room, gradient, theta)
                continue
            kernels.add_scaled[over(theta.shape[1])[0][0], kernels.THREADS](theta, -before, velocity, momentum)
            _pull_back(room, gradient, velocity)
            kernels.add_scaled[over(theta.shape[1])[0][0], kernels.THREADS](theta, after, velocity, 1.0)
        failed = int(done.copy_to_host()[0])
        return count if failed < 0 else failed


def _pull_back(room: Any, vector: Any, theta: Any) -> None:
    """theta <- theta - J' vector, J where ``room`` has been evaluated; vector (n,) on the device."""
    net, points, size = room.net, room.pairs.points, vector.size
    last, scales, offsets = room.last, net.scales, _offsets(net)
    if not hasattr(room, "weighted"):
        room.weighted = allocate((1, int(net.widths[1:-1].max()) * size), theta.dtype)
    rows = int(net.widths[last])
    kernels.pull_readout[over(rows)[0][0], kernels.THREADS](
        scales[0, last],
        scales[2, last],
        vector,
        room.h,
        room.at[last],
        theta,
        offsets[2 * last],
        rows,
        points,
        offsets[2 * last + 1],
    )
    for layer in range(1, last + 1):
        rows, cols, length = int(net.widths[layer]), int(net.widths[layer - 1]), int(net.lengths[layer - 1])
        kernels.weigh_sensitivity[over(rows)[0][0], kernels.THREADS](
            scales[0, layer - 1], scales[2, layer - 1], vector, room.delta, room.delta_at[layer], room.weighted, rows, points,
            theta, offsets[2 * layer - 1],
        )  # fmt: skip
        multiply(
            room.weighted, (0, 1, size), room.h, (room.at[layer - 1], 1, points), theta, (offsets[2 * layer - 2], length),
            (rows, cols, size), False,
        )  # fmt: skip


def _offsets(net: Net) -> list[int]:
    return [int(offset) for offset in parameter_offsets(net)]


def _squares(a: Any, b: Any, begin: int, end: int) -> np.ndarray:
    """||a - b||^2 and ||b||^2 over a span of parameters."""
    threads = _SUMMANDS * kernels.THREADS
    parts, sums = allocate((1, 2 * threads), np.float64), allocate((1, 2), np.float64)
    kernels.square_distance_parts[_SUMMANDS, kernels.THREADS](a, b, begin, end, parts)
    kernels.add_parts[over(2)](parts, threads, 2, sums, 0, 0.0, parts, 0)
    return sums.copy_to_host()[0]
