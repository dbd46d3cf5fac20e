"""What theory says of networks in training: of each from its own start and kernel, and of infinitely wide ones together."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ntksim.engine import measures
from ntksim.engine.infinite.decay import StepRule
from ntksim.engine.infinite.ensembles import infinite_ensemble
from ntksim.engine.infinite.kernel import kernel_error
from ntksim.engine.infinite.linearized import descended
from ntksim.engine.infinite.predictions import closed_form
from ntksim.engine.loss import is_squared, loss_of
from ntksim.engine.network import Network, rated
from ntksim.engine.training.trajectory import Trajectory
from ntksim.study.data.files import Data
from ntksim.study.stages.accuracy import accuracy, rms

if TYPE_CHECKING:
    from ntksim.study.stages.training_job import Job


Arrays = tuple[np.ndarray, np.ndarray]  # of training points, and of test points


class Moments(NamedTuple):
    """Mean and variance of outputs over networks, (T, n k) each."""

    mean: np.ndarray
    variance: np.ndarray


def ensemble_moments(
    network: Network,
    data: Data,
    limits: dict[str, np.ndarray],
    times: np.ndarray,
    schedule: Any,
    descent: dict[str, Any],
) -> tuple[Moments, Moments]:
    """Of the outputs of infinitely wide networks under the same training, on training and on test points; NaN where there is no
    formula, under other losses than squared ones and with weight decay.
    """
    if not schedule.has_closed_forms:
        unknown = (np.full((len(times), y.size), np.nan) for y in (data.y_train, data.y_test))
        return tuple(Moments(own, own) for own in unknown)  # type: ignore[return-value]
    factor = loss_of(schedule.loss, len(data.x_train), data.outputs).factor
    if schedule.remove_initial_output:
        targets = data.y_train.ravel(), data.y_test.ravel()
        kernels = limits["ntk"], limits["ntk_test"]
        options = descent | {"precision": kernel_error(network), "factor": factor}
        means = prediction(network, kernels, _zeros(targets), targets[0], times, **options)
        return Moments(means[0], np.zeros_like(means[0])), Moments(means[1], np.zeros_like(means[1]))
    own = rated(network, schedule.layer_rates)
    on_the_sum = descent | {name: factor * rate for name, rate in descent.items() if name == "learning_rate"}
    every = infinite_ensemble(own, data.x_train, data.y_train, factor * times, data.x_test, **on_the_sum)
    assert every.test_mean is not None
    assert every.test_covariance is not None
    return _moments(every.mean, every.covariance), _moments(every.test_mean, every.test_covariance)


def _moments(mean: np.ndarray, covariance: np.ndarray) -> Moments:
    """From a mean (T, n) or (T, n, k), and the covariance (T, n, n) that every output has."""
    variance = np.diagonal(covariance, axis1=-2, axis2=-1)
    return Moments(mean.reshape(len(mean), -1), np.repeat(variance, mean[0].size // variance.shape[-1], axis=-1))


def _zeros(arrays: Arrays) -> Arrays:
    return np.zeros_like(arrays[0]), np.zeros_like(arrays[1])


def beside_theory(job: "Job", run: Trajectory, radial: Arrays | None) -> dict[str, np.ndarray]:
    """What constant-kernel theory predicts of every network of a flat ``run`` from its own f_0, and how far the network is from
    it: columns (S, T), or (S, 1, ...) of whole runs (`_trained`, `_regressions`, `modes`). ``radial`` is `Job.radial`, where
    linearised networks decay.
    """
    columns: dict[str, list[np.ndarray]] = {}
    for s in range(len(run.outputs)):
        assert run.kernels is not None
        assert run.test_kernels is not None
        across = run.test_kernels[s].astype(np.float64)
        initial = run.kernels[s, 0].astype(np.float64), across[0]
        after = run.kernel[s].astype(np.float64), across[1]
        along = None if radial is None else (radial[0][s], radial[1][s])
        found = _trained(job, run, s, initial, along) | _regressions(job, initial, after)
        found |= modes(job, run.kernels[s], after[0], run.outputs[s].astype(np.float64))
        for name, values in found.items():
            columns.setdefault(name, []).append(values)
    return {name: np.stack(values) for name, values in columns.items()}


def _trained(job: "Job", run: Trajectory, s: int, initial: Arrays, radial: Arrays | None) -> dict[str, np.ndarray]:
    """Predictions of the whole run of one seed: losses on training and test points, the root mean square of f_t - prediction
    over either, and the accuracy on test points, (T,) each.

    ``linearized``: the network linearised at theta_0 under the same training: (I - eta K_0)^k for gradient descent, what
    momentum makes of it, and the closed form for the flow; of batches, that of all points at once; of other losses than squared
    ones and with weight decay step by step. ``limit_closed_form``: the same training with K_infinity, and the network's own
    ``radial``. ``closed_form``: gradient flow with K_0, e^(-K_0 t). NaN where there is no formula.
    """
    limits = job.limits
    assert run.test_outputs is not None
    outputs, tests = run.outputs[s].astype(np.float64), run.test_outputs[s].astype(np.float64)
    own_times = run.times if job.descent else job.flow_times
    computed, of_limit = {"precision": job.dtype}, {"precision": kernel_error(job.network)}
    found: dict[str, np.ndarray] = {}
    for name, kernels, times, options in (
        ("linearized", initial, own_times, computed | job.descent),
        ("closed_form", initial, job.flow_times, computed),
        ("limit_closed_form", (limits["ntk"], limits["ntk_test"]), own_times, of_limit | job.descent),
    ):
        f, f_test = _under_constant_kernel(job, kernels, (outputs[0], tests[0]), times, options, radial)
        found[f"{name}_loss"], found[f"test_{name}_loss"] = job.objectives[0].of(f), job.objectives[1].of(f_test)
        found[f"{name}_deviation"], found[f"test_{name}_deviation"] = rms(outputs - f), rms(tests - f_test)
        found[f"test_{name}_accuracy"] = accuracy(f_test, job.data)
    return found


def _under_constant_kernel(
    job: "Job", kernels: Arrays, start: Arrays, times: np.ndarray, options: dict[str, Any], radial: Arrays | None
) -> Arrays:
    """Outputs (T, n k) and (T, n* k) of the job's training on its loss with constant kernels, as `prediction` has them, or of
    gradient flow where ``options`` have no learning rate; NaN where neither formula nor recursion is known.
    """
    if job.schedule.has_closed_forms:
        return prediction(job.network, kernels, start, job.targets[0], times, factor=job.objectives[0].loss.factor, **options)
    known = job.schedule.has_linearized and "learning_rate" in options
    if known and all(np.isfinite(values).all() for values in (*kernels, *start, *(radial or ()))):
        (loss, targets), scale = job.objectives[0], job.network.learning_rate_scale
        steps = np.round(times / job.descent["learning_rate"])
        scaled = scale * kernels[0], scale * kernels[1]
        return descended(loss, scaled, start, targets, StepRule.checked(**job.descent), steps, job.decay, radial)
    return _unknown(times, start)


def _unknown(times: np.ndarray, start: Arrays) -> Arrays:
    return np.full((len(times), len(start[0])), np.nan), np.full((len(times), len(start[1])), np.nan)


def _regressions(
    job: "Job", initial: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray]
) -> dict[str, np.ndarray]:
    """Test losses of kernel regression with the kernels before and after training and at infinite width, (1,) each.

    Regression is by least squares: of other losses than squared ones NaN.
    """
    if not is_squared(job.schedule.loss):
        return {f"{name}_kernel_regression_test_loss": np.full(1, np.nan) for name in ("initial", "after", "limit")}
    y = job.targets[0]
    computed, of_limit = {"precision": job.dtype}, {"precision": kernel_error(job.network)}
    found = {}
    for name, kernels, options in (
        ("initial_kernel", initial, computed),
        ("after_kernel", after, computed),
        ("limit_kernel", (job.limits["ntk"], job.limits["ntk_test"]), of_limit),
    ):
        options = options | {"ridge": job.schedule.ridge}
        _, f_test = prediction(job.network, kernels, _zeros(job.targets), y, np.array([np.inf]), **options)
        found[f"{name}_regression_test_loss"] = job.objectives[1].of(f_test)
    return found


def beside_ensemble(start: str, job: "Job", which: int, outputs: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs (S, T, n k) less the mean over infinitely wide networks; of these their expected loss, and over points the root
    mean square of their mean, and the mean of their variance, (S, T) each. Names begin with ``start``.

    ``which`` is 0 for training points and 1 for test points. Where no mean is known, outputs are as they are, for their variance.
    """
    theory, (loss, _) = job.ensemble[which], job.objectives[which]
    with np.errstate(over="ignore", invalid="ignore"):
        common = {
            "ensemble_loss": job.objectives[which].of(theory.mean) + loss.factor * (0.5 * np.sum(theory.variance, axis=-1)),
            "limit_mean": rms(theory.mean),
            "limit_variance": np.mean(theory.variance, axis=-1),
        }
        columns = {"limit_difference": outputs - (theory.mean if job.schedule.has_closed_forms else 0.0)}
    columns |= {name: np.broadcast_to(values, outputs.shape[:2]) for name, values in common.items()}
    return {start + name: values for name, values in columns.items()}


