"""One network in training as it is seen from outside: passes over its points, and what is written down at a snapshot."""

from dataclasses import dataclass, fields

import numpy as np

from ntksim.engine.cpu.descent import advance, evaluate_at, pull_back_at, relative_distance, square_distance_and_norm
from ntksim.engine.cpu.passes import draw_into, group_rows, read_kernel
from ntksim.engine.cpu.product import padded_points
from ntksim.engine.formulas.activations import gated
from ntksim.engine.layout import (
    Net,
    Pairs,
    Room,
    Weights,
    aligned,
    for_descent,
    make_room,
    parameter_offsets,
    stored_weights,
)
from ntksim.engine.measures import kernel_distance

_AXES_OF_POINTS = {"outputs": 1, "test_outputs": 1, "kernels": 2, "kernel": 2, "test_kernels": 2}
_OF_THE_END = ("time_reached", "end_kernel_drift", "end_parameter_drift")
Points = tuple[np.ndarray, Pairs]  # columns (d, padded points), and which of them are points


@dataclass(frozen=True)
class Snapshots:
    """What is seen of S seeds at T times, or of one of them; NaN until it is filled. `training.Trajectory` says what each is.

    Arrays lead with axes (S, T), of one seed with (T,), but for those of the end of training, which have no times, and
    ``test_kernels``, which has two: t = 0, whether it is among the times or not, and the end. ``time_reached`` is that of the
    flow theta' = -grad L. What is of test points, and ``kernels``, is empty where it is not wanted.
    """

    outputs: np.ndarray
    test_outputs: np.ndarray
    loss: np.ndarray
    kernel_drift: np.ndarray
    kernel_distance: np.ndarray
    parameter_drift: np.ndarray
    layer_drift: np.ndarray
    layer_kernel_drift: np.ndarray
    feature_drift: np.ndarray
    gates_flipped: np.ndarray
    kernels: np.ndarray
    kernel: np.ndarray
    test_kernels: np.ndarray
    time_reached: np.ndarray
    end_kernel_drift: np.ndarray
    end_parameter_drift: np.ndarray

    @classmethod
    def empty(
        cls, seeds: int, times: int, points: int, tests: int, layers: int, kind: np.dtype, keep_kernels: bool
    ) -> "Snapshots":
        """Room for ``seeds`` seeds at ``times`` times; ``points`` and ``tests`` count outputs, ``layers`` the readout."""

        def missing(*shape: int, kind: np.dtype | type = np.float64) -> np.ndarray:
            return np.full((seeds, *shape), np.nan, kind)

        numbers = ("loss", "kernel_drift", "kernel_distance", "parameter_drift", "feature_drift", "gates_flipped")
        return cls(
            outputs=missing(times, points, kind=kind),
            test_outputs=missing(times, tests, kind=kind),
            layer_drift=missing(times, layers),
            layer_kernel_drift=missing(times, layers),
            kernels=missing(times if keep_kernels else 0, points, points, kind=kind),
            kernel=missing(points, points, kind=kind),
            test_kernels=missing(2, tests, points, kind=kind),
            **{name: missing(times) for name in numbers},
            **{name: missing() for name in _OF_THE_END},
        )

    def of(self, seed: int) -> "Snapshots":
        """One seed's rows, as views."""
        return Snapshots(**{field.name: getattr(self, field.name)[seed, ...] for field in fields(self)})

    def at(self, where: np.ndarray, outputs: int) -> dict[str, np.ndarray | None]:
        """The arrays of all seeds by name, at the times with indices ``where``; None for those that are not wanted.

        What has an axis of points has one of ``outputs`` behind it, if they are several.
        """
        found: dict[str, np.ndarray | None] = {}
        for field in fields(self):
            array = getattr(self, field.name)
            if 0 in array.shape[1:]:
                array = None
            elif field.name not in ("kernel", "test_kernels", *_OF_THE_END):
                array = array[:, where]
            if array is not None and outputs > 1 and (axes := _AXES_OF_POINTS.get(field.name, 0)):
                lead, last = array.shape[:-axes], array.shape[-axes:]
                array = array.reshape(*lead, *(n for points in last for n in (points // outputs, outputs)))
            found[field.name] = array
        return found


@dataclass
class State:
    """A network at some theta: what a pass leaves behind.

    ``outputs`` (n k,) for k outputs; ``layers`` (L+1, n k, n k), the kernels of every layer's parameters, and ``kernel``, their
    sum with the layers' rates.
    """

    theta: np.ndarray
    room: Room
    outputs: np.ndarray
    layers: np.ndarray
    kernel: np.ndarray


def _total(layers: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """The sum of all layers' kernels times their rates, the readout's first; frozen ones do not enter, as 0 x infinity either."""
    kernel = np.zeros_like(layers[0])
    for own, rate in zip(layers[::-1], rates[::-1], strict=True):
        if rate > 0:
            kernel += rate * own
    return kernel


def _relative(squares: np.ndarray) -> np.ndarray:
    """Norms of changes over those of what changed, from the squares of both, (2, ...)."""
    return np.sqrt(squares[0]) / np.sqrt(squares[1])


@dataclass(frozen=True)
class _First:
    """What drifts refer to, of a network at initialisation: every layer's kernel, and what :meth:`Watch.remember` keeps."""

    layers: np.ndarray
    activations: tuple[np.ndarray, np.ndarray | None]


@dataclass(frozen=True)
class Task:
    """What all seeds share: the network, training points and targets (n k,) for k outputs, test points, test with training ones.

    With ``remove_initial_output`` f - f_0 stands for f everywhere.
    """

    net: Net
    x: Points
    y: np.ndarray
    x_test: Points | None
    x_across: Points | None
    remove_initial_output: bool


class Watch:
    """One seed's network, whose parameters at initialisation are ``start``: looks at it cost passes, and are counted."""

    def __init__(self, threads: int, seed: np.uint64, task: Task) -> None:
        self.threads, self.seed, self.net, self.y, self.rates = threads, seed, task.net, task.y, task.net.scales[4]
        self.columns, self.pairs = task.x
        self.tests = None
        if task.x_test is not None:
            self.test_pairs = task.x_test[1]
            self.tests = self.make_test_room(*task.x_test)
        self.across = task.x_across
        self.centred, self.removed, self.test_removed = task.remove_initial_output, np.zeros(1), np.zeros(1)
        self.passes = 0
        self.offsets = parameter_offsets(self.net)
        self.start = self.draw()
        self.first: _First | None = None

    @property
    def targets(self) -> np.ndarray:
        """Targets (n, k)."""
        return self.y.reshape(self.pairs.cols, -1)

    # From here to `look`: work on parameters and activations, here the CPU's. `cuda.machine.CudaWatch` has a GPU do it.

    def draw(self) -> np.ndarray:
        """The parameters at initialisation."""
        theta = aligned(self.offsets[-1], self.columns.dtype)
        draw_into(self.seed, self.net, self._weights(theta))
        return theta

    def _layer(self, theta: np.ndarray, layer: int) -> np.ndarray:
        """Weights and biases of layer 0 .. L, a view of the parameters."""
        return theta[self.offsets[2 * layer] : self.offsets[2 * layer + 2]]

    def _weights(self, theta: np.ndarray) -> Weights:
        """The weights of a parameter vector."""
        return stored_weights(self.net, theta)

    def copy(self, theta: np.ndarray) -> np.ndarray:
        """A copy of a parameter vector, which may be one on the host."""
        twin = aligned(theta.size, theta.dtype)
        twin[:] = theta
        return twin

    def velocity(self, momentum: float) -> np.ndarray:
        """Room for -eta v: zeros in the layout of the parameters, and nothing without momentum."""
        return aligned(self.start.size if momentum else 0, self.start.dtype)

    def layer_squares(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """||a_l - b_l||^2 and ||b_l||^2 of each layer of two parameter vectors, (L+1, 2)."""
        layers = [(self._layer(a, i), self._layer(b, i)) for i in range(len(self.rates))]
        return np.array([square_distance_and_norm(one, other) for one, other in layers])

    def make_test_room(self, columns: np.ndarray, pairs: Pairs) -> Room:
        """Room for the test points' outputs."""
        rows = group_rows(self.threads, self.net)
        return make_room(self.net, columns, pairs, rows, streamed=False, backward=False, kernel=False)

    def make_room(self, columns: np.ndarray | None = None, pairs: Pairs | None = None) -> Room:
        """Room for the training points, or others, with their kernel."""
        rows = group_rows(self.threads, self.net)
        columns, pairs = (self.columns, self.pairs) if columns is None or pairs is None else (columns, pairs)
        return make_room(self.net, columns, pairs, rows, streamed=False, backward=True, kernel=True, by_layer=True)

    def make_descent_room(self, room: Room, size: int | None) -> tuple[Room, Pairs]:
        """Room for steps of descent, without a kernel: ``room`` itself, or one for ``size`` of the points, yet to be chosen."""
        if size is None:
            return for_descent(room), self.pairs
        lanes = padded_points(size, self.columns.itemsize)
        pairs, columns = Pairs(0, size, size, lanes, lanes, True), np.zeros((len(self.columns), lanes), self.columns.dtype)
        rows = group_rows(self.threads, self.net)
        return make_room(self.net, columns, pairs, rows, streamed=False, backward=True, kernel=False, pulled=True), pairs

    def evaluate(self, theta: np.ndarray, room: Room, pairs: Pairs) -> np.ndarray:
        """Outputs (n k,) at ``theta``, and as far as ``room`` has room for it the kernel, which stays there."""
        evaluate_at(self.threads, self.seed, self.net, self._weights(theta), room, pairs)
        return room.outputs[:, : pairs.cols].T.flatten()

    def kernels(self, room: Room, pairs: Pairs) -> np.ndarray:
        """The kernel of every layer's parameters, (L+1, rows k, columns k), of a room that has been evaluated."""
        outputs = self.y.size // self.pairs.cols
        kernels = np.empty((len(room.kernel), pairs.rows * outputs, pairs.cols * outputs))
        for own, kernel in zip(room.kernel, kernels, strict=True):
            read_kernel(own, pairs, kernel[None])
        return kernels

    def remember(self, room: Room) -> tuple[np.ndarray, np.ndarray | None]:
        """Of an evaluated room the last layer's activations on the points, and where hidden neurons are open; own arrays."""
        last, points, cols = len(self.rates) - 1, self.pairs.points, self.pairs.cols
        values = gated(self.net.code, room.h, room.slope)
        features = room.h[room.at[last] : room.at[last + 1]].reshape(-1, points)[:, :cols].copy()
        return features, None if values is None else values[room.at[1] :].reshape(-1, points)[:, :cols] > 0

    def movement(
        self, now: tuple[np.ndarray, np.ndarray | None], before: tuple[np.ndarray, np.ndarray | None]
    ) -> tuple[float, float, float]:
        """||h - h_0||, ||h_0||, and the share of gates that have flipped, NaN if unknown, between two that are remembered."""
        first = before[0].astype(np.float64)
        flipped = np.nan if now[1] is None else np.count_nonzero(now[1] != before[1]) / now[1].size
        return float(np.linalg.norm(now[0] - first)), float(np.linalg.norm(first)), flipped

    def pull_back(self, state: State, vector: np.ndarray, theta: np.ndarray) -> None:
        """theta <- theta - rate J' vector, J at ``state``, in place."""
        rows = np.ascontiguousarray(vector.reshape(self.pairs.cols, -1).T, theta.dtype)
        pull_back_at(self.threads, self.net, self._weights(theta), state.room, self.pairs, rows)

    def advance(
        self, theta: np.ndarray, velocity: np.ndarray, room: Room, pairs: Pairs, order: np.ndarray, count: int, ready: bool,
        rate: float, momentum: float, before: float, after: float,
    ) -> int:  # fmt: skip
        """Take ``count`` steps of descent in place, as :func:`cpu.descent.advance` does; returns their number."""
        return advance(
            self.threads, self.seed, self.net, self._weights(theta), self._weights(velocity), room, pairs, self.columns,
            self.targets, order, rate, momentum, before, after, count, ready,
        )  # fmt: skip

    def begin(self, rows: Snapshots) -> None:
        """Fill in what is seen of the network at initialisation beside the first look."""
        if self.across is not None:
            with np.errstate(over="ignore"):  # of a network beyond float32: infinite, as it is
                rows.test_kernels[0] = self.test_kernel(self.start)

    def distance(self, a: np.ndarray, b: np.ndarray) -> float:
        """||a - b|| of two parameter vectors in units in which all layers learn at one rate: theirs over its root."""
        moving = self.rates > 0
        return float(np.sqrt(np.sum(self.layer_squares(a, b)[moving, 0] / self.rates[moving])))

    def look(self, theta: np.ndarray, room: Room) -> State:
        """Outputs and kernel at ``theta``; the first look is the one that drifts refer to."""
        outputs = self.evaluate(theta, room, self.pairs)
        self.passes += 1
        layers = self.kernels(room, self.pairs)
        state = State(theta, room, outputs, layers, _total(layers, self.rates))
        if self.first is None:
            self.first = _First(layers, self.remember(room))
            if self.centred:
                self._remove(state)
        return state

    def _remove(self, state: State) -> None:
        """Let targets move by the outputs, so that residuals are those of f - f_0, and show outputs without them."""
        self.removed = state.outputs
        self.y = self.y + self.removed
        if self.tests is not None:
            self.test_removed = self.test_outputs(state)

    def test_outputs(self, state: State) -> np.ndarray:
        """Outputs on the test points, (n* k,)."""
        assert self.tests is not None
        return self.evaluate(state.theta, self.tests, self.test_pairs)

    def test_kernel(self, theta: np.ndarray) -> np.ndarray:
        """The kernel of test with training points, (n* k, n k)."""
        assert self.across is not None
        room, pairs = self.make_room(*self.across), self.across[1]
        self.evaluate(theta, room, pairs)
        return _total(self.kernels(room, pairs), self.rates)

    def residual(self, state: State) -> np.ndarray:
        """f - y, float64."""
        return state.outputs - self.y

    def loss(self, state: State) -> float:
        """1/2 sum r^2; infinite or NaN where the network has diverged."""
        with np.errstate(over="ignore", invalid="ignore"):
            return float(0.5 * np.sum(self.residual(state) ** 2))

    def record(self, at: int, time: float, state: State, rows: Snapshots) -> None:
        """Fill row ``at`` of every array, and with the last row the fields of the end."""
        # A network that is about to diverge, beyond float32 or dead: infinite or NaN, as it is.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            rows.outputs[at] = state.outputs - self.removed
            rows.loss[at] = self.loss(state)
            self._measure(at, state, rows)
            if len(rows.kernels):
                rows.kernels[at] = state.kernel
            if self.tests is not None:
                rows.test_outputs[at] = self.test_outputs(state) - self.test_removed
        if at + 1 == len(rows.loss):
            self.record_end(time, state, rows)

    def record_end(self, time: float, state: State, rows: Snapshots) -> None:
        """Fill the fields of the end of training, at the last time or where training stopped before."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            rows.time_reached[...], rows.kernel[:] = time, state.kernel
            if self.across is not None:
                rows.test_kernels[1] = self.test_kernel(state.theta)
            rows.end_kernel_drift[...] = self._kernel_drift(state)
            rows.end_parameter_drift[...] = _relative(self.layer_squares(state.theta, self.start).sum(axis=0))

    def _kernel_drift(self, state: State) -> float:
        """||K_t - K_0||_F / ||K_0||_F."""
        assert self.first is not None
        return relative_distance(state.kernel.ravel(), _total(self.first.layers, self.rates).ravel())

    def _measure(self, at: int, state: State, rows: Snapshots) -> None:
        """How far kernel, parameters and features are from where they began."""
        assert self.first is not None
        rows.kernel_drift[at] = self._kernel_drift(state)
        rows.kernel_distance[at] = kernel_distance(state.kernel, _total(self.first.layers, self.rates))
        pairs = zip(state.layers, self.first.layers, strict=True)
        rows.layer_kernel_drift[at] = [relative_distance(now.ravel(), then.ravel()) for now, then in pairs]
        squares = self.layer_squares(state.theta, self.start)
        rows.layer_drift[at] = _relative(squares.T)
        rows.parameter_drift[at] = _relative(squares.sum(axis=0))
        change, norm, rows.gates_flipped[at] = self.movement(self.remember(state.room), self.first.activations)
        rows.feature_drift[at] = change / norm if change != 0 else 0.0
