"""Gradient flow theta' = -J' r by an exponential integrator: steps follow the kernel's slow change, not its stiffness.

A step of size h from (theta_0, r_0, K_0), with functions of matrices taken on eigenvalues:

    predictor   theta_1 = theta_0 - J_0' h phi_1(-h K_0) r_0, where J and K are evaluated again;
    corrector   theta(s) = theta_0 - J_0' (I_0 - I_1) - J_1' I_1,  K = (K_0 + K_1) / 2,
                I_0 = int_0^s e^(-K u) r_0 du,  I_1 = int_0^s (u / h) e^(-K u) r_0 du,

which is exact for a constant kernel and of second order in its change; s < h is the dense output. For networks with kinks J and K
are those of the gates that slide and of the sides that the others start from, and what gates do that change sides within the
step is added (`sliding`).

The error of a step is the largest of five estimates. Of outputs: ||f(theta(h)) - y - e^(-K h) r_0|| on the training points;
since that is blind where there are none, the distance of corrector and predictor in parameters times sqrt(tr K / n) times the
relative change of the kernel; a quarter of what the step's decay makes of what gates add; and half of what gates that were held
to the end of the step and no longer would have added to outputs, undamped, with their speed at the end. On a plateau, where the
kernel is small and grows, these are blind to what decides when the loss falls: relative errors of the parameters' speed stay, and
add up.
The fifth is four times the residual times G^2, with G the larger of two measures of how J'r changes within the step: the growth
of log ||J'r||, where it grows, and e^(-10 h lambda_max) times twice the distance of the ends of corrector and predictor over the
length of the step; it is 0 where a gate is near its kink.

Errors of all steps add up, so where the kernel has changed much the first two and the fourth are multiplied by P, its relative
change summed over the steps so far, if P is above 1.

While the motion J'r decays by less than e within a step, and no gate is near its kink, the step before is used too, and all is of
third order: J is extrapolated in the predictor and interpolated in the corrector through three states (Adams), and the residual
takes the kernel as linear in time. What counts is the mean rate of the modes that still move, not lambda_max: modes that have
decayed do not hinder, and on the second plateau of a run they have. The fifth estimate is then with G^3, the second measure
being the root of 2.4 times that distance. Estimates are of lower order than errors, so errors of a whole run stay a multiple of
``tolerance`` when it falls.

Directions in which a kernel is singular to the precision of its arithmetic do not move: along an eigenvector v of eigenvalue 0
J'v = 0, and what rounding leaves of it would grow without bound as time goes on.

Exponential integrators: Hochbruck & Ostermann 2010. The loop over steps is Python around compiled passes: a step costs a
handful of passes and the modes of two kernels, in the residual's Krylov space if that is small (`modes`).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ntksim.engine.cpu.descent import relative_distance
from ntksim.engine.infinite.decay import integral
from ntksim.engine.machine import Theta
from ntksim.engine.training.checkpoints import SeedCheckpoint
from ntksim.engine.training.modes import Finder, Modes, linear_change, modes_of, squared_integral, weighted_integral
from ntksim.engine.training.sliding import NONE_SETTLED, Crossings, Kinks, Place, Settled
from ntksim.engine.training.snapshots import Snapshots
from ntksim.engine.training.watch import State, Watch

MAX_STEPS = 5000
_GROWTH, _SHRINKAGE, _SAFETY = 5.0, 0.2, 0.9
_SLOW = 1.0  # h times the rate at which the motion decays, below which the step before is used too
_RATIO = 2.0  # of the two steps
_GROWN = 4.0  # weight of the growth of the motion in errors
_PAST = 1.01  # a step that gates spoil is cut to just past the first of them


@dataclass(frozen=True)
class Flow:
    """How to flow: ascending ``times`` (T,) at which to look, the error in units of the initial residual's, and steps at most."""

    times: np.ndarray
    tolerance: float
    max_steps: int = MAX_STEPS


