"""One network in training as it is seen from outside: passes over its points, and what is written down at a snapshot."""

from dataclasses import dataclass, replace

import numpy as np

from ntksim.engine.cpu.descent import relative_distance
from ntksim.engine.formulas.losses import value_and_gradient
from ntksim.engine.gates.gates import Held
from ntksim.engine.loss import SQUARED
from ntksim.engine.machine import Machine, Memory, Room, Task, Theta
from ntksim.engine.measures import kernel_distance
from ntksim.engine.threads import check
from ntksim.engine.training.snapshots import Snapshots


@dataclass
class State:
    """A network at some theta: what a pass leaves behind.

    ``outputs`` (n k,) for k outputs; ``layers`` (L+1, n k, n k), the kernels of every layer's parameters, and ``kernel``, their
    sum with the layers' rates; ``sliding``, how many gates are held at their kink, and which, ``held``, is known of the flow.
    """

    theta: Theta
    room: Room
    outputs: np.ndarray
    layers: np.ndarray
    kernel: np.ndarray
    sliding: float = np.nan
    held: Held | None = None


def _total(layers: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """The sum of all layers' kernels times their rates, the readout's first; frozen ones do not enter, as 0 x infinity either."""
    kernel = np.zeros_like(layers[0])
    for own, rate in zip(layers[::-1], rates[::-1], strict=True):
        if rate > 0:
            kernel += rate * own
    return kernel


def _sum(squares: np.ndarray) -> float:
    """The sum over layers, one after the other: NumPy's own order depends on how many there are."""
    return float(np.cumsum(squares)[-1])


@dataclass(frozen=True)
class _First:
    """What drifts refer to, of a network at initialisation: every layer's kernel, and what the machine remembers."""

    layers: np.ndarray
    activations: Memory


class Watch:
    """One seed's network on its machine, whose parameters at initialisation are ``start``: passes at it are counted."""

    def __init__(self, machine: Machine, task: Task) -> None:
        self.machine, self.y, self.rates = machine, task.y, task.net.scales[4]
        self.with_tests = task.x_test is not None
        self.loss_kind, self.outputs_count = task.loss, int(task.net.widths[-1])
        self.centred, self.removed, self.test_removed = task.remove_initial_output, np.zeros(1), np.zeros(1)
        self.passes = 0
        self.start: Theta = machine.draw() if task.start is None else machine.unpack(task.start)
        self.first: _First | None = None

    def begin(self, rows: Snapshots) -> None:
        """Fill in what is seen of the network at initialisation beside the first look."""
        if self.with_tests:
            with np.errstate(over="ignore"):  # of a network beyond float32: infinite, as it is
                rows.test_kernels[0] = _total(self.machine.test_kernels(self.start), self.rates)

    def distance(self, a: Theta, b: Theta) -> float:
        """||a - b|| of two parameter vectors in units in which all layers learn at one rate: theirs over its root."""
        moving = self.rates > 0
        return float(np.sqrt(np.sum(self.machine.square_distances(a, b)[moving] / self.rates[moving])))

    def look(self, theta: Theta, room: Room) -> State:
        """Outputs and kernel at ``theta``; the first look is the one that drifts refer to."""
        check()
        outputs, layers = self.machine.evaluate(theta, room)
        self.passes += 1
        state = State(theta, room, outputs, layers, _total(layers, self.rates))
        if self.first is None:
            self.first = _First(layers, self.machine.remember(room))
            if self.centred:
                self._remove(state)
        return state

    def _remove(self, state: State) -> None:
        """Let targets move by the outputs, so that residuals are those of f - f_0, and show outputs without them."""
        self.removed = state.outputs
        self.y = self.y + self.removed
        if self.with_tests:
            self.test_removed = self.machine.test_outputs(state.theta)

    def test_kernel(self, state: State) -> np.ndarray:
        """The kernel of test with training points, (n* k, n k)."""
        layers = self.machine.test_kernels(state.theta)
        if state.held is not None:
            layers = state.held.test_kernels(layers, self.machine.inside_at_tests(state.theta), state.layers)
        return _total(layers, self.rates)

    def sliding(self, state: State, held: Held | None, number: float) -> State:
        """The state with the kernels of the slopes that hold a ``number`` of gates at their kinks."""
        layers = state.layers if held is None else held.kernels(state.layers)
        return replace(state, layers=layers, kernel=_total(layers, self.rates), sliding=number, held=held)

    def residual(self, state: State) -> np.ndarray:
        """f - y, float64."""
        return state.outputs - self.y

    def loss(self, state: State) -> float:
        """The loss, without weight decay; infinite or NaN where the network has diverged."""
        with np.errstate(over="ignore", invalid="ignore"):
            if self.loss_kind.kind == SQUARED:
                return self.loss_kind.factor * float(0.5 * np.sum(self.residual(state) ** 2))
            shape = -1, self.outputs_count
            return value_and_gradient(self.loss_kind, state.outputs.reshape(shape), self.y.reshape(shape))[0]

    def record(self, at: int, time: float, state: State, rows: Snapshots) -> None:
        """Fill row ``at`` of every array, and with the last one what is of the end.

        Movement of parameters is made relative by :meth:`finish`.
        """
        # A network that is about to diverge, beyond float32 or dead: infinite or NaN, as it is.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            rows.outputs[at] = state.outputs - self.removed
            rows.loss[at], rows.sliding_gates[at] = self.loss(state), state.sliding
            self._measure(at, state, rows)
            if len(rows.kernels):
                rows.kernels[at] = state.kernel
            if len(rows.parameters):
                rows.parameters[at] = self._parameters(state)
            if self.with_tests:
                rows.test_outputs[at] = self.machine.test_outputs(state.theta) - self.test_removed
            if len(rows.kept_test_kernels):
                rows.kept_test_kernels[at] = self.test_kernel(state)
        if at + 1 == len(rows.loss):
            self.record_end(time, state, rows)

    def record_end(self, time: float, state: State, rows: Snapshots) -> None:
        """Fill what is of the end of training, at the last time or where training stopped before."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            rows.time_reached[...], rows.kernel[:] = time, state.kernel
            if self.with_tests:
                rows.test_kernels[1] = self.test_kernel(state)
            if len(rows.end_parameters):
                rows.end_parameters[:] = self._parameters(state)
            rows.end_kernel_drift[...] = self._kernel_drift(state)
            rows.end_parameter_drift[...] = np.sqrt(_sum(self.machine.square_distances(state.theta, self.start)))

    def _parameters(self, state: State) -> np.ndarray:
        """The parameter vector of a network that has one: networks in law are not asked."""
        packed = self.machine.pack(state.theta)
        assert packed is not None
        return packed.ravel()

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
        squares = self.machine.square_distances(state.theta, self.start)
        rows.layer_drift[at], rows.parameter_drift[at] = np.sqrt(squares), np.sqrt(_sum(squares))
        change, norm, rows.gates_flipped[at] = self.machine.movement(self.machine.remember(state.room), self.first.activations)
        rows.feature_drift[at] = change / norm if change != 0 else 0.0

    def finish(self, rows: Snapshots) -> None:
        """Put movement of parameters in units of ||theta_0||: a machine may know that only now, when all has been asked."""
        rows.rank[:] = np.nan if self.machine.rank is None else self.machine.rank
        squares = self.machine.square_norms(self.start)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            rows.layer_drift[:] /= np.sqrt(squares)
            for drift in (rows.parameter_drift, rows.end_parameter_drift):
                drift /= np.sqrt(_sum(squares))