def modes(job: "Job", kernels: np.ndarray, after: np.ndarray, outputs: np.ndarray) -> dict[str, np.ndarray]:
    """Eigenvalues of K_0 and of K at the end, as rates, and the residual's shares and fitted decay rates along those of K_0.

    ``kernels`` (T, n k, n k) are those along the way, the first K_0.

    NaN where an eigenvalue is not told from 0 in the job's precision. Under momentum modes above critical damping oscillate, and
    have no rate. With weight decay residuals do not vanish, and have none either; of other losses than squared ones there are
    eigenvalues alone.
    """
    scale, unknown = job.scale, np.full((1, kernels.shape[-1]), np.nan)
    floor = None
    if job.schedule.method == "gradient_flow":  # what the integrator may have added
        floor = job.schedule.tolerance * float(np.linalg.norm(outputs[0] - job.targets[0]))
        floor = floor if floor > 0 else None

    def fitted(kernel: np.ndarray) -> np.ndarray:
        found = measures.residual_modes(
            kernel, outputs, job.targets[0], job.flow_times, floor, kernels=kernels, precision=job.dtype
        )
        damped = job.schedule.has_closed_forms & (found.eigenvalues <= _critical_eigenvalue(job.descent))
        return np.stack([found.eigenvalues, found.initial_shares, np.where(damped, found.decay_rates, np.nan)])

    eigenvalues, shares, rates = solved(fitted, scale * kernels[0].astype(np.float64), np.concatenate([unknown] * 3))
    if not is_squared(job.schedule.loss):
        shares = rates = unknown[0]
    return {
        "eigenvalue": eigenvalues[None],
        "after_eigenvalue": solved(partial(measures.resolved_spectrum, precision=job.dtype), scale * after[None], unknown),
        "initial_share": shares[None],
        "decay_rate": rates[None],
    }


