"""Gradient flow theta' = -J' r by an exponential integrator: steps follow the kernel's slow change, not its stiffness.

A step of size h from (theta_0, r_0, K_0), with functions of matrices taken on eigenvalues:

    predictor   theta_1 = theta_0 - J_0' h phi_1(-h K_0) r_0, where J and K are evaluated again;
    corrector   theta(s) = theta_0 - J_0' (I_0 - I_1) - J_1' I_1,  K = (K_0 + K_1) / 2,
                I_0 = int_0^s e^(-K u) r_0 du,  I_1 = int_0^s (u / h) e^(-K u) r_0 du,

which is exact for a constant kernel and of second order in its change; s < h is the dense output. The error of a step is
the larger of two estimates, both of outputs: ||f(theta(h)) - y - e^(-K h) r_0|| on the training points; and, since that is
blind where there are none, the distance of corrector and predictor in parameters times sqrt(tr K / n) times the relative
change of the kernel.

Exponential integrators: Hochbruck & Ostermann 2010. The loop over steps is Python around compiled passes: a step costs a
handful of passes and two eigendecompositions.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import factorial

import numpy as np

from ntksim.engine.descent_cpu import pull_back, relative_distance
from ntksim.engine.kernels_cpu import draw_parameters, forward, kernel_of_seed, parameter_offsets

MAX_STEPS = 2000
_GROWTH, _SHRINKAGE, _SAFETY = 5.0, 0.2, 0.9
# Directions whose eigenvalue is below this share of the largest count as singular when waiting for t = infinity.
_SINGULAR = 1e-12


@dataclass
class _State:
    """A network at some theta: what a pass leaves behind."""

    theta: np.ndarray
    h: np.ndarray
    derivative: np.ndarray
    outputs: np.ndarray
    kernel: np.ndarray


@dataclass(frozen=True)
class Snapshots:
    """Where a seed's rows go; arrays with a leading axis of times, `kernels` of length 0 if they are not kept."""

    outputs: np.ndarray
    test_outputs: np.ndarray
    loss: np.ndarray
    kernels: np.ndarray
    kernel_drift: np.ndarray
    parameter_drift: np.ndarray


