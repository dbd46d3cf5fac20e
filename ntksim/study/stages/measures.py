"""What a study may ask of every snapshot of training: eigenvalues, modes, their couplings, regression, profiles, predictions.

Columns are lists, (S, T, ...) numbers for S seeds at T times; tables are made of them by `statistics.measures`. Eigenvalues
and rates are those of training: of the kernel times `Job.scale`, with layer rates.
"""

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ntksim.engine import measures
from ntksim.engine.infinite.continuum import continuum_spectrum
from ntksim.engine.infinite.decay import StepRule, flow_decay
from ntksim.engine.infinite.harmonics import radius
from ntksim.engine.infinite.kernel import infinite_kernel, kernel_error
from ntksim.engine.network import rated
from ntksim.engine.training import residual_modes as modes
from ntksim.engine.training.trajectory import Trajectory
from ntksim.study.data.losses import objective
from ntksim.study.data.modes import named_modes
from ntksim.study.errors import StageError
from ntksim.study.stages.theory import Moments, ensemble_moments, prediction, solved

if TYPE_CHECKING:
    from ntksim.study.stages.training_job import Job


class Evaluation(NamedTuple):
    """The points at which profiles and predictions are looked at: a data set's evaluation points, or its test points.

    ``own`` says whether they are evaluation points, which are seen behind those of the test. ``targets`` (m k,) are NaN where
    they are unknown, ``limit`` (m, n) is the infinite-width kernel with training points, ``moments`` are those of outputs.
    """

    own: bool
    x: np.ndarray
    targets: np.ndarray
    limit: np.ndarray
    moments: Moments


def evaluation(job: "Job") -> Evaluation | None:
    """The evaluation points of a job; None where its schedule asks for nothing on them."""
    asked, data = job.schedule.measures, job.data
    if asked is None or not (asked.at_test_points or asked.predictions):
        return None
    if data.x_evaluation is None:
        return Evaluation(False, data.x_test, job.targets[1], job.limits["ntk_test"], job.ensemble[1])
    y = np.full((len(data.x_evaluation), *data.y_train.shape[1:]), np.nan) if data.y_evaluation is None else data.y_evaluation
    there = replace(data, x_test=data.x_evaluation, y_test=y)
    limit = infinite_kernel(rated(job.network, job.schedule.layer_rates), there.x_test, data.x_train).ntk
    limits = job.limits | {"ntk_test": limit}
    moments = ensemble_moments(job.network, there, limits, job.times, job.schedule, job.descent)[1]
    return Evaluation(True, there.x_test, y.ravel(), limit, moments)


def of_tests(job: "Job", run: Trajectory) -> Trajectory:
    """A flat run as it is without evaluation points."""
    tests = job.data.y_test.size
    assert run.test_outputs is not None
    assert run.test_kernels is not None
    return replace(run, test_outputs=run.test_outputs[..., :tests], test_kernels=run.test_kernels[..., :tests, :])


def measured(job: "Job", run: Trajectory) -> dict[str, np.ndarray]:
    """The columns that the schedule asks for, of a flat ``run`` that has seen test points and evaluation points."""
    asked = job.schedule.measures
    if asked is None:
        return {}
    assert run.kernels is not None
    kernels = job.scale * run.kernels.astype(np.float64)
    found: dict[str, np.ndarray] = {}
    if asked.eigenvalues:
        unknown = np.full((len(job.times), kernels.shape[-1]), np.nan)
        values = np.stack([solved(measures.spectrum, own, unknown) for own in kernels])
        found["leading_eigenvalue"] = values[..., : asked.eigenvalues]
    if asked.labels:
        found |= _of_modes(job, run.outputs.astype(np.float64) - job.targets[0], kernels)
    if asked.regression:
        found |= _regressions(job, run)
    if asked.profile or asked.predictions:
        found |= _on_evaluation_points(job, run)
    return found


class _Along(NamedTuple):
    """A mode's orthonormal vectors (n k, m), or (T, n k, m) at every time, and the rate at which theory has it decay."""

    basis: np.ndarray
    theory_rate: float


