"""Training on a GPU, by kernels of `numba.cuda`.

Parameters, activations and sensitivities stay on the device. Between two snapshots descent only launches: not even the loss
comes back, but once the first step at which it was not finite. A snapshot brings outputs, kernel, and a few sums.
"""

import copy
from typing import Any

import numpy as np
from numba import cuda

from ntksim.engine.cuda import descent, kernels
from ntksim.engine.cuda.launch import SIMULATED, THREADS, allocate, over
from ntksim.engine.cuda.library import multiply
from ntksim.engine.cuda.passes import Batch, Wanted, draw_parameters, zeros
from ntksim.engine.formulas.blocks import gated
from ntksim.engine.layout import Pairs, parameter_offsets
from ntksim.engine.machine import Inside, Machine, Points, Step, Task, inside_of, shift_parameters

_BLOCKS = 2 if SIMULATED else 256  # that a sum over parameters is shared out to: always the same


class CudaMachine(Machine):
    """A network whose parameters are an array (1, numbers) on the device, and whose rooms are batches of one network."""

    def __init__(self, threads: int, seed: np.uint64, task: Task) -> None:
        super().__init__(threads, seed, task)
        self.offsets, self.outputs_count = parameter_offsets(self.net).tolist(), int(self.net.widths[-1])
        self.test_room: Batch | None = None

    def draw(self) -> Any:
        theta = self.zeros()
        draw_parameters(self.net, cuda.to_device(np.array([self.seed], np.uint64)), theta, 1)
        return theta

    def zeros(self) -> Any:
        return zeros((1, self.offsets[-1]), self.kind)

    def copy(self, theta: Any) -> Any:
        twin = allocate((1, self.offsets[-1]), self.kind)
        twin.copy_to_device(theta)
        return twin

    def pack(self, theta: Any) -> np.ndarray:
        host: np.ndarray = theta.copy_to_host()
        return host

    def unpack(self, array: np.ndarray) -> Any:
        return self.copy(array.reshape(1, -1))

    def square_distances(self, a: Any, b: Any) -> np.ndarray:
        return self._squares(a, b)[:, 0]

    def square_norms(self, start: Any) -> np.ndarray:
        return self._squares(start, start)[:, 1]

    def _squares(self, a: Any, b: Any) -> np.ndarray:
        """||a_l - b_l||^2 and ||b_l||^2, (L+1, 2)."""
        spans = zip(self.offsets[:-1:2], self.offsets[2::2], strict=True)
        return np.array([_squares(a, b, begin, end) for begin, end in spans])

    def make_room(self) -> Batch:
        return self._with_kernels((self.columns, self.pairs))

    def _with_kernels(self, points: Points) -> Batch:
        return Batch(self.net, *points, 1, Wanted(backward=True, kernel=True, by_layer=True))

    def evaluate(self, theta: Any, room: Batch) -> tuple[np.ndarray, np.ndarray]:
        outputs = self._outputs(theta, room)
        return outputs, self._kernels(room)

    def _outputs(self, theta: Any, room: Batch) -> np.ndarray:
        """Outputs (n k,) at ``theta``; as far as they are wanted, kernels stay in the room."""
        room.theta = theta
        room.put_points(1)
        room.evaluate(1)
        outputs: np.ndarray = room.outputs.copy_to_host()
        return outputs.reshape(-1, room.pairs.points)[:, : room.pairs.cols].T.flatten()

    def _kernels(self, room: Batch) -> np.ndarray:
        """Every layer's kernel, (L+1, rows k, columns k), of a room that has been evaluated."""
        rows, cols, layers = room.pairs.rows * self.outputs_count, room.pairs.cols * self.outputs_count, room.last + 1
        out = allocate((layers, rows * cols), np.float64)
        for layer in range(layers):
            room.copy_results(out, layer, 1, layer)
        kernels: np.ndarray = out.copy_to_host().reshape(layers, rows, cols)
        return kernels

    def test_outputs(self, theta: Any) -> np.ndarray:
        assert self.tests is not None
        if self.test_room is None:
            self.test_room = Batch(self.net, *self.tests, 1, Wanted(backward=False, kernel=False))
        return self._outputs(theta, self.test_room)

    def test_kernels(self, theta: Any) -> np.ndarray:
        assert self.across is not None
        room = self._with_kernels(self.across)
        self._outputs(theta, room)
        return self._kernels(room)

    def remember(self, room: Batch) -> tuple[Any, Any]:
        net, last = self.net, room.last
        values, _ = gated(net, room.h, room.slope)
        features = self._taken(room.h, room.at[last], int(net.widths[last]))
        return features, None if values is None else self._taken(values, room.at[1], int(net.widths[1 : last + 1].sum()))

    def _taken(self, values: Any, at: int, rows: int) -> Any:
        """Rows of values, of the points alone."""
        out = allocate((1, rows * self.pairs.cols), values.dtype)
        descent.take_columns[over(out.shape[1])](values, at, out, self.pairs.cols, self.pairs.points)
        return out

    def movement(self, now: tuple[Any, Any], before: tuple[Any, Any]) -> tuple[float, float, float]:
        change, norm = np.sqrt(_squares(now[0], before[0], 0, now[0].shape[1]))
        if now[1] is None:
            return change, norm, np.nan
        parts = allocate((1, _BLOCKS), np.float64)
        descent.count_sign_changes[_BLOCKS, THREADS](now[1], before[1], gated(self.net, None, None)[1], parts)
        return change, norm, float(_total(parts, 1)[0]) / now[1].shape[1]

    def open_gates(self, room: Batch) -> np.ndarray:
        gates: np.ndarray = self.remember(room)[1].copy_to_host()
        return gates.reshape(-1, self.pairs.cols) > gated(self.net, None, None)[1]

    def inside(self, theta: Any, room: Batch) -> Inside:
        held = (room.h.copy_to_host()[0], room.slope.copy_to_host()[0], room.delta.copy_to_host()[0])
        return inside_of(self.net, room.pairs, theta.copy_to_host()[0], held)

    def inside_at_tests(self, theta: Any) -> Inside:
        assert self.tests is not None
        room = Batch(self.net, *self.tests, 1, Wanted(backward=True, kernel=False))
        self._outputs(theta, room)
        return self.inside(theta, room)

    def shift(self, theta: Any, weights: list[np.ndarray], biases: list[np.ndarray]) -> None:
        host = theta.copy_to_host()
        shift_parameters(self.net, host[0], weights, biases)
        theta.copy_to_device(host)

    def pull_back(self, room: Batch, vector: np.ndarray, theta: Any) -> None:
        values = np.zeros((self.outputs_count, self.pairs.points), self.kind)
        values[:, : self.pairs.cols] = vector.reshape(self.pairs.cols, -1).T
        _pull_back(room, cuda.to_device(values.reshape(1, -1)), None, self.pairs.cols, theta)

    def make_descent_room(self, room: Batch, size: int | None) -> Batch:
        # Of several outputs a vector's product goes back, once the outputs are known (`Batch.go_back`).
        wanted = Wanted(backward=self.outputs_count == 1, kernel=False)
        if size is None:
            small = copy.copy(room)  # the same memory
            small.size, small.wanted = 0, wanted
            return small
        pairs, columns = Pairs(0, size, size, size, size, True), np.zeros((len(self.columns), size), self.kind)
        small = Batch(self.net, columns, pairs, 1, Wanted(backward=True, kernel=False))
        small.columns, small.wanted = cuda.to_device(self.columns), wanted
        return small

    def descend(
        self, theta: Any, velocity: Any | None, room: Batch, y: np.ndarray, order: np.ndarray | None, step: Step, count: int,
        ready: bool,
    ) -> int:  # fmt: skip
        size, points, outputs = room.pairs.cols, room.pairs.points, self.outputs_count
        targets, done = cuda.to_device(np.ascontiguousarray(y)), cuda.to_device(np.full(1, -1, np.int64))
        gradient, chosen = zeros((1, outputs * points), self.kind), None if order is None else cuda.to_device(order)
        ones = None
        if outputs > 1:
            ones = allocate((1, points), self.kind)
            descent.fill[over(points)](ones, 1)
        scaled = step.rate * self.pairs.cols / size
        room.theta = theta
        for number in range(count):
            batch = room.every if chosen is None else chosen[number]
            if chosen is not None:
                room.put_points(1, batch)
            if number > 0 or not ready:
                room.evaluate(1)
            descent.residuals[1, THREADS](room.outputs, targets, batch, number, scaled, size, points, outputs, gradient, done)
            if outputs > 1:
                room.go_back(gradient)
            if velocity is None:
                _pull_back(room, gradient, ones, size, theta)
                continue
            descent.subtract_scaled[over(theta.shape[1])](theta, step.before, velocity, step.momentum)
            _pull_back(room, gradient, ones, size, velocity)
            descent.subtract_scaled[over(theta.shape[1])](theta, -step.after, velocity, 1.0)
        failed = int(done.copy_to_host()[0])
        return count if failed < 0 else failed