class _Flow:
    """The flow of one seed."""

    def __init__(self, seed: np.uint64, network: tuple, x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> None:
        self.seed, (self.stream, self.code, self.widths, self.scales) = seed, network
        self.x, self.y, self.x_test = x, y, x_test
        widest, n = int(np.max(self.widths)), len(x)
        self.delta, self.below = np.empty(n * widest, x.dtype), np.empty(n * widest, x.dtype)
        self.grams = np.empty((3, n, n), x.dtype)
        self.evaluations = 0
        theta = np.empty(parameter_offsets(self.widths)[-1], x.dtype)
        draw_parameters(seed, self.stream, self.widths, self.scales[1], self.scales[3], theta)
        self.start = self.look(theta)

    def _buffers(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        h = np.empty(len(points) * int(np.sum(self.widths[:-1])), points.dtype)
        h[: points.size] = points.ravel()
        return h, np.empty_like(h)

    def look(self, theta: np.ndarray) -> _State:
        """Outputs and kernel at ``theta``."""
        n = len(self.x)
        state = _State(theta, *self._buffers(self.x), np.empty(n, self.x.dtype), np.empty((n, n), self.x.dtype))
        kernel_of_seed(
            self.seed, self.stream, self.code, self.widths, self.scales, theta, 0, state.h, state.derivative,
            self.delta, self.below, state.outputs, self.grams, state.kernel,
        )  # fmt: skip
        self.evaluations += 1
        return state

    def residual(self, state: _State) -> np.ndarray:
        return state.outputs.astype(np.float64) - self.y

    def subtract_gradient(self, state: _State, vector: np.ndarray, theta: np.ndarray) -> None:
        """theta <- theta - J' vector, J at ``state``, in place."""
        pull_back(
            self.seed, self.stream, self.widths, self.scales, state.theta, state.h, state.derivative,
            self.delta, self.below, vector.astype(theta.dtype), theta,
        )  # fmt: skip

    def record(self, at: int, state: _State, rows: Snapshots) -> None:
        """Fill row ``at`` of every array."""
        residual = self.residual(state)
        rows.outputs[at] = state.outputs
        rows.loss[at] = 0.5 * np.sum(residual**2)
        rows.kernel_drift[at] = relative_distance(state.kernel.ravel(), self.start.kernel.ravel())
        rows.parameter_drift[at] = relative_distance(state.theta, self.start.theta)
        if len(rows.kernels):
            rows.kernels[at] = state.kernel
        if len(self.x_test):
            h, derivative = self._buffers(self.x_test)
            forward(
                self.seed, self.stream, self.code, self.widths, self.scales, state.theta, h, derivative, rows.test_outputs[at]
            )

    def step(self, state: _State, size: float) -> tuple[Callable[[float], _State], _State, float]:
        """The dense output s -> state, the state at ``size``, and the error of a step of that size from ``state``."""
        residual = self.residual(state)
        values, vectors = _eigen(state.kernel)
        predicted = state.theta.copy()
        self.subtract_gradient(state, vectors @ (_integral(values, size) * (residual @ vectors)), predicted)
        ahead = self.look(predicted)
        if not np.isfinite(ahead.kernel).all():
            return lambda s: ahead, ahead, np.inf
        values, vectors = _eigen(0.5 * (state.kernel.astype(np.float64) + ahead.kernel))
        modes = residual @ vectors

        def dense(s: float) -> _State:
            late = _weighted_integral(values, s) / size
            theta = state.theta.copy()
            self.subtract_gradient(state, vectors @ ((_integral(values, s) - late) * modes), theta)
            self.subtract_gradient(ahead, vectors @ (late * modes), theta)
            return self.look(theta)

        end = dense(size)
        if not np.isfinite(end.kernel).all():
            return dense, end, np.inf
        off = self.residual(end) - vectors @ (np.exp(-values * size) * modes)
        moved = np.linalg.norm(end.theta.astype(np.float64) - predicted)
        change = relative_distance(ahead.kernel.ravel(), state.kernel.ravel())
        reach = np.sqrt(np.trace(state.kernel) / len(self.y))
        return dense, end, float(max(np.sqrt(np.mean(off**2)), moved * change * reach))

    def settled(self, state: _State, size: float) -> bool:
        """Whether the residual along every direction that the kernel can move is below ``size`` (root mean square)."""
        values, vectors = _eigen(state.kernel)
        moving = values > _SINGULAR * values[-1]
        return bool(np.sqrt(np.mean(np.where(moving, self.residual(state) @ vectors, 0.0) ** 2)) < size)

    def run(self, times: np.ndarray, tolerance: float, rows: Snapshots) -> str:
        """Fill ``rows`` at the ascending ``times``; returns the status."""
        state, time, at = self.start, 0.0, 0
        if not np.isfinite(state.kernel).all():
            return "diverged"
        while at < len(times) and times[at] == 0:
            self.record(at, state, rows)
            at += 1
        # Not below what rounding leaves of the outputs: a residual of zero is a solution too.
        largest = max(np.abs(state.outputs).max(), np.abs(self.y).max(), np.finfo(self.x.dtype).tiny)
        rounding = 100 * float(np.finfo(self.x.dtype).eps) * float(largest)
        bound = max(tolerance * float(np.sqrt(np.mean(self.residual(state) ** 2))), rounding)
        fastest = max(float(_eigen(state.kernel)[0][-1]), np.finfo(np.float64).tiny)
        size = 1 / fastest
        for _ in range(MAX_STEPS):
            if at == len(times):
                return "finished"
            if np.isinf(times[at]) and self.settled(state, 1e-3 * bound):
                for row in range(at, len(times)):
                    self.record(row, state, rows)
                return "finished"
            size = min(size, times[-1] - time)
            dense, end, error = self.step(state, size)
            if error > bound:
                if size < 1e-14 * max(time, 1 / fastest):
                    return "diverged"
                size *= max(_SHRINKAGE, _SAFETY * (bound / error) ** (1 / 3))
                continue
            while at < len(times) and times[at] <= time + size:
                last = times[at] == time + size
                self.record(at, end if last else dense(times[at] - time), rows)
                at += 1
            state, time = end, time + size
            size *= min(_GROWTH, _SAFETY * (bound / max(error, np.finfo(np.float64).tiny)) ** (1 / 3))
        return "finished" if at == len(times) else "step_limit"


def flow_seeds(
    workers: int, seeds: np.ndarray, network: tuple, x: np.ndarray, y: np.ndarray, x_test: np.ndarray, times: np.ndarray,
    tolerance: float, rows: list[Snapshots], evaluations: np.ndarray,
) -> list[str]:  # fmt: skip
    """Integrate every seed, ``workers`` at a time; returns the statuses."""

    def one(s: int) -> str:
        flow = _Flow(seeds[s], network, x, y, x_test)
        status = flow.run(times, tolerance, rows[s])
        evaluations[s] = flow.evaluations
        return status

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, range(len(seeds))))


def _eigen(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh(kernel.astype(np.float64))
    return np.maximum(values, 0.0), vectors


def _integral(values: np.ndarray, s: float) -> np.ndarray:
    """int_0^s e^(-lambda u) du = s phi_1(-lambda s)."""
    z = values * s
    return s * np.where(z > 0, -np.expm1(-z) / np.where(z > 0, z, 1.0), 1.0)


def _weighted_integral(values: np.ndarray, s: float) -> np.ndarray:
    """int_0^s u e^(-lambda u) du = s^2 sum_k (-z)^k / (k! (k + 2)), z = lambda s; in closed form where it does not cancel."""
    z = values * s
    series = sum((-np.minimum(z, 0.5)) ** k / (factorial(k) * (k + 2)) for k in range(14))
    large = np.where(z > 0.5, z, 1.0)
    return s * s * np.where(z > 0.5, (1 - np.exp(-large) * (1 + large)) / large**2, series)
