"""Gradient flow theta' = -J' r by an exponential integrator: steps follow the kernel's slow change, not its stiffness.

A step of size h from (theta_0, r_0, K_0), with functions of matrices taken on eigenvalues:

    predictor   theta_1 = theta_0 - J_0' h phi_1(-h K_0) r_0, where J and K are evaluated again;
    corrector   theta(s) = theta_0 - J_0' (I_0 - I_1) - J_1' I_1,  K = (K_0 + K_1) / 2,
                I_0 = int_0^s e^(-K u) r_0 du,  I_1 = int_0^s (u / h) e^(-K u) r_0 du,

which is exact for a constant kernel and of second order in its change; s < h is the dense output. The error of a step is
the larger of two estimates, both of outputs: ||f(theta(h)) - y - e^(-K h) r_0|| on the training points; and, since that is
blind where there are none, the distance of corrector and predictor in parameters times sqrt(tr K / n) times the relative
change of the kernel.

Directions in which a kernel is singular to the precision of its arithmetic do not move: along an eigenvector v of eigenvalue 0
J'v = 0, and what rounding leaves of it would grow without bound as time goes on.

Exponential integrators: Hochbruck & Ostermann 2010. The loop over steps is Python around compiled passes: a step costs a
handful of passes and two eigendecompositions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import factorial

import numpy as np

from ntksim.engine.cpu.descent import relative_distance
from ntksim.engine.rounding import null_level
from ntksim.engine.training.checkpoints import SeedCheckpoint
from ntksim.engine.training.watch import Snapshots, State, Watch

MAX_STEPS = 2000
Modes = tuple[np.ndarray, np.ndarray]  # eigenvalues and eigenvectors
_GROWTH, _SHRINKAGE, _SAFETY = 5.0, 0.2, 0.9


@dataclass(frozen=True)
class Flow:
    """How to flow: the ascending ``times`` (T,) at which to look, the error in units of the initial residual's, and how many
    steps at most.
    """

    times: np.ndarray
    tolerance: float
    max_steps: int = MAX_STEPS


class _Flow:
    """The flow of one seed."""

    def __init__(self, watch: Watch) -> None:
        self.watch, self.precision = watch, float(np.finfo(watch.start.dtype).eps)

    def look(self, theta: np.ndarray) -> State:
        """Outputs and kernel at ``theta``, in room of their own."""
        return self.watch.look(theta, self.watch.make_room())

    def step(self, state: State, modes: Modes, size: float) -> tuple[Callable[[float], State], State, float]:
        """The dense output s -> state, the state at ``size``, and the error of a step of that size from ``state``."""
        residual = self.watch.residual(state)
        values, vectors = modes
        predicted = self.watch.copy(state.theta)
        self.watch.pull_back(state, vectors @ (_integral(values, size) * (residual @ vectors)), predicted)
        ahead = self.look(predicted)
        if not np.isfinite(ahead.kernel).all():
            return lambda s: ahead, ahead, np.inf
        values, vectors = self.modes(0.5 * (state.kernel + ahead.kernel))
        components = residual @ vectors

        def dense(s: float) -> State:
            late = _weighted_integral(values, s) / size
            theta = self.watch.copy(state.theta)
            self.watch.pull_back(state, vectors @ ((_integral(values, s) - late) * components), theta)
            self.watch.pull_back(ahead, vectors @ (late * components), theta)
            return self.look(theta)

        end = dense(size)
        if not np.isfinite(end.kernel).all():
            return dense, end, np.inf
        off = self.watch.residual(end) - vectors @ (np.exp(-values * size) * components)
        moved = self.watch.distance(end.theta, predicted)
        change = relative_distance(ahead.kernel.ravel(), state.kernel.ravel())
        reach = np.sqrt(np.trace(state.kernel) / len(residual))
        return dense, end, float(max(np.sqrt(np.mean(off**2)), moved * change * reach))

    def modes(self, kernel: np.ndarray) -> Modes:
        """Eigenvalues, 0 where they are not told from that, and eigenvectors."""
        values, vectors = np.linalg.eigh(kernel)
        return np.where(values > null_level(values, self.precision), values, 0.0), vectors

    def settled(self, state: State, modes: Modes, size: float) -> bool:
        """Whether the residual along every direction that the kernel can move is below ``size`` (root mean square)."""
        values, vectors = modes
        return bool(np.sqrt(np.mean(np.where(values > 0, self.watch.residual(state) @ vectors, 0.0) ** 2)) < size)

    def run(self, flow: Flow, checkpoint: SeedCheckpoint) -> str:
        """Fill the checkpoint's rows at the flow's times; returns the status."""
        times, tolerance, rows = flow.times, flow.tolerance, checkpoint.rows
        state, time, at = self.look(self.watch.start), 0.0, 0
        if not np.isfinite(state.kernel).all():
            return "diverged"
        while at < len(times) and times[at] == 0:
            self.watch.record(at, 0.0, state, rows)
            at += 1
        # Not below what rounding leaves of the outputs: a residual of zero is a solution too.
        largest = max(np.abs(state.outputs).max(), np.abs(self.watch.y).max(), np.finfo(state.theta.dtype).tiny)
        rounding = 100 * self.precision * float(largest)
        bound = max(tolerance * float(np.sqrt(np.mean(self.watch.residual(state) ** 2))), rounding)
        fastest = float(self.modes(state.kernel)[0][-1])
        if fastest == 0:  # nothing moves: all inputs are zero, or every gate is shut
            for row in range(at, len(times)):
                self.watch.record(row, times[row], state, rows)
            return "finished"
        size, first = 1 / fastest, 0
        if (kept := checkpoint.resume()) is not None:
            state = self.look(self.watch.copy(kept["theta"]))
            time, size, at, first = float(kept["time"]), float(kept["size"]), int(kept["at"]), int(kept["count"])
            self.watch.passes = int(kept["passes"])
        modes: Modes | None = None
        for count in range(first, flow.max_steps):
            if at == len(times):
                return "finished"
            modes = self.modes(state.kernel) if modes is None else modes
            # What has come to rest is there at all later times; where all modes decay they are followed to finite ones.
            resting = np.isinf(times[at]) or not modes[0].all()
            if resting and self.settled(state, modes, max(1e-3 * bound, 0.1 * rounding)):
                for row in range(at, len(times)):
                    self.watch.record(row, times[row], state, rows)
                return "finished"
            size = min(size, times[-1] - time)
            dense, end, error = self.step(state, modes, size)
            if error > bound:
                if size < 1e-14 * max(time, 1 / fastest):
                    return self.stop("diverged", time, state, rows)
                size *= max(_SHRINKAGE, _SAFETY * (bound / error) ** (1 / 3))
                continue
            while at < len(times) and times[at] <= time + size:
                last = times[at] == time + size
                self.watch.record(at, times[at], end if last else dense(times[at] - time), rows)
                at += 1
            state, modes, time = end, None, time + size
            size *= min(_GROWTH, _SAFETY * (bound / max(error, np.finfo(np.float64).tiny)) ** (1 / 3))
            checkpoint.keep(theta=state.theta, time=time, size=size, at=at, count=count + 1, passes=self.watch.passes)
        return "finished" if at == len(times) else self.stop("step_limit", time, state, rows)

    def stop(self, status: str, time: float, state: State, rows: Snapshots) -> str:
        """Have the fields of the end show the last accepted step, before the last time; returns the status."""
        self.watch.record_end(time, state, rows)
        return status


def flow_seed(watch: Watch, flow: Flow, checkpoint: SeedCheckpoint) -> str:
    """Integrate one seed, from its checkpoint on if there is one, and fill its rows; returns its status."""
    return _Flow(watch).run(flow, checkpoint)


def _integral(values: np.ndarray, s: float) -> np.ndarray:
    """int_0^s e^(-lambda u) du = s phi_1(-lambda s); 0 where lambda = 0, which moves nothing."""
    z = values * s
    return s * np.where(z > 0, -np.expm1(-z) / np.where(z > 0, z, 1.0), np.where(values > 0, 1.0, 0.0))


def _weighted_integral(values: np.ndarray, s: float) -> np.ndarray:
    """int_0^s u e^(-lambda u) du = s^2 sum_k (-z)^k / (k! (k + 2)), z = lambda s; in closed form where it does not cancel.

    0 where lambda = 0, like :func:`_integral`.
    """
    z = values * s
    series = sum((-np.minimum(z, 0.5)) ** k / (factorial(k) * (k + 2)) for k in range(14))
    large = np.where(z > 0.5, z, 1.0)
    return s * s * np.where(z > 0.5, (1 - np.exp(-large) * (1 + large)) / large**2, np.where(values > 0, series, 0.0))
