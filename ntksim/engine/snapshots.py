"""One network in training as it is seen from outside: passes over its points, and what is written down at a snapshot."""

from dataclasses import dataclass, fields

import numpy as np

from ntksim.engine.descent_cpu import evaluate_at, relative_distance, square_distance_and_norm
from ntksim.engine.kernels_cpu import PANEL, draw_into
from ntksim.engine.layout import Net, Pairs, Room, aligned, make_room, parameter_offsets, stored_weights
from ntksim.engine.product import padded_points

Points = tuple[np.ndarray, Pairs]  # columns (d, padded points), and which of them are points


@dataclass(frozen=True)
class Snapshots:
    """What is seen of S seeds at T times, or of one of them; NaN until it is filled.

    Arrays lead with axes (S, T), of one seed with (T,): ``outputs`` (n), ``test_outputs`` (n*), ``loss``, ``kernels`` (n, n),
    ``kernel_drift`` and ``parameter_drift``. ``test_outputs`` and ``kernels`` are empty where they are not wanted.
    """

    outputs: np.ndarray
    test_outputs: np.ndarray
    loss: np.ndarray
    kernels: np.ndarray
    kernel_drift: np.ndarray
    parameter_drift: np.ndarray

    @classmethod
    def empty(cls, seeds: int, times: int, points: int, tests: int, kind: np.dtype, keep_kernels: bool) -> "Snapshots":
        """Room for ``seeds`` seeds at ``times`` times."""

        def missing(*shape: int, kind: np.dtype | type = np.float64) -> np.ndarray:
            return np.full((seeds, *shape), np.nan, kind)

        return cls(
            outputs=missing(times, points, kind=kind),
            test_outputs=missing(times, tests, kind=kind),
            loss=missing(times),
            kernels=missing(times if keep_kernels else 0, points, points, kind=kind),
            kernel_drift=missing(times),
            parameter_drift=missing(times),
        )

    def of(self, seed: int) -> "Snapshots":
        """One seed's rows, as views."""
        return Snapshots(**{field.name: getattr(self, field.name)[seed] for field in fields(self)})

    def at(self, where: np.ndarray) -> dict[str, np.ndarray | None]:
        """The arrays of all seeds by name, at the times with indices ``where``; None for those that are not wanted."""
        found: dict[str, np.ndarray | None] = {}
        for field in fields(self):
            array = getattr(self, field.name)
            found[field.name] = None if 0 in array.shape[1:] else array[:, where]
        return found


@dataclass
class State:
    """A network at some theta: what a pass leaves behind."""

    theta: np.ndarray
    room: Room
    outputs: np.ndarray
    kernel: np.ndarray


@dataclass(frozen=True)
class Task:
    """What all seeds share: the network, training points and targets (n,), and test points.

    ``net`` has its parameters in units in which all layers learn at one rate: theirs over ``units`` (L+1,). ``plain`` is the
    network in its own, in which parameters are drawn.
    """

    net: Net
    plain: Net
    units: np.ndarray
    x: Points
    y: np.ndarray
    x_test: Points | None


class Watch:
    """One seed's network, whose parameters at initialisation are ``start``: looks at it cost passes, and are counted."""

    def __init__(self, threads: int, seed: np.uint64, task: Task) -> None:
        self.threads, self.seed, self.net, self.y, self.units = threads, seed, task.net, task.y, task.units
        self.columns, self.pairs = task.x
        self.tests = None
        if task.x_test is not None:
            self.test_pairs = task.x_test[1]
            self.tests = make_room(self.net, *task.x_test, PANEL, streamed=False, backward=False, kernel=False)
        self.passes = 0
        self.offsets = parameter_offsets(self.net)
        self.start = aligned(self.offsets[-1], self.columns.dtype)
        draw_into(seed, task.plain, stored_weights(task.plain, self.start))
        for layer, unit in enumerate(self.units):
            if unit != 1:
                self.layer(self.start, layer)[:] /= unit
        self.first_kernel: np.ndarray | None = None

    def layer(self, theta: np.ndarray, layer: int) -> np.ndarray:
        """Weights and biases of layer 0 .. L, a view of the parameters."""
        return theta[self.offsets[2 * layer] : self.offsets[2 * layer + 2]]

    def make_room(self) -> Room:
        """Room for the training points."""
        return make_room(self.net, self.columns, self.pairs, PANEL, streamed=False, backward=True, kernel=True)

    def make_batch_room(self, size: int) -> tuple[Room, Pairs]:
        """Room for ``size`` of the points, yet to be chosen, without a kernel."""
        lanes = padded_points(size, self.columns.itemsize)
        pairs, columns = Pairs(0, size, size, lanes, lanes, True), np.zeros((len(self.columns), lanes), self.columns.dtype)
        return make_room(self.net, columns, pairs, PANEL, streamed=False, backward=True, kernel=False), pairs

    def look(self, theta: np.ndarray, room: Room) -> State:
        """Outputs and kernel at ``theta``; the first look is the one that drifts refer to."""
        evaluate_at(self.threads, self.seed, self.net, stored_weights(self.net, theta), room, self.pairs)
        self.passes += 1
        kernel = np.triu(room.kernel[:, : self.pairs.cols])
        kernel += np.triu(kernel, 1).T
        if self.first_kernel is None:
            self.first_kernel = kernel
        return State(theta, room, room.outputs[: self.pairs.cols], kernel)

    def residual(self, state: State) -> np.ndarray:
        """f - y, float64."""
        return state.outputs - self.y

    def loss(self, state: State) -> float:
        """1/2 sum r^2; infinite or NaN where the network has diverged."""
        with np.errstate(over="ignore", invalid="ignore"):
            return float(0.5 * np.sum(self.residual(state) ** 2))

    def record(self, at: int, state: State, rows: Snapshots) -> None:
        """Fill row ``at`` of every array."""
        assert self.first_kernel is not None
        rows.outputs[at] = state.outputs
        rows.loss[at] = self.loss(state)
        rows.kernel_drift[at] = relative_distance(state.kernel.ravel(), self.first_kernel.ravel())
        layers = [(self.layer(state.theta, i), self.layer(self.start, i)) for i in range(len(self.units))]
        squares = [square_distance_and_norm(now, before) for now, before in layers]
        moved, norm = self.units**2 @ np.array(squares)  # in the parameters' own units
        rows.parameter_drift[at] = np.sqrt(moved / norm)
        if len(rows.kernels):
            rows.kernels[at] = state.kernel
        if self.tests is not None:
            weights = stored_weights(self.net, state.theta)
            evaluate_at(self.threads, self.seed, self.net, weights, self.tests, self.test_pairs)
            rows.test_outputs[at] = self.tests.outputs[: self.test_pairs.cols]
