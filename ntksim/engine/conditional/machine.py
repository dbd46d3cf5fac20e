"""Training of networks whose weights are revealed as they are asked for: exact in law, at any width.

Nothing of the size of a weight matrix is ever stored. Of a hidden matrix W_t = s W_0 + P'A Q the part s W_0 is a
`revealed.Revealed`, and training moves it along what has been revealed alone: an activation h that was asked has coordinates Q h,
a sensitivity d has P d, and theta <- theta - J'c is A <- A - g (P d c)(Q h)'. So parameters are a small matrix A for each hidden
layer, beside readout, biases, and the first layer on the space that the inputs span.

A network is a function of all that it is asked: points and test points, times, tolerances and steps.

Here activations and sensitivities have a row per point (and output), and a column per neuron.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from ntksim.engine.conditional.parameters import Theta, padded
from ntksim.engine.conditional.points import finish_points, finish_sensitivities, normals
from ntksim.engine.conditional.revealed import Revealed, Side
from ntksim.engine.conditional.tall import Tall, Team, joined, pieces_of
from ntksim.engine.formulas.blocks import gated
from ntksim.engine.formulas.layer import descended, features_kernel, residual
from ntksim.engine.formulas.normals import ROWS_PER_BLOCK, bias_code, left_code, right_code, weight_code
from ntksim.engine.machine import Inside, Machine, Step, Task


class _Forward(NamedTuple):
    """A forward pass: outputs (n, k); of layers 1..L activations' products h h', slopes and gates; h^L; and coordinates.

    ``below`` are the coordinates of the activations that hidden matrices 2..L were asked for.
    """

    outputs: np.ndarray
    grams: list[np.ndarray]
    slopes: list[Tall]
    gates: list[Tall] | None
    last: Tall
    below: list[np.ndarray]


class _Backward(NamedTuple):
    """A backward pass: of layers 1..L sensitivities' products, and themselves where pull-backs need them.

    ``above`` are the coordinates of the sensitivities that hidden matrices 2..L were asked for.
    """

    grams: list[np.ndarray]
    sensitivities: list[Tall]
    above: list[np.ndarray]


@dataclass
class _Room:
    """What a pass over the training points leaves behind; nothing before it."""

    forward: _Forward | None = None
    backward: _Backward | None = None


class ConditionalMachine(Machine):
    """A network in law; ``rank_tolerance`` is the part of a vector's length that may be left out when it is asked."""

    holds_gates = False

    def __init__(self, threads: int, seed: np.uint64, task: Task, rank_tolerance: float) -> None:
        super().__init__(threads, seed, task)
        self.team, self.depth, self.outputs_count = Team(threads), self.net.widths.size - 2, int(self.net.widths[-1])
        self.points_only = self.columns[:, : self.pairs.cols].T.astype(np.float64)
        self.test_points = np.empty((0, len(self.columns)))
        if self.tests is not None:
            self.test_points = self.tests[0][:, : self.tests[1].cols].T.astype(np.float64)
        self.inputs = _coordinates(np.concatenate([self.points_only, self.test_points]))
        self.hidden = [self._revealed(layer, rank_tolerance) for layer in range(2, self.depth + 1)]

    @property
    def rank(self) -> int:
        return max((matrix.rank for matrix in self.hidden), default=0)

    # --- draws

    @property
    def normals(self) -> Callable[..., np.ndarray]:
        """The seed's draws. They hold its number, not the machine, whose memory is thus free as soon as the seed is done."""
        return partial(normals, self.seed, self.net.stream, self.kind)

    def _revealed(self, layer: int, tolerance: float) -> Revealed:
        draws = partial(self.normals, left_code(layer)), partial(self.normals, right_code(layer))
        rows, columns = int(self.net.widths[layer]), int(self.net.widths[layer - 1])
        return Revealed(rows, columns, draws, tolerance, self.kind, self.team)

    def _vectors(self, code: int, count: int, width: int, scale: float) -> Tall:
        """``count`` vectors of parameters (count, width), laid out by the generator as those of explicit networks."""

        def vector(index: int, begin: int, end: int) -> np.ndarray:
            block = self.normals(
                code,
                ROWS_PER_BLOCK * index,
                begin // ROWS_PER_BLOCK,
                ROWS_PER_BLOCK,
                -(-(end - begin) // 4),
            )
            return block.T.ravel()[: end - begin]

        kind = self.kind.type
        return [kind(scale) * np.stack([vector(i, *piece) for i in range(count)]) for piece in pieces_of(width)]

    def draw(self) -> Theta:
        net, last = self.net, self.depth
        rank = self.inputs.shape[1]
        first = [
            self.kind.type(net.scales[1, 0]) * self.normals(left_code(1), 0, begin, rank, end - begin)
            for begin, end in pieces_of(int(net.widths[1]))
        ]
        return Theta(
            first,
            [np.zeros((0, 0)) for _ in self.hidden],
            [self._vectors(bias_code(i), 1, int(net.widths[i]), net.scales[3, i - 1]) for i in range(1, last + 1)],
            self._vectors(weight_code(last + 1), self.outputs_count, int(net.widths[last]), net.scales[1, last]),
            joined(self._vectors(bias_code(last + 1), 1, self.outputs_count, net.scales[3, last]))[0].astype(np.float64),
        )

    # --- parameters

    def zeros(self) -> Theta:
        def nothing(rows: int, width: int) -> Tall:
            return [np.zeros((rows, end - begin), self.kind) for begin, end in pieces_of(width)]

        widths, last = self.net.widths.tolist(), self.depth
        return Theta(
            nothing(self.inputs.shape[1], widths[1]),
            [np.zeros((0, 0)) for _ in self.hidden],
            [nothing(1, width) for width in widths[1 : last + 1]],
            nothing(self.outputs_count, widths[last]),
            np.zeros(self.outputs_count),
        )

    def copy(self, theta: Theta) -> Theta:
        return replace(theta, hidden=list(theta.hidden), biases=list(theta.biases))

    def pack(self, theta: Theta) -> None:
        return None  # what has been revealed would have to be kept too: gigabytes

    def unpack(self, array: np.ndarray) -> Theta:
        raise AssertionError("nothing was packed")

    def square_distances(self, a: Theta, b: Theta) -> np.ndarray:
        matrices = [self._square(a.first, b.first)]
        for one, other in zip(a.hidden, b.hidden, strict=True):
            shape = np.maximum(one.shape, other.shape)
            matrices.append(float(np.sum((padded(one, shape) - padded(other, shape)) ** 2)))
        vectors = [self._square(one, other) for one, other in zip(a.biases, b.biases, strict=True)]
        readout = self._square(a.readout, b.readout) + float(np.sum((a.output_bias - b.output_bias) ** 2))
        return np.array([*np.add(matrices, vectors), readout])

    def square_norms(self, start: Theta) -> np.ndarray:
        own, scales, widths = self.square_distances(start, self.zeros()), self.net.scales[1], self.net.widths.tolist()
        own[0] += scales[0] ** 2 * self._unseen(1, widths[1] * (widths[0] - self.inputs.shape[1]))
        for layer, matrix in enumerate(self.hidden, 2):
            own[layer - 1] += scales[layer - 1] ** 2 * (matrix.square_norm + self._unseen(layer, matrix.freedom))
        return own

    def _unseen(self, layer: int, freedom: int) -> float:
        """The squared norm of what nobody has asked of a layer's standard normals: chi^2 with so many degrees of freedom."""
        from scipy.special import gammaincinv, ndtr  # a quarter of a second, which other jobs do not need

        # Nothing goes back through the first layer: its normals are free. Their quantile becomes that of chi^2.
        (normal,) = self.normals(right_code(1), ROWS_PER_BLOCK * layer, 0, 1, 1).astype(np.float64)[0]
        return float(2 * gammaincinv(freedom / 2, ndtr(normal))) if freedom else 0.0

    def _square(self, a: Tall, b: Tall) -> float:
        """||a - b||^2."""
        difference = self.team.map(lambda p: np.sum(np.square(np.subtract(a[p], b[p], dtype=np.float64))), len(a))
        return float(np.sum(difference))

    # --- passes

    def make_room(self) -> _Room:
        return _Room()

    def evaluate(self, theta: Theta, room: _Room) -> tuple[np.ndarray, np.ndarray]:
        with _overflowing():
            self._pass(theta, room)
            assert room.forward is not None
            return room.forward.outputs.ravel(), self._kernels(room, self.points_only)

    def _pass(self, theta: Theta, room: _Room) -> None:
        room.forward = self._forward(theta, self.inputs[: self.points])
        room.backward = self._backward(theta, room.forward)

    def _forward(self, theta: Theta, inputs: np.ndarray) -> _Forward:
        """A pass over points of some coordinates (n, rank of the inputs)."""
        net, slopes, gates, grams, below = self.net, [], [], [], []
        factors = inputs.astype(self.kind)
        h, slope = self._finish(1, theta, lambda p: factors @ theta.first[p])
        for layer in range(1, self.depth + 1):
            if layer > 1:
                matrix, moved = self.hidden[layer - 2], theta.hidden[layer - 2]
                asked = matrix.ask(matrix.right, h)
                below.append(asked)
                h, slope = self._finish(layer, theta, self._applied(layer, asked, moved, matrix.right))
            slopes.append(slope)
            values, bound = gated(net, h, slope)
            if values is not None:
                gates.append([piece > bound for piece in values])
            grams.append(self.team.gram(h, h))
        outputs = net.scales[0, -1] * self.team.gram(h, theta.readout) + net.scales[2, -1] * theta.output_bias
        return _Forward(outputs, grams, slopes, gates or None, h, below)

    def _applied(self, layer: int, asked: np.ndarray, moved: np.ndarray, own: Side) -> Callable[[int], np.ndarray]:
        """Pieces of what hidden weights make of asked vectors; ``moved`` takes their coordinates to the other side's."""
        matrix = self.hidden[layer - 2]
        return matrix.witnessed(own, matrix.images(own, asked, self.net.scales[1, layer - 1], moved @ asked[: moved.shape[1]]))

    def _finish(self, layer: int, theta: Theta, product: Callable[[int], np.ndarray]) -> tuple[Tall, Tall]:
        """Activations and slopes of a layer from pieces of W h."""
        weight, bias = self.net.scales[0, layer - 1], self.net.scales[2, layer - 1]

        def work(p: int) -> tuple[np.ndarray, np.ndarray]:
            z = product(p)
            slope = np.empty_like(z)
            finish_points(self.net, weight, bias, theta.biases[layer - 1][p][0], z, slope)
            return z, slope

        done = self.team.map(work, len(theta.biases[layer - 1]))
        return [h for h, _ in done], [slope for _, slope in done]

    def _backward(self, theta: Theta, forward: _Forward) -> _Backward:
        """Sensitivities (n k, neurons) of all layers; they are kept where `pull_back` needs them."""
        net, above, grams, kept = self.net, [], [], []
        points, slopes = len(forward.outputs), forward.slopes

        def finish(layer: int, product: Callable[[int], np.ndarray]) -> Tall:
            def work(p: int) -> np.ndarray:
                delta = product(p)
                finish_sensitivities(net.scales[0, layer], slopes[layer - 1][p], delta)
                return delta

            return self.team.map(work, len(slopes[layer - 1]))

        delta = finish(self.depth, lambda p: np.tile(theta.readout[p], (points, 1)))
        for layer in range(self.depth, 0, -1):
            grams.append(self.team.gram(delta, delta))
            kept.append(delta if layer == 1 or net.scales[2, layer - 1] > 0 else [])
            if layer > 1:
                matrix, moved = self.hidden[layer - 2], theta.hidden[layer - 2]
                asked = matrix.ask(matrix.left, delta)
                above.append(asked)
                delta = finish(layer - 1, self._applied(layer, asked, moved.T, matrix.left))
                matrix.require_one()
        slopes.clear()  # nobody else needs them
        return _Backward(grams[::-1], kept[::-1], above[::-1])

    def _kernels(self, room: _Room, x: np.ndarray) -> np.ndarray:
        """Every layer's kernel (L+1, n k, n k) of the points ``x`` of a pass."""
        assert room.forward is not None
        assert room.backward is not None
        net, k = self.net, self.outputs_count
        kernels = []
        for layer, features in enumerate([x @ x.T, *room.forward.grams]):
            own = features_kernel.py_func(net.scales[0, layer], net.scales[2, layer], features)
            of_outputs = np.eye(k) if layer == self.depth else np.ones((k, k))
            sensitivities = 1.0 if layer == self.depth else room.backward.grams[layer]
            kernels.append(np.kron(own, of_outputs) * sensitivities)
        return np.array(kernels)

    def test_outputs(self, theta: Theta) -> np.ndarray:
        with _overflowing():
            return self._forward(theta, self.inputs[self.points :]).outputs.ravel()

    def test_kernels(self, theta: Theta) -> np.ndarray:
        with _overflowing():
            forward = self._forward(theta, self.inputs)
            room = _Room(forward, self._backward(theta, forward))
            kernels = self._kernels(room, np.concatenate([self.points_only, self.test_points]))
        training = self.points * self.outputs_count
        return kernels[:, training:, :training]

    def open_gates(self, room: _Room) -> np.ndarray:
        raise NotImplementedError("networks in law do not hold gates (`holds_gates`)")

    def inside(self, theta: Theta, room: _Room) -> Inside:
        raise NotImplementedError("networks in law have no weights to look at (`holds_gates`)")

    def inside_at_tests(self, theta: Theta) -> Inside:
        raise NotImplementedError("networks in law have no weights to look at (`holds_gates`)")

    def shift(self, theta: Theta, weights: list[np.ndarray], biases: list[np.ndarray]) -> None:
        raise NotImplementedError("networks in law have no weights to add to (`holds_gates`)")

    def remember(self, room: _Room) -> tuple[Tall, list[Tall] | None]:
        assert room.forward is not None
        return room.forward.last, room.forward.gates

    def movement(self, now: tuple[Tall, list[Tall] | None], before: tuple[Tall, list[Tall] | None]) -> tuple[float, float, float]:
        change, flipped = self._square(now[0], before[0]), np.nan
        norm = float(np.sum([np.sum(np.square(piece, dtype=np.float64)) for piece in before[0]]))
        if now[1] is not None and before[1] is not None:
            pairs = [pair for layers in zip(now[1], before[1], strict=True) for pair in zip(*layers, strict=True)]
            flipped = sum(np.count_nonzero(a != b) for a, b in pairs) / sum(a.size for a, _ in pairs)
        return float(np.sqrt(change)), float(np.sqrt(norm)), flipped

    # --- steps

    def pull_back(self, room: _Room, vector: np.ndarray, theta: Theta) -> None:
        with _overflowing():
            self._pull_back(room, vector, theta)

    def _pull_back(self, room: _Room, vector: np.ndarray, theta: Theta) -> None:
        forward, backward = room.forward, room.backward
        assert forward is not None
        assert backward is not None
        k, net = self.outputs_count, self.net
        weights, biases = net.scales[4] * net.scales[0], net.scales[4] * net.scales[2]
        by_output = vector.reshape(-1, k)
        if weights[-1] > 0:
            theta.readout = self._descended(theta.readout, weights[-1], by_output.T, forward.last)
            theta.output_bias = descended.py_func(theta.output_bias, biases[-1], by_output.sum(axis=0))
        for layer in range(1, self.depth + 1):
            sensitivities = backward.sensitivities[layer - 1]
            if biases[layer - 1] > 0:
                row = vector.reshape(1, -1)
                theta.biases[layer - 1] = self._descended(theta.biases[layer - 1], biases[layer - 1], row, sensitivities)
            if weights[layer - 1] == 0:
                continue
            if layer == 1:
                inputs = np.repeat(self.inputs[: self.points], k, axis=0).T * vector
                theta.first = self._descended(theta.first, weights[0], inputs, sensitivities)
            else:
                below, above = np.repeat(forward.below[layer - 2], k, axis=1), backward.above[layer - 2]
                change = (above * vector) @ below.T
                moved = padded(theta.hidden[layer - 2], np.maximum(theta.hidden[layer - 2].shape, change.shape))
                moved = descended.py_func(moved, weights[layer - 1], padded(change, np.array(moved.shape)))
                theta.hidden[layer - 2] = moved

    def _descended(self, parameters: Tall, factor: float, left: np.ndarray, right: Tall) -> Tall:
        """theta - c v for v = left right, in pieces."""
        scaled, kind = left.astype(self.kind), self.kind.type
        return self.team.map(lambda p: descended.py_func(parameters[p], kind(factor), scaled @ right[p]), len(parameters))

    def _moved(self, theta: Theta, factor: float, change: Theta) -> None:
        """theta <- theta - c v, for all parameters."""

        def tall(a: Tall, b: Tall) -> Tall:
            return self.team.map(lambda p: descended.py_func(a[p], self.kind.type(factor), b[p]), len(a))

        theta.first, theta.readout = tall(theta.first, change.first), tall(theta.readout, change.readout)
        theta.biases = [tall(a, b) for a, b in zip(theta.biases, change.biases, strict=True)]
        theta.output_bias = descended.py_func(theta.output_bias, factor, change.output_bias)
        for i, (a, b) in enumerate(zip(theta.hidden, change.hidden, strict=True)):
            shape = np.maximum(a.shape, b.shape)
            theta.hidden[i] = descended.py_func(padded(a, shape), factor, padded(b, shape))

    def make_descent_room(self, room: _Room, size: int | None) -> _Room:
        assert size is None, "`train` refuses batches"
        return room

    def descend(
        self, theta: Theta, velocity: Theta | None, room: _Room, y: np.ndarray, order: np.ndarray | None, step: Step,
        count: int, ready: bool,
    ) -> int:  # fmt: skip
        with _overflowing():
            for number in range(count):
                if number > 0 or not ready:
                    self._pass(theta, room)
                assert room.forward is not None
                off = residual.py_func(room.forward.outputs.ravel(), y)
                if not np.isfinite(off @ off):
                    return number
                if velocity is None:
                    self._pull_back(room, step.rate * off, theta)
                    continue
                self._moved(theta, step.before, velocity)
                slower = self.zeros()
                self._moved(slower, -step.momentum, velocity)
                self._pull_back(room, step.rate * off, slower)
                vars(velocity).update(vars(slower))
                self._moved(theta, -step.after, velocity)
        return count


def _overflowing() -> np.errstate:
    """Where networks that diverge overflow, as they are."""
    return np.errstate(over="ignore", invalid="ignore")


def _coordinates(x: np.ndarray) -> np.ndarray:
    """Coordinates (n, rank) of points in an orthonormal basis of their span, or all of them where that has as many."""
    if x.shape[1] <= len(x):
        return x
    triangle = np.linalg.qr(x.T)[1].T
    return triangle * np.where(triangle.diagonal() < 0, -1.0, 1.0)
