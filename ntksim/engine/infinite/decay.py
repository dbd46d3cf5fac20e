"""How training under a constant kernel moves an eigenvector's component of the residual: by gradient flow, and by a step rule.

Loss 1/2 sum r^2. At an eigenvalue lambda both multiply the residual by a ``decay`` p and move outputs by the ``gain``
(1 - p) / lambda times the gradient. An eigenvalue of 0 moves nothing: p is 1 and the gain is 0 at all times.
"""

import math
from dataclasses import dataclass

import numpy as np

from ntksim.engine.arguments import momentum_options, positive_number


def integral(rates: np.ndarray, time: float | np.ndarray) -> np.ndarray:
    """(1 - e^(-lambda t)) / lambda = int_0^t e^(-lambda u) du, which broadcasts; 0 where lambda = 0. Infinity is a time."""
    still = rates == 0
    with np.errstate(invalid="ignore"):  # 0 x infinity, replaced below
        exponent = np.where(still, 0.0, -rates * time)
    return np.where(still, 0.0, -np.expm1(exponent) / np.where(still, 1.0, rates))


def flow_decay(rates: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Decay e^(-lambda t) and gain (1 - e^(-lambda t)) / lambda of gradient flow, (T, n), for rates lambda (n,)."""
    with np.errstate(invalid="ignore"):
        exponent = np.where(rates == 0, 0.0, -rates * times[:, None])
    return np.exp(exponent), integral(rates, times[:, None])


def stable_rate(momentum: float, nesterov: bool) -> float:
    """eta lambda at which descent ceases to be stable along an eigenvector of a constant kernel."""
    return 2 * (1 + momentum) / (1 + 2 * momentum if nesterov else 1)


def critical_damping(momentum: float, nesterov: bool) -> float:
    """eta lambda up to which a mode decays without swinging: beyond, the roots of its recursion are complex.

    Without momentum a step never has two roots, and the bound is 1, where the mode is gone after one step.
    """
    return ((1 - momentum) / (1 + (momentum if nesterov else math.sqrt(momentum)))) ** 2


@dataclass(frozen=True)
class StepRule:
    """A step of gradient descent: learning rate eta, momentum mu from 0 to below 1, and whether it is Nesterov's.

    theta <- theta - eta v with v <- mu v + g, or theta <- theta - eta (g + mu v): the recursions of `training.descent`.
    """

    rate: float
    momentum: float
    nesterov: bool

    @classmethod
    def checked(cls, learning_rate: object, momentum: object, nesterov: object) -> "StepRule":
        """The rule of a user's arguments. Raises ValueError or TypeError naming the one that does not fit."""
        rate = positive_number("learning_rate", learning_rate)
        return cls(rate, *momentum_options(momentum, nesterov))

    def decay(self, rates: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Decay p_k and gain (1 - p_k) / lambda after k = t / eta steps, (T, n), for rates lambda (n,).

        p_k = (1 - eta lambda)^k, or what momentum makes of it. Raises ValueError for times between two steps.
        """
        steps = self._steps(times)
        if self.momentum:
            decay, gain = self._with_momentum(self.rate * rates, steps)
            return decay, self.rate * gain
        factor, still = 1 - self.rate * rates, rates == 0
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            # log1p keeps the digits of slow modes; beyond one step's full decay the factor is negative
            small = self.rate * rates < 0.5
            exponent = np.where(steps[:, None] == 0, 0.0, steps[:, None] * np.log1p(np.where(small, -self.rate * rates, 0.0)))
            decay = np.where(small, np.exp(exponent), factor ** steps[:, None])
            decay[np.isinf(steps)[:, None] & (factor <= -1)] = np.nan  # neither here nor there
            lost = np.where(small, -np.expm1(exponent), 1 - decay)
        return np.where(still, 1.0, decay), np.where(still, 0.0, lost / np.where(still, 1.0, rates))

    def _steps(self, times: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            exact = times / self.rate
            steps = np.round(exact)
            off = (np.abs(exact - steps) > 1e-6 * np.maximum(steps, 1)) & np.isfinite(times)
        if np.any(off):
            raise ValueError(f"times must be whole numbers of steps of {self.rate}; got {times[off][0]}")
        return steps

    def _with_momentum(self, a: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """p_k and s_k = (1 - p_k) / a at the given numbers of steps, (T, n), for a = eta lambda, (n,)."""
        roots = _Roots.of(a, self.momentum, self.nesterov)
        still, stable = a == 0, a < stable_rate(self.momentum, self.nesterov)
        decay, gain = np.ones((steps.size, a.size)), np.zeros((steps.size, a.size))
        with np.errstate(all="ignore"):  # each form is taken where it holds; what diverges is infinite or NaN, as it is
            for at, k in enumerate(steps):
                if np.isinf(k):
                    decay[at] = np.where(still, 1.0, np.where(stable, 0.0, np.nan))
                    gain[at] = np.where(still, 0.0, np.where(stable, 1 / a, np.nan))
                elif k > 0:
                    far, p, lost = roots.apart(k)
                    near = roots.together(k)
                    decay[at] = np.where(still, 1.0, np.where(far, p, near))
                    gain[at] = np.where(still, 0.0, np.where(far, lost, 1 - near) / a)
        return decay, gain


@dataclass(frozen=True)
class _Roots:
    """The two roots of a recursion r_(k+1) = 2 half r_k - product r_(k-1) with r_0 = 1, r_1 = 1 - first a, for a (n,).

    ``square`` is half their difference squared, ``ahead`` r_1 - half; (1 - root)(1 - other root) = a. Each is written so that
    nothing cancels, in slow modes too.
    """

    a: np.ndarray
    first: float
    half: np.ndarray
    product: np.ndarray
    square: np.ndarray
    ahead: np.ndarray

    @classmethod
    def of(cls, a: np.ndarray, mu: float, nesterov: bool) -> "_Roots":
        """Those of `training.descent` with momentum."""
        slack = critical_damping(mu, nesterov) - a
        if nesterov:
            square = (1 - a) * ((1 + mu) ** 2 * slack) / 4
            return cls(a, 1 + mu, (1 - a) * (1 + mu) / 2, (1 - a) * mu, square, (1 - mu - a * (1 + mu)) / 2)
        square = slack * ((1 + math.sqrt(mu)) ** 2 - a) / 4
        return cls(a, 1.0, (1 + mu - a) / 2, np.full_like(a, mu), square, (1 - mu - a) / 2)

    def apart(self, k: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where k-th powers of two real roots differ, p_k and 1 - p_k as sums of them."""
        difference = np.sqrt(self.square)
        large = self.half + np.copysign(difference, self.half)
        small = self.product / large
        slow = self.half > 0  # the large root is 1 - rate
        rate = self.a / (1 - small)
        # of the small root
        weight = -np.where(slow, self.a * (1 / (1 - small) - self.first), self.ahead + difference) / (large - small)
        lost = np.where(slow, -np.expm1(k * np.log1p(-rate)), 1 - large**k)
        lost = (1 - weight) * lost + weight * (1 - small**k)
        p = (1 - weight) * np.where(slow, np.exp(k * np.log1p(-rate)), large**k) + weight * small**k
        angle = np.arcsinh(difference / np.sqrt(np.maximum(self.product, 0)))
        return (self.square > 0) & ~(slow & (self.product > 0) & (k * angle < 1)), p, lost

    def together(self, k: float) -> np.ndarray:
        """p_k where the roots are complex, or so close that their k-th powers hardly differ."""
        radius, difference = np.sqrt(np.maximum(self.product, 0)), np.sqrt(np.abs(self.square))
        turn, grow = np.arctan2(difference, self.half), np.where(difference > 0, np.arcsinh(difference / radius), 0.0)
        sine = np.where(self.square < 0, np.sin(k * turn), np.sinh(k * grow))
        cosine = np.where(self.square < 0, np.cos(k * turn), np.cosh(k * grow))
        ratio = np.where(difference > 0, sine * radius / difference, k)
        return radius ** (k - 1) * (self.ahead * ratio + radius * cosine)