def _of_modes(job: "Job", residuals: np.ndarray, kernels: np.ndarray) -> dict[str, np.ndarray]:
    """Columns (S, T, M) of all modes, from residuals (S, T, n k) and kernels (S, T, n k, n k)."""
    named, number = _named_modes(job), job.schedule.measures.eigenvectors or 0
    seeds = []
    for own, along in zip(residuals, kernels, strict=True):
        constant, leading = _under_the_limit(job, own[0]), _eigenvectors(number, along)
        every = [_of_mode(job, mode, along, own, constant) for mode in [*leading, *named]]
        seeds.append({name: np.stack([found[name] for found in every], axis=-1) for name in every[0]})
        if job.schedule.measures.couplings:
            seeds[-1]["coupling"] = _couplings(job, [leading[:number], named], along)
    return {name: np.stack([own[name] for own in seeds]) for name in seeds[0]}


def _of_mode(job: "Job", mode: _Along, kernels: np.ndarray, residuals: np.ndarray, constant: np.ndarray) -> dict[str, np.ndarray]:
    """Columns (T,) of one seed on one mode; ``constant`` are the residuals (T, n k) under the limit's kernel."""
    basis, rate = mode
    norms = modes.residual_norms(basis, residuals)
    limit = job.scale * np.kron(job.limits["ntk"], np.eye(job.data.outputs))
    # what the integrator may have added, or what descent's rounding leaves
    noise = job.schedule.tolerance if job.schedule.method == "gradient_flow" else np.sqrt(np.finfo(job.dtype).eps)
    return {
        "residual": norms,
        "mode_rate": modes.mode_rates(basis, kernels),
        "measured_rate": modes.decay_rates(norms, job.flow_times, noise * np.linalg.norm(residuals[0])),
        # eigenvectors of K_t are invariant under K_t: what tells of them is what K_0 makes of them
        "leakage": modes.leakage(basis, kernels if basis.ndim == 2 else kernels[0], job.dtype),
        "theory_rate": np.full(len(norms), rate if job.schedule.has_closed_forms else np.nan),
        "theory_residual": norms[0] * np.abs(_decay(job, rate)),
        "sample_rate": np.broadcast_to(modes.mode_rates(basis, limit), norms.shape),
        "limit_residual": modes.residual_norms(basis, constant),
    }


def _couplings(job: "Job", kinds: list[list[_Along]], kernels: np.ndarray) -> np.ndarray:
    """The couplings (T, C) among the modes of each kind, which stay: of each mode those into all (`Measures.coupled`)."""
    found = [modes.couplings([own.basis for own in kind], kernels, job.dtype) for kind in kinds if kind]
    return np.concatenate([np.swapaxes(own, -1, -2).reshape(len(kernels), -1) for own in found], axis=-1)


def _named_modes(job: "Job") -> list[_Along]:
    """The Fourier modes, or harmonics of the degrees, that are asked for, with n times the limit's eigenvalue as an operator."""
    asked, x = job.schedule.measures.modes, job.data.x_train
    if asked is None:
        return []
    found = named_modes(asked, x)
    try:
        limit = replace(rated(job.network, job.schedule.layer_rates), outputs=1)
        operator = continuum_spectrum(limit, x.shape[1], 1 + max(own.order for own in found), radius=radius(x))
    except ValueError as error:
        raise StageError(f"training.measures.modes: {error}") from None
    scale, outputs = job.scale * len(x), np.eye(job.data.outputs)
    return [_Along(np.kron(own.basis, outputs), float(scale * operator[own.order])) for own in found]


def _eigenvectors(number: int, kernels: np.ndarray) -> list[_Along]:
    """Leading eigenvectors of K_0, and those of K_t at every time, of kernels (T, n k, n k); NaN where none are found."""
    if not number:
        return []
    values, vectors = np.full(kernels.shape[-1], np.nan), np.full(kernels.shape, np.nan)
    for at, kernel in enumerate(kernels):
        if np.isfinite(kernel).all():
            with suppress(np.linalg.LinAlgError):
                own, vectors[at] = np.linalg.eigh(kernel)
                values = own if at == 0 else values
    ends = range(-1, -1 - number, -1)  # the largest eigenvalue is the last
    rates = [float(values[j]) for j in ends]
    columns = [vectors[..., [j]] for j in ends]
    return [*map(_Along, [own[0] for own in columns], rates), *map(_Along, columns, rates)]