class _Step:
    """A step of the flow: its dense output, the state at its end with its gates, and its error."""

    def __init__(self, flow: "_Flow", start: Place, modes: Modes, before: np.ndarray | None, size: float) -> None:
        self.flow, self.start, self.size, self.change = flow, start, size, 0.0
        self.settled, self.crossings, self.earlier = NONE_SETTLED, None, flow.earlier_for(size)
        components = start.residual @ modes.vectors
        taken = modes.vectors @ (integral(modes.values, size) * components)
        predicted = flow.machine.copy(start.state.theta)
        if self.earlier is None:
            start.move(predicted, taken, start=True)
        else:
            bent = modes.vectors @ (weighted_integral(modes.values, size) / self.earlier.size * components)
            start.move(predicted, taken + bent, start=True)
            self.earlier.place.move(predicted, -bent, start=False)
        found = flow.look(predicted)
        self.end, self.error = found, np.inf
        if not np.isfinite(found.kernel).all():
            return
        self.ahead = self._ahead(found, before)
        if self.ahead.gates is not None:
            self.earlier = None
        self.kernel = 0.5 * (start.kernel + self.ahead.kernel)
        time = size if self.earlier is None else np.inf  # what the kernel's change adds has parts along all modes
        self.modes = flow.finder.modes(self.kernel, start.residual, time)
        self.components = start.residual @ self.modes.vectors
        self.expected = np.exp(-self.modes.values * size) * self.components
        if self.earlier is not None:
            self.lasting, added = self._changed(size)
            self.expected += added
        self.expected = self.modes.vectors @ self.expected
        self.extra, kinks = np.zeros_like(start.residual), 0.0
        if len(self.ahead.settled.ids) > len(start.sliding):
            drift = self.modes.vectors @ (integral(self.modes.values, size) * self.components) - taken
            self.crossings = Crossings(flow.kinks, start, self.ahead, self.modes, self.components, drift, size)
            kinks = self._add_crossings(self.crossings.outputs)
        if kinks > flow.bound:  # spares a pass
            self.error = kinks
            return
        self.end = self.dense(size)
        if np.isfinite(self.end.kernel).all():
            self.settled = flow.settle(self.end, self.held(size), start.slopes)
            error = self._error(predicted)
            self.error = max(kinks, error) if np.isfinite(error) else np.inf

    def _ahead(self, found: State, before: np.ndarray | None) -> Place:
        """The place at the predicted end; gates that are not where they were have the slopes of where they were."""
        held, kinks = self.start.sliding, self.flow.kinks
        residual = self.flow.watch.residual(found)
        if before is None or kinks.sides is None:
            return Place(kinks, found, residual, NONE_SETTLED)
        flipped = kinks.flipped(before, found, held)
        slopes = np.where(before[kinks.rows(flipped)], kinks.sides[1], kinks.sides[0])
        ids = np.concatenate([held, flipped])
        return Place(
            kinks, found, residual, Settled(ids, np.arange(len(ids)) < len(held), np.append(np.zeros(len(held)), slopes))
        )

    def _add_crossings(self, outputs: np.ndarray) -> float:
        """Let what gates add to outputs, evenly over the step, decay as it comes; returns the error that this may have."""
        whole = self.modes.vectors.shape[1] == len(outputs)
        values, vectors = self.modes if whole else self.flow.finder.modes(self.kernel, outputs, self.size)
        own, decayed = outputs @ vectors, integral(values, self.size)
        rates = np.where(values > 0, values, 1.0)
        lasting = np.where(values * self.size > 1e-8, (self.size - decayed) / (rates * self.size), 0.5 * self.size)
        self.extra = -(vectors @ (np.where(values > 0, lasting, 0.0) * own))
        self.expected = self.expected - vectors @ (decayed / self.size * own)
        return 0.25 * _rms(vectors @ (np.expm1(-values * self.size) * own))

    def dense(self, s: float) -> State:
        """The state at a time s of the step."""
        values, vectors = self.modes
        theta = self.flow.machine.copy(self.start.state.theta)
        whole, late = integral(values, s), weighted_integral(values, s)
        if self.earlier is not None:
            return self._dense_of_three(theta, s, whole, late)
        late = late / self.size
        self.start.move(theta, vectors @ ((whole - late) * self.components), start=True)
        along = None if self.crossings is None else self.crossings.along(s)
        late = vectors @ (late * self.components) + self.extra * (s / self.size) ** 2
        self.ahead.move(theta, late, start=False, along=along)
        return self.flow.look(theta)

    def _dense_of_three(self, theta: Theta, s: float, whole: np.ndarray, late: np.ndarray) -> State:
        """:meth:`dense` with J through three states; ``whole`` and ``late`` integrate e^(-lambda u) and u e^(-lambda u)."""
        assert self.earlier is not None
        (values, vectors), h, h_before = self.modes, self.size, self.earlier.size
        square = squared_integral(values, s)
        first, last = (square - h * late) / (h_before * (h_before + h)), (square + h_before * late) / (h * (h + h_before))
        bend = 0.5 * vectors @ (self.lasting if s == h else self._changed(s)[0])
        self.start.move(theta, vectors @ ((whole - first - last) * self.components) + bend, start=True)
        self.ahead.move(theta, vectors @ (last * self.components) + bend, start=False)
        self.earlier.place.move(theta, vectors @ (first * self.components), start=False)
        return self.flow.look(theta)

    def _changed(self, s: float) -> tuple[np.ndarray, np.ndarray]:
        """What the kernel's change in the step adds to the residual's modes: the integral up to s, and the value at s."""
        return linear_change(self.modes, self.components, self.ahead.kernel - self.start.kernel, self.size, s)

    def held(self, s: float) -> np.ndarray:
        """The gates (p, 3) that are held at a time s of the step."""
        if self.crossings is None:
            return self.start.sliding
        return np.concatenate([self.start.sliding, self.crossings.ids[self.crossings.stopped & (self.crossings.times <= s)]])

    def _error(self, predicted: Theta) -> float:
        watch, start = self.flow.watch, self.start.residual
        end = watch.residual(self.end)
        off = _rms(end - self.expected)
        moved = watch.distance(self.end.theta, predicted)
        change = relative_distance(self.ahead.kernel.ravel(), self.start.kernel.ravel())
        reach = float(np.sqrt(np.trace(self.start.state.kernel) / len(end)))
        speeds = (float(r @ kernel @ r) for r, kernel in ((start, self.start.kernel), (end, self.ahead.kernel)))
        growth = max(_growth(*speeds), self._bend(moved, reach)) if self.smooth else 0.0
        late = 0.5 * self.size * self.settled.missed
        self.change = change
        # Jumps of kernels at kinks that nobody holds add up to a path without end.
        richness = 1.0 if self.flow.kinks.unseen else max(1.0, self.flow.path + change)
        return max(
            richness * max(off, moved * change * reach, late),
            _GROWN * growth ** (2 if self.earlier is None else 3) * _rms(start),
        )

    def _bend(self, moved: float, reach: float) -> float:
        """The step's change of log J'r as its two motions tell it, with ends ``moved`` apart; 0 where the residual decays."""
        whole = self.flow.watch.distance(self.end.theta, self.start.state.theta)
        apart = moved / whole if whole > 0 and moved * reach > self.flow.rounding else 0.0  # else rounding tells it
        bend = 2 * apart if self.earlier is None else float(np.sqrt(2.4 * apart))
        return float(np.exp(-10 * self.decay)) * bend

    @property
    def smooth(self) -> bool:
        """Whether no gate is near its kink: else kernels jump, however short the step is."""
        return not self.flow.kinks.unseen and self.start.gates is None and self.ahead.gates is None

    @property
    def decay(self) -> float:
        """h lambda of the fastest mode."""
        return self.size * float(self.modes.values[-1])

    @property
    def slow(self) -> bool:
        """Whether the motion J'r decays slowly: at the mean rate of modes, weighted by how much of ||J'r||^2 is theirs."""
        rates, shares = self.modes.values, self.modes.values * self.components**2
        return self.size * float(rates @ shares) < _SLOW * float(shares.sum())

    def first_crossing(self) -> float:
        """When the first gate reaches 0 within the step; 0 if none does."""
        return 0.0 if self.crossings is None else float(self.crossings.times.min())


