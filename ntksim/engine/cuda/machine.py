"""Training on a GPU: what `watch.Watch` has done by the CPU, by kernels of `numba.cuda`.

Parameters, activations and sensitivities stay on the device. Between two snapshots descent only launches: not even the loss
comes back, but once the first step at which it was not finite. A snapshot brings outputs, kernel, and a few sums.
"""

import copy
from typing import Any

import numpy as np
from numba import cuda

from ntksim.engine.cuda import kernels
from ntksim.engine.cuda.launch import SIMULATED, THREADS, allocate, over
from ntksim.engine.cuda.library import multiply
from ntksim.engine.cuda.passes import Batch, Wanted, draw_parameters, zeros
from ntksim.engine.formulas.blocks import gated
from ntksim.engine.layout import Pairs
from ntksim.engine.training.watch import State, Watch

_BLOCKS = 2 if SIMULATED else 256  # that a sum over parameters is shared out to: always the same


class CudaWatch(Watch):
    """A `Watch` whose parameter vectors are arrays (1, numbers) on the device, and whose rooms are batches of one network."""

    def draw(self) -> Any:
        theta = zeros((1, int(self.offsets[-1])), self.columns.dtype)
        draw_parameters(self.net, cuda.to_device(np.array([self.seed], np.uint64)), theta, 1)
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

    def layer_squares(self, a: Any, b: Any) -> np.ndarray:
        return np.array([_squares(a, b, *self._span(i)) for i in range(len(self.rates))])

    def make_test_room(self, columns: np.ndarray, pairs: Pairs) -> Any:
        return Batch(self.net, columns, pairs, 1, Wanted(backward=False, kernel=False))

    def make_room(self, columns: np.ndarray | None = None, pairs: Pairs | None = None) -> Any:
        columns, pairs = (self.columns, self.pairs) if columns is None or pairs is None else (columns, pairs)
        return Batch(self.net, columns, pairs, 1, Wanted(backward=True, kernel=True, by_layer=True))

    def make_descent_room(self, room: Any, size: int | None) -> tuple[Any, Pairs]:
        # Of several outputs a vector's product goes back, once the outputs are known (`Batch.go_back`).
        backward = self.targets.shape[1] == 1
        if size is None:
            small = copy.copy(room)  # the same memory
            small.size, small.wanted = 0, Wanted(backward, kernel=False)
            return small, self.pairs
        pairs = Pairs(0, size, size, size, size, True)
        small = Batch(self.net, np.zeros((len(self.columns), size), self.columns.dtype), pairs, 1, Wanted(True, kernel=False))
        small.columns, small.wanted = cuda.to_device(self.columns), Wanted(backward, kernel=False)
        return small, pairs

    def evaluate(self, theta: Any, room: Any, pairs: Pairs) -> np.ndarray:
        room.theta = theta
        room.put_points(1)
        room.evaluate(1)
        return room.outputs.copy_to_host().reshape(-1, pairs.points)[:, : pairs.cols].T.flatten()

    def kernels(self, room: Any, pairs: Pairs) -> np.ndarray:
        rows, cols, layers = pairs.rows * room.outputs_count, pairs.cols * room.outputs_count, len(self.rates)
        out = allocate((layers, rows * cols), np.float64)
        for layer in range(layers):
            room.copy_results(out, layer, 1, layer)
        return out.copy_to_host().reshape(layers, rows, cols)

    def remember(self, room: Any) -> tuple[Any, Any]:
        net, last = self.net, len(self.rates) - 1
        values, _ = gated(net, room.h, room.slope)
        features = self._taken(room.h, room.at[last], int(net.widths[last]))
        return features, None if values is None else self._taken(values, room.at[1], int(net.widths[1 : last + 1].sum()))

    def _taken(self, values: Any, at: int, rows: int) -> Any:
        """Rows of values, of the points alone."""
        out = allocate((1, rows * self.pairs.cols), values.dtype)
        kernels.take_columns[over(out.shape[1])](values, at, out, self.pairs.cols, self.pairs.points)
        return out

    def movement(self, now: tuple[Any, Any], before: tuple[Any, Any]) -> tuple[float, float, float]:
        change, norm = np.sqrt(_squares(now[0], before[0], 0, now[0].shape[1]))
        if now[1] is None:
            return change, norm, np.nan
        parts = allocate((1, _BLOCKS), np.float64)
        kernels.count_sign_changes[_BLOCKS, THREADS](now[1], before[1], gated(self.net, None, None)[1], parts)
        return change, norm, float(_total(parts, 1)[0]) / now[1].shape[1]

    def pull_back(self, state: State, vector: np.ndarray, theta: Any) -> None:
        values = np.zeros((self.targets.shape[1], self.pairs.points), theta.dtype)
        values[:, : self.pairs.cols] = vector.reshape(self.pairs.cols, -1).T
        _pull_back(state.room, cuda.to_device(values.reshape(1, -1)), None, self.pairs.cols, theta)

    def advance(
        self, theta: Any, velocity: Any, room: Any, pairs: Pairs, order: np.ndarray, count: int, ready: bool,
        rate: float, momentum: float, before: float, after: float,
    ) -> int:  # fmt: skip
        whole, size, outputs = order.size == 0, pairs.cols, self.targets.shape[1]
        y, done = cuda.to_device(np.ascontiguousarray(self.y)), cuda.to_device(np.full(1, -1, np.int64))
        gradient, chosen = zeros((1, outputs * pairs.points), theta.dtype), None if whole else cuda.to_device(order)
        ones = None
        if outputs > 1:
            ones = allocate((1, pairs.points), theta.dtype)
            kernels.fill[over(pairs.points)](ones, 1)
        scaled = rate * len(self.targets) / size
        room.theta = theta
        for step in range(count):
            points = room.every if chosen is None else chosen[step]
            if chosen is not None:
                room.put_points(1, points)
            if step > 0 or not ready:
                room.evaluate(1)
            kernels.residuals[1, THREADS](room.outputs, y, points, step, scaled, size, pairs.points, outputs, gradient, done)
            if outputs > 1:
                room.go_back(gradient)
            if momentum == 0:
                _pull_back(room, gradient, ones, size, theta)
                continue
            kernels.add_scaled[over(theta.shape[1])](theta, -before, velocity, momentum)
            _pull_back(room, gradient, ones, size, velocity)
            kernels.add_scaled[over(theta.shape[1])](theta, after, velocity, 1.0)
        failed = int(done.copy_to_host()[0])
        return count if failed < 0 else failed