def _pull_back(room: Any, vector: Any, ones: Any, size: int, theta: Any) -> None:
    """theta <- theta - rate J' vector, J where ``room`` has been evaluated; vector (1, k points) on the device.

    Of several outputs ``ones`` (1, points) says that sensitivities are those of the vector's product.
    """
    net, points, last, outputs = room.net, room.pairs.points, room.last, room.outputs_count
    weights, biases, offsets = net.scales[4] * net.scales[0], net.scales[4] * net.scales[2], room.offsets
    factors, count = (vector, outputs) if ones is None else (ones, 1)
    if room.weighted is None:
        room.weighted = allocate((1, int(net.widths[1:-1].max()) * size), theta.dtype)
    rows = int(net.widths[last])
    if net.scales[4, last] > 0:
        descent.pull_readout[over(rows)](
            weights[last], biases[last], vector, room.h, room.at[last], theta, offsets[2 * last], int(net.lengths[last]),
            rows, points, outputs, size, offsets[2 * last + 1],
        )  # fmt: skip
    for layer in range(1, last + 1):
        if net.scales[4, layer - 1] == 0:
            continue
        rows, cols, length = int(net.widths[layer]), int(net.widths[layer - 1]), int(net.lengths[layer - 1])
        descent.weigh_sensitivity[over(rows)](
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
    descent.square_distance_parts[_BLOCKS, THREADS](a, b, begin, end, parts)
    return _total(parts, 2)


def _total(parts: Any, size: int) -> np.ndarray:
    """Sums (size,) of all blocks' shares, on the host."""
    sums = allocate((1, size), np.float64)
    kernels.add_parts[over(size)](parts, parts.shape[1] // size, size, sums, 0, True)
    return sums.copy_to_host()[0]