class _Earlier(NamedTuple):
    """Where the last step began, and its size."""

    place: Place
    size: float


class _Flow:
    """The flow of one seed, from ``place`` at a ``time`` on; steps of ``size`` are tried."""

    def __init__(self, watch: Watch) -> None:
        self.watch, self.machine, self.kinks = watch, watch.machine, Kinks(watch.machine)
        self.precision = float(np.finfo(self.machine.kind).eps)
        self.finder = Finder(self.precision)
        self.time = self.size = self.path = self.bound = self.rounding = 0.0
        self.earlier: _Earlier | None = None  # where the motion hardly decayed, and no gate was near its kink
        self.at = self.count = 0
        self.place: Place
        self.open: np.ndarray | None = None

    def look(self, theta: Theta) -> State:
        """Outputs and kernel at ``theta``, in room of their own."""
        return self.watch.look(theta, self.machine.make_room())

    def stand(self, state: State, settled: Settled) -> None:
        """Go on from a state with these gates."""
        self.place = Place(self.kinks, state, self.watch.residual(state), settled)
        self.open = None if self.kinks.sides is None else self.kinks.open(state, settled)

    def settled(self, modes: Modes, size: float) -> bool:
        """Whether the residual along every direction that the kernel can move is below ``size`` (root mean square)."""
        along = np.where(modes.values > 0, self.watch.residual(self.place.state) @ modes.vectors, 0.0)
        if _rms(modes.vectors @ along) >= size:
            return False
        return len(along) == len(self.place.residual) or self.settled(modes_of(self.place.kernel, self.precision), size)

    def record(self, time: float, state: State, settled: Settled, rows: Snapshots) -> None:
        """Fill the next row, of a ``time``."""
        self.watch.record(self.at, time, self.seen(state, settled), rows)
        self.at += 1

    def seen(self, state: State, settled: Settled) -> State:
        """A state with the kernel of the slopes that hold its gates."""
        number = np.nan if self.kinks.unseen else float(np.count_nonzero(settled.held))
        return self.watch.sliding(state, self.kinks.held(state, settled), number)

    def rest(self, times: np.ndarray, rows: Snapshots) -> str:
        """Fill all rows that are left from where the flow stands."""
        while self.at < len(times):
            self.record(times[self.at], self.place.state, self.place.settled, rows)
        return "finished"

    def rest_or_underflow(self, times: np.ndarray, rows: Snapshots) -> str:
        """Of a kernel of 0: nothing moves, since all inputs are zero or every gate is shut; or the kernel underflowed.

        In that case J'r is not 0. Networks stand still in times that are short enough; how they move later is not known.
        """
        still = times * len(self.place.residual) * float(np.finfo(self.machine.kind).tiny) < self.precision
        change = self.machine.zeros()
        self.machine.pull_back(self.place.state.room, self.watch.residual(self.place.state), change)
        if still.all() or (motion := self.machine.pack(change)) is None or not np.any(motion):
            return self.rest(times, rows)
        while still[self.at]:
            self.time = float(times[self.at])
            self.record(self.time, self.place.state, self.place.settled, rows)
        return self.stop("stalled", rows)

    def stop(self, status: str, rows: Snapshots) -> str:
        """Have the fields of the end show the last accepted step, before the last time; returns the status."""
        self.watch.record_end(self.time, self.seen(self.place.state, self.place.settled), rows)
        return status

    def accept(self, step: _Step, times: np.ndarray, rows: Snapshots) -> None:
        """Fill the rows of a step's times, and go on from its end."""
        while self.at < len(times) and times[self.at] <= self.time + step.size:
            if times[self.at] == self.time + step.size:
                self.record(times[self.at], step.end, step.settled, rows)
            else:
                s = times[self.at] - self.time
                state = step.dense(s)
                self.record(times[self.at], state, self.settle(state, step.held(s), self.place.slopes), rows)
        self.earlier = _Earlier(self.place, step.size) if step.smooth and step.slow else None
        self.stand(step.end, step.settled)
        self.time, self.path = self.time + step.size, self.path + step.change

    def earlier_for(self, size: float) -> _Earlier | None:
        """The step before, where one of this size may use it."""
        fits = self.earlier is not None and self.place.gates is None and size <= _RATIO * self.earlier.size
        return self.earlier if fits else None

    def settle(self, state: State, ids: np.ndarray, before: np.ndarray) -> Settled:
        """Which of some gates at 0 are held there; slopes ``before`` have held the first of them."""
        return self.kinks.settle(state, self.watch.residual(state), ids, before)

    def resume(self, kept: dict[str, Any]) -> None:
        """Stand where :meth:`kept` did."""
        self.stand(self.look(self.machine.unpack(kept["theta"])), Settled(kept["gates"], kept["held"], kept["slopes"]))
        if kept["earlier"].size:
            state = self.look(self.machine.unpack(kept["earlier"]))
            place = Place(self.kinks, state, self.watch.residual(state), NONE_SETTLED)
            self.earlier = _Earlier(place, float(kept["earlier_size"]))
        self.time, self.size, self.path = (float(kept[name]) for name in ("time", "size", "path"))
        self.at, self.count, self.watch.passes, self.finder.pause = (int(kept[key]) for key in ("at", "count", "passes", "pause"))

    def kept(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        earlier, gates = self.earlier, self.place.settled
        return {
            "earlier": np.zeros(0) if earlier is None else self.machine.pack(earlier.place.state.theta),
            "earlier_size": 0.0 if earlier is None else earlier.size, "passes": self.watch.passes, "pause": self.finder.pause,
            "theta": self.machine.pack(self.place.state.theta), "gates": gates.ids, "held": gates.held, "slopes": gates.slopes,
            "time": self.time, "size": self.size, "path": self.path, "at": self.at, "count": self.count,
        }  # fmt: skip

    def run(self, flow: Flow, checkpoint: SeedCheckpoint) -> str:
        """Fill the checkpoint's rows at the flow's times; returns the status."""
        times, rows = flow.times, checkpoint.rows
        state = self.look(self.watch.start)
        if not np.isfinite(state.kernel).all():
            return "diverged"
        self.stand(state, NONE_SETTLED)
        while self.at < len(times) and times[self.at] == 0:
            self.record(0.0, state, NONE_SETTLED, rows)
        # Not below what rounding leaves of the outputs: a residual of zero is a solution too.
        largest = max(np.abs(state.outputs).max(), np.abs(self.watch.y).max(), np.finfo(self.machine.kind).tiny)
        self.rounding = rounding = 100 * self.precision * float(largest)
        self.bound = max(flow.tolerance * _rms(self.watch.residual(state)), rounding)
        fastest = float(modes_of(state.kernel, self.precision).values[-1])
        if fastest == 0:
            return self.rest_or_underflow(times, rows)
        self.size = 1 / fastest
        if (kept := checkpoint.resume()) is not None:
            self.resume(kept)
        modes: Modes | None = None
        while self.count < flow.max_steps and self.at < len(times):
            self.count += 1
            if modes is None:  # all of them where the flow may come to rest, and where the step takes all
                time = np.inf if np.isinf(times[self.at]) or self.earlier is not None else self.size
                modes = self.finder.modes(self.place.kernel, self.place.residual, time)
            # What has come to rest is there at all later times; where all modes decay they are followed to finite ones.
            resting = np.isinf(times[self.at]) or not modes.values.all()
            if resting and self.settled(modes, max(1e-3 * self.bound, 0.1 * rounding)):
                return self.rest(times, rows)
            self.size = min(self.size, times[-1] - self.time)
            with np.errstate(over="ignore", invalid="ignore"):  # of a step that is much too long
                step = _Step(self, self.place, modes, self.open, self.size)
            if step.error > self.bound:
                if self.size < (1e-14 * self.time or np.finfo(np.float64).tiny):
                    return self.stop("stalled", rows)
                self.size = self.smaller(step)
                continue
            self.accept(step, times, rows)
            modes = None
            most = _GROWTH if self.earlier is None else _RATIO
            self.size *= min(most, _SAFETY * (self.bound / max(step.error, np.finfo(np.float64).tiny)) ** (1 / 3))
            checkpoint.reach(self.at / len(times), self.time)
            if checkpoint.is_due() and (kept := self.kept())["theta"] is not None:
                checkpoint.keep(**kept)
        return "finished" if self.at == len(times) else self.stop("step_limit", rows)

    def smaller(self, step: _Step) -> float:
        """The size to try after a step whose error is too large."""
        size = step.size * max(_SHRINKAGE, _SAFETY * (self.bound / step.error) ** (1 / 3))
        first = _PAST * step.first_crossing()
        return max(size, first) if first < 0.95 * step.size else size


def flow_seed(watch: Watch, flow: Flow, checkpoint: SeedCheckpoint) -> str:
    """Integrate one seed, from its checkpoint on if there is one, and fill its rows; returns its status."""
    return _Flow(watch).run(flow, checkpoint)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _growth(before: float, after: float) -> float:
    """By how much log ||J'r|| has grown, from ||J'r||^2; 0 if it has not."""
    return 0.5 * float(np.log(after / before)) if after > before > 0 else 0.0