def _pull_back(room: Any, vector: Any, ones: Any, size: int, theta: Any) -> None:
    """theta <- theta - rate J' vector, J where ``room`` has been evaluated; vector (1, k points) on the device.

    Of several outputs ``ones`` (1, points) says that sensitivities are those of the vector's product.
    """
    net, points, last, outputs = room.net, room.pairs.points, room.last, room.outputs_count
    weights, biases, offsets = net.scales[4] * net.scales[0], net.scales[4] * net.scales[2], room.offsets
    factors, count = (vector, outputs) if ones is None else (ones, 1)
    if not hasattr(room, "weighted"):
        room.weighted = allocate((1, int(net.widths[1:-1].max()) * size), theta.dtype)
    rows = int(net.widths[last])
    if net.scales[4, last] > 0:
        kernels.pull_readout[over(rows)](
            weights[last], biases[last], vector, room.h, room.at[last], theta, offsets[2 * last], int(net.lengths[last]),
            rows, points, outputs, size, offsets[2 * last + 1],
        )  # fmt: skip
    for layer in range(1, last + 1):
        if net.scales[4, layer - 1] == 0:
            continue
        rows, cols, length = int(net.widths[layer]), int(net.widths[layer - 1]), int(net.lengths[layer - 1])
        kernels.weigh_sensitivity[over(rows)](
            weights[layer - 1], biases[layer - 1], factors, room.delta, room.sensitivities_at(layer, count * points),
            room.weighted, rows, points, count, size, theta, offsets[2 * layer - 1],
        )  # fmt: skip
        multiply(
            room.weighted, (0, 1, size), room.h, (room.at[layer - 1], 1, points), theta, (offsets[2 * layer - 2], length),
            (rows, cols, size), False,
        )  # fmt: skip


def _squares(a: Any, b: Any, begin: int, end: int) -> np.ndarray:
    """||a - b||^2 and ||b||^2 over a span of two arrays (1, numbers)."""
    parts = allocate((1, 2 * _BLOCKS), np.float64)
    kernels.square_distance_parts[_BLOCKS, THREADS](a, b, begin, end, parts)
    return _total(parts, 2)


def _total(parts: Any, size: int) -> np.ndarray:
    """Sums (size,) of all blocks' shares, on the host."""
    sums = allocate((1, size), np.float64)
    kernels.add_parts[over(size)](parts, parts.shape[1] // size, size, sums, 0)
    return sums.copy_to_host()[0]
