"""Gates that slide: the flow of a network with kinks as Filippov's solution.

Where the two velocities of a pre-activation z, those of either side of its kink, both point at 0, it stays there, and the slope
of the activation is what keeps it (Filippov 1988): the velocity R J(s)' r is then R J' r projected on the parameters' motions
that leave the held gates at 0, in the metric of R^(-1). So held gates change a step of the flow in that K - B C^-1 B' stands in
for K, and their motion is taken out of every pull-back (`gates` has the symbols). Which gates are held, and with what slopes, is
one convex problem: C is a Gram matrix, and over slopes between those of the sides the velocities are unique; where they leave
the slopes open (the gates of a neuron whose weights are 0 are not independent) those nearest to the base are taken. Gates that
move as one (`twins`) are settled as one.

A gate that changes its side within a step does so at a time that is solved for, and moves by the slope of either side before and
after it; or it stops at 0, and is held from there on.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ntksim.engine.gates import block_loops
from ntksim.engine.gates.block_matrices import Blocks
from ntksim.engine.gates.gates import Gates, Held, Inputs, along_outputs, is_even, is_smooth, pre_activations, sides_of
from ntksim.engine.gates.twins import Points, Twins, with_twins
from ntksim.engine.infinite.decay import integral
from ntksim.engine.machine import Machine, Theta
from ntksim.engine.training.modes import Modes
from ntksim.engine.training.watch import State

_MARKS, _HALVINGS = 48, 40  # of a step, to find when a gate reaches 0
_ROUNDS = 20
_NO_GATES = np.zeros((0, 3), np.int64)


@dataclass(frozen=True)
class Settled:
    """Gates ``ids`` (p, 3) at a state: which of them are ``held`` at 0 (p,), and the slope of each (p,).

    ``missed`` is by how fast the motion of gates that were held before, and are let go, changes outputs (root mean square);
    ``gates`` are their algebra at this state, if it is known.
    """

    ids: np.ndarray
    held: np.ndarray
    slopes: np.ndarray
    missed: float = 0.0
    gates: Gates | None = None

    @property
    def sliding(self) -> np.ndarray:
        """The gates that are held."""
        return self.ids[self.held]


NONE_SETTLED = Settled(_NO_GATES, np.zeros(0, bool), np.zeros(0))


class Kinks:
    """Where the gates of a machine's network stand; for activations without a kink there are none."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.scales = machine, machine.net.scales
        sides = sides_of(machine.net)
        self.sides = sides if machine.holds_gates else None
        #: whether kernels jump where gates cross a kink, and nobody knows of these gates
        self.unseen = not is_smooth(machine.net) and self.sides is None
        self.starts = np.concatenate([[0], np.cumsum(machine.net.widths[1:-1])])
        if self.sides is None:
            return
        self.inputs = Inputs.of(machine.columns[:, : machine.points])
        #: of every hidden layer, which points share gates
        self.points = Points.of_layers(self.inputs, len(self.starts) - 1, bool(self.scales[2, 0] != 0), is_even(machine.net))

    def rows(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where gates stand among those of all hidden neurons: rows and columns."""
        return self.starts[ids[:, 0] - 1] + ids[:, 1], ids[:, 2]

    def open(self, state: State, settled: Settled) -> np.ndarray:
        """Where gates are open, (neurons, n); those that have just been let go are on the side to which they went."""
        found = self.machine.open_gates(state.room)
        if len(settled.ids) and self.sides is not None:
            gone = ~settled.held
            found[self.rows(settled.ids[gone])] = settled.slopes[gone] == self.sides[1]
        return found

    def flipped(self, before: np.ndarray, state: State, held: np.ndarray) -> np.ndarray:
        """The gates (p, 3) that are not where they were ``before``, without those that are held."""
        if self.sides is None:
            return _NO_GATES
        changed = self.machine.open_gates(state.room) != before
        changed[self.rows(held)] = False
        rows, points = np.nonzero(changed)
        layers = np.searchsorted(self.starts, rows, side="right")
        return np.stack([layers, rows - self.starts[layers - 1], points], axis=1)

    def at(self, state: State, ids: np.ndarray) -> Gates:
        """Some gates at a state."""
        return Gates(self.machine.inside(state.theta, state.room), self.scales, ids, self.inputs)

    def settle(self, state: State, residual: np.ndarray, ids: np.ndarray, before: np.ndarray) -> Settled:
        """Which of some gates at 0 the flow holds there, and the slopes of all; slopes ``before`` have held the first of them.

        Gates that move as one are settled together.
        """
        if not len(ids) or self.sides is None:
            return NONE_SETTLED
        ids = with_twins(ids, self.points)
        gates, (below, above) = self.at(state, ids), self.sides
        middle = 0.5 * (below + above)
        twins = Twins.of(ids, self.points, middle)
        size = float(np.linalg.norm(residual))
        residual = residual / (size or 1.0)
        former = np.append(before, np.full(len(ids) - len(before), middle))
        free, change, own = -(gates.B @ residual), former - gates.base, gates.at_points(residual)

        def push(slopes: np.ndarray | float, pressure: np.ndarray) -> np.ndarray:
            return twins.total((slopes - gates.base) * pressure)

        both = [twins.slopes(np.full(len(ids), side)) for side in (below, above)]
        for _ in range(_ROUNDS):  # the pressure on a gate depends on the slopes of those above it
            pressure = gates.pressure(own, change)
            force = twins.total(twins.sign * pressure)  # of all that move as one, on the slope of the first
            # towards 0 from both sides: where the slope falls at the kink, pressure has the other sign
            holds = force * np.sign(above - below) > 1e-14 * np.abs(force).max()
            low, high = (np.where(holds, push(side, pressure), push(former, pressure)) for side in both)
            q, where = gates.C.least(free, low, high)
            kept = twins.slopes(middle + (q - push(middle, pressure)) / np.where(holds, force, 1.0))
            previous, change = change, np.where(holds[twins.first], kept, former) - gates.base
            if np.abs(change - previous).max() < 1e-9 or (ids[:, 0] == ids[0, 0]).all():
                break
        gone = ~holds
        if gone[twins.first].any():
            # What is pushed from 0 by either side was held until the pressure went through 0. A vanishing smoothing of the kink
            # lets it go to the side to which it then moves with the slopes that have held it and others.
            leaves = free - gates.C @ q
            side = twins.slopes(np.where(leaves > 0, above, below))
            low, high = (np.where(gone, push(side, pressure), bound) for bound in (low, high))
            q, where = gates.C.least(free, low, high)
            where[gone] = np.where(leaves > 0, 1, -1)[gone]
            kept = twins.slopes(middle + (q - push(middle, pressure)) / np.where(holds, force, 1.0))
        where = where[twins.first] * twins.sign
        held = where == 0
        slopes = np.where(held, kept, np.where(where > 0, above, below))
        moving = free - gates.C @ q
        late = np.where(held | (np.arange(len(ids)) >= len(before)), 0.0, moving)
        missed = 0.0
        if late.any():
            root = gates.C.root(late != 0)
            b, _ = gates.mixed(gates.mixing(slopes - gates.base), gates.B, gates.C)
            missed = size * float(np.sqrt(np.mean(((root.T @ (root @ late)) @ b) ** 2)))
        return Settled(ids, held, slopes, missed, gates)

    def held(self, state: State, settled: Settled) -> Held | None:
        """The gates that are held at a state, None if none is."""
        if not settled.held.any():
            return None
        gates = self.at(state, settled.sliding)
        return Held(gates, settled.slopes[settled.held] - gates.base)


class Place:
    """A state from which the flow moves: its kernel and pull-back with some gates held, and others on a side of their own.

    ``residual`` (n k,) is that of the held gates brought back to 0 exactly, to first order, and ``kernel`` (n k, n k) that by
    which it decays.
    """

    def __init__(self, kinks: Kinks, state: State, residual: np.ndarray, settled: Settled) -> None:
        self.state, self.residual, self.kernel, self.settled = state, residual, state.kernel, settled
        self.machine, self.gates = kinks.machine, None
        if not len(settled.ids):
            return
        self.gates = gates = kinks.at(state, settled.ids) if settled.gates is None else settled.gates
        self.held, kernel = settled.held, state.kernel
        self.change = np.where(settled.held, 0.0, settled.slopes - gates.base)
        self.mixing, self.b = gates.mixing(self.change), gates.B
        if self.change.any():
            self.b, added = gates.mixed(self.mixing, gates.B, gates.C)
            kernel = kernel + added
        self.root = gates.C.root(self.held)  # R'R = C^-1 of the held gates
        self.half = self.root.product(self.b, wanted=self.held)
        self.residual = residual - self.half.T @ (self.root @ gates.z)[self.held]
        self.kernel = kernel - self.half.T @ self.half  # of one array: the library computes half of it

    @cached_property
    def sliding(self) -> np.ndarray:
        """The gates that are held."""
        return self.settled.sliding

    @property
    def slopes(self) -> np.ndarray:
        """The slopes that hold them."""
        return self.settled.slopes[self.settled.held]

    def move(self, theta: Theta, vector: np.ndarray, *, start: bool, along: np.ndarray | None = None) -> None:
        """theta <- theta - R J' vector, in place, held gates staying; from the ``start`` of a step they go back to 0.

        ``along`` (p,) is a motion R Z' along of gates that comes on top, again without that of the held ones.
        """
        self.machine.pull_back(self.state.room, vector, theta)
        if self.gates is None:
            return
        motion = -along_outputs(self.mixing, self.gates.at_points(vector))
        held = self.b @ vector - (self.gates.z if start else 0.0)
        if along is not None:
            motion += along
            held = held - self.gates.C @ along
        motion += self.root.T @ (self.root @ held)
        self.machine.shift(theta, *self.gates.motion(motion))


class Crossings:
    """Gates that reach 0 within a step of a ``size``: when, and how far they then push the parameters.

    ``start`` and ``ahead`` are the places at the start of the step and at its predicted end, where the gates have the slopes of
    the side that they come from; ``modes`` are those of the step's kernel, and ``drift`` (n k,) is by how much the integral of
    the residual differs from what the prediction took.
    """

    def __init__(
        self, kinks: Kinks, start: Place, ahead: Place, modes: Modes, components: np.ndarray, drift: np.ndarray, size: float
    ) -> None:
        assert ahead.gates is not None
        assert kinks.sides is not None
        gates, new = ahead.gates, np.flatnonzero(~ahead.settled.held)
        self.size, self.number, self.new, self.ids = size, len(gates.ids), new, gates.ids[new]
        inside = kinks.machine.inside(start.state.theta, start.state.room)
        coupled = ahead.root.times(gates.C)
        b = ahead.b[new] - coupled.T.product(ahead.half, ahead.held, ~ahead.held)
        before, after = pre_activations(inside, kinks.scales, self.ids), gates.z[new] - b @ drift
        below, above = kinks.sides
        side = np.where(ahead.settled.slopes[new] == above, 1.0, -1.0)
        path = _Path.of(modes, components, size)
        self.times = path.times_of_zero(b, before, after, side)
        residuals = np.zeros((self.number, gates.outputs))
        rows = gates.point[new, None] * gates.outputs + np.arange(gates.outputs)
        residuals[new] = path.rest(rows, self.times)
        pressure, twins = gates.pressure(residuals, ahead.change), Twins.of(gates.ids, kinks.points, 0.0)
        jumps, left = np.zeros((2, self.number))
        jumps[new], left[new] = side * (below - above) * pressure[new], after
        full = twins.total(jumps)
        holds = twins.total(twins.sign * pressure) * (above - below) > 0
        low, high = (np.where(holds, bound, full) for bound in (np.minimum(full, 0), np.maximum(full, 0)))
        own = Blocks(gates.pattern, gates.C.data - coupled.T.times(coupled).data)  # with the held gates staying
        q, where = own.least(left, low, high)
        self.q, self.stopped = q[new], (holds & (where == 0))[twins.first[new]]
        self.outputs = b.T @ self.q  # by which the step changes outputs, with a sign

    def along(self, time: float) -> np.ndarray:
        """The motion R Z' along (p,) of all gates of the place ahead, up to a time of the step."""
        rest = np.maximum(self.size - self.times, np.finfo(np.float64).tiny)
        found = np.zeros(self.number)
        found[self.new] = -self.q * np.clip((time - self.times) / rest, 0, 1)
        return found


class _Path(NamedTuple):
    """The integral of the residual within a step, ``values`` (n k, T), and the residual, ``slopes``, at ``marks`` (T,): finer at
    the start, where fast modes decay, and cubic in between.
    """

    marks: np.ndarray
    values: np.ndarray
    slopes: np.ndarray

    @classmethod
    def of(cls, modes: Modes, components: np.ndarray, size: float) -> "_Path":
        marks = size * np.linspace(0, 1, _MARKS + 1) ** 3
        moving = np.where(modes.values > 0, components, 0.0)
        values = modes.vectors @ (integral(modes.values, marks[:, None]) * components).T
        return cls(marks, values, modes.vectors @ (np.exp(-modes.values * marks[:, None]) * moving).T)

    def times_of_zero(self, b: np.ndarray, before: np.ndarray, after: np.ndarray, side: np.ndarray) -> np.ndarray:
        """When pre-activations (p,) reach 0 that go from ``before`` to ``after``: along the residual's integral times ``b``
        (p, n k), and for what is left evenly in time.
        """
        left = (before - after - b @ self.values[:, -1]) / self.marks[-1]
        z = side[:, None] * (before[:, None] - left[:, None] * self.marks - b @ self.values)
        slopes = side[:, None] * (-left[:, None] - b @ self.slopes)
        times = np.empty(len(before))
        block_loops.first_zeros(self.marks, z, slopes, _HALVINGS, times)
        return np.where(before * side <= 0, 0.0, times)

    def rest(self, rows: np.ndarray, times: np.ndarray) -> np.ndarray:
        """The integral from ``times`` (p,) to the end of the step, at ``rows`` (p, k) of the points."""
        first = np.clip(np.searchsorted(self.marks, times, side="right") - 1, 0, _MARKS - 1)[:, None]
        own = _Cubic(*(a for at in (first, first + 1) for a in (self.marks[at], self.values[rows, at], self.slopes[rows, at])))
        return self.values[rows, -1] - own.at(times[:, None])


class _Cubic(NamedTuple):
    """The cubic with given values and slopes at both ends of an interval."""

    begin: np.ndarray
    first: np.ndarray
    first_slope: np.ndarray
    end: np.ndarray
    last: np.ndarray
    last_slope: np.ndarray

    def at(self, time: np.ndarray) -> np.ndarray:
        """Its value."""
        length, change = self.end - self.begin, self.last - self.first
        s = (time - self.begin) / length
        bent = (1 - s) * (self.first_slope * length - change) + s * (change - self.last_slope * length)
        return self.first + s * (change + (1 - s) * bent)