def _critical_eigenvalue(descent: dict[str, Any]) -> float:
    """Where the roots of the recursion of momentum become complex (`predictions._with_momentum`); infinite without momentum."""
    mu = descent.get("momentum")
    if not mu:
        return np.inf
    root = 1 + (mu if descent["nesterov"] else np.sqrt(mu))
    return ((1 - mu) / root) ** 2 / descent["learning_rate"]


def solved(function: Callable[[Any], np.ndarray], argument: Any, otherwise: np.ndarray) -> np.ndarray:
    """A function that solves eigenproblems, or what stands for its value where it fails."""
    with suppress(np.linalg.LinAlgError):
        return function(argument)
    return otherwise


def prediction(
    network: Network,
    kernels: tuple[np.ndarray, np.ndarray],
    start: tuple[np.ndarray, np.ndarray],
    targets: np.ndarray,
    times: np.ndarray,
    factor: float = 1.0,
    **options: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (T, n k) and (T, n* k) that kernels predict from ``start``: those of all outputs, (n k, n k) and (n* k, n k), or
    those of one, (n, n) and (n*, n), which act on each; ``factor`` is that of a squared loss, ``options`` are of `closed_form`.

    NaN if one of these is not finite, or the eigen-solver fails.
    """
    scale, (own, across) = factor * network.learning_rate_scale, kernels
    if all(np.isfinite(values).all() for values in (*kernels, *start)):
        k = len(targets) // len(own)
        f0, f0_test, y = (flat if k == 1 else flat.reshape(-1, k) for flat in (*start, targets))
        with suppress(np.linalg.LinAlgError):
            f, f_test = closed_form(scale * own, f0, y, times, scale * across, f0_test, **options)
            return f.reshape(len(f), -1), f_test.reshape(len(f_test), -1)
    return _unknown(times, start)