def _decay(job: "Job", rate: float) -> np.ndarray:
    """The factor (T,) that training under a constant kernel puts on the residual along an eigenvector of eigenvalue ``rate``;
    NaN with weight decay, under which residuals go elsewhere than to 0.
    """
    if not job.schedule.has_closed_forms:
        return np.full(len(job.times), np.nan)
    rates = np.array([rate])
    if not job.descent:
        return flow_decay(rates, job.times)[0][:, 0]
    return StepRule.checked(**job.descent).decay(rates, job.times)[0][:, 0]


def _under_the_limit(job: "Job", initial: np.ndarray) -> np.ndarray:
    """Residuals (T, n k) of the same training with the constant kernel K_infinity, from those at t = 0 (n k,); NaN with weight
    decay.
    """
    if not job.schedule.has_closed_forms:
        return np.full((len(job.times), len(initial)), np.nan)
    kernels = job.limits["ntk"], job.limits["ntk"][:1]  # of test points one is enough, which nobody looks at
    start, factor = (initial, np.zeros(job.data.outputs)), job.objectives[0].loss.factor
    options = job.descent | {"precision": kernel_error(job.network), "factor": factor}
    return prediction(job.network, kernels, start, np.zeros_like(initial), job.times, **options)[0]


def _regressions(job: "Job", run: Trajectory) -> dict[str, np.ndarray]:
    """Losses (S, T) of kernel regression with K_t on test points, and on evaluation points, NaN without them; and its outputs
    (S, T, m k) there, where those of networks are asked for too.
    """
    assert run.kernels is not None
    assert run.kept_test_kernels is not None
    assert job.evaluation is not None
    assert run.test_outputs is not None
    y, tests, last = job.targets[0], job.data.y_test.size, np.array([np.inf])
    outputs = np.empty((*run.loss.shape, run.kept_test_kernels.shape[-2]))
    nothing = np.zeros_like(y), np.zeros(outputs.shape[-1])
    options = {"precision": job.dtype, "ridge": job.schedule.ridge}
    for at in np.ndindex(run.loss.shape):
        kernels = run.kernels[at].astype(np.float64), run.kept_test_kernels[at].astype(np.float64)
        outputs[at] = prediction(job.network, kernels, nothing, y, last, **options)[1][0]
    found = {"regression_test_loss": job.objectives[1].of(outputs[..., :tests])}
    if job.schedule.measures.predictions:
        found["regression_prediction"] = outputs[..., tests if job.evaluation.own else 0 :]
    if job.evaluation.own:
        there = objective(job.schedule.loss, job.evaluation.targets.reshape(len(job.evaluation.x), -1))
        found["regression_evaluation_loss"] = there.of(outputs[..., tests:])
        found["evaluation_loss"] = there.of(run.test_outputs[..., tests:].astype(np.float64))
    return found


def _on_evaluation_points(job: "Job", run: Trajectory) -> dict[str, np.ndarray]:
    """The kernel's profile (S, T, m) and the outputs (S, T, m k), with what theory says of both."""
    asked, there = job.schedule.measures, job.evaluation
    found: dict[str, np.ndarray] = {}
    assert there is not None
    assert run.test_outputs is not None
    first = job.data.y_test.size if there.own else 0
    if asked.profile:
        assert run.kept_test_kernels is not None
        k = job.data.outputs
        kernels = run.kept_test_kernels[..., first:, :k].astype(np.float64)  # with the first training point
        blocks = kernels.reshape(*kernels.shape[:2], -1, k, k)
        found["profile"] = np.trace(blocks, axis1=-2, axis2=-1) / k
        found["limit_profile"] = np.broadcast_to(there.limit[:, 0], found["profile"].shape)
    if asked.predictions:
        found["prediction"] = run.test_outputs[..., first:].astype(np.float64)
        mean, variance = (np.broadcast_to(own, found["prediction"].shape) for own in there.moments)
        found |= {"limit_prediction": mean, "limit_deviation": np.sqrt(np.maximum(variance, 0.0))}
    return found
