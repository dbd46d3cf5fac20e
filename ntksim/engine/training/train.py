"""Training on the squared loss: gradient flow and gradient descent, with the kernel along the way.

Time is the notes' t: that of the flow, and eta k after k steps of gradient descent with learning rate eta. The loss is
1/2 sum r^2, with no 1/n, so rates are eigenvalues of the kernel itself. In the abc parameterizations, whose learning rates
carry a factor n^(-c) (`Network.learning_rate_scale`; 1 in the others), they are those of the effective kernel n^(-c) K: the
flow is theta' = -n^(-c) grad L, and a step of descent eta n^(-c) grad L.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numba import get_num_threads

from ntksim.engine import known_answers
from ntksim.engine.arguments import flag, points, precision, seed_array, targets
from ntksim.engine.blas import one_blas_thread
from ntksim.engine.compiled_network import columns_of, compiled_network
from ntksim.engine.conditional.machine import ConditionalMachine
from ntksim.engine.cpu.machine import CpuMachine
from ntksim.engine.devices import GpuMemoryError, device_identity
from ntksim.engine.empirical import chosen_place, is_wide
from ntksim.engine.layer_rates import rated
from ntksim.engine.machine import Machine, Task
from ntksim.engine.network import Network
from ntksim.engine.threads import spread
from ntksim.engine.training import checkpoints
from ntksim.engine.training.checkpoints import INTERVAL, Checkpoints
from ntksim.engine.training.descent import Descent, descend_seed
from ntksim.engine.training.flow import Flow, flow_seed
from ntksim.engine.training.schedules import Options, descent_schedule, flow_schedule
from ntksim.engine.training.snapshots import Snapshots
from ntksim.engine.training.watch import Watch

METHODS = ("gradient_descent", "gradient_flow")
_HUGE = 1 << 14  # neurons from which threads share a network in law, rather than having one each: memory for one is enough


@dataclass(frozen=True)
class Trajectory:
    """Training of S seeds, seen at T times; float64 but for outputs and kernels, which have the run's dtype.

    ``times`` (T,) in the notes' t. ``outputs`` (S, T, n) and ``test_outputs`` (S, T, n*), None without test points. For k > 1
    outputs, here and in kernels, an axis of points has one of outputs behind it: (S, T, n, k), (S, n, k, n, k).
    ``loss`` (S, T) = 1/2 sum r^2. ``evaluations`` (S,) counts forward-and-backward passes over the training points, or over
    a batch of them; the flow applies each one's gradient up to twice more, which is not counted. ``learning_rate`` is None
    for gradient flow. ``status`` holds "finished", "diverged" or "step_limit" (the flow was given up after
    `flow.MAX_STEPS` steps, as it may be for ReLU at small tolerances: every kink costs a step) for each seed; what a seed
    did not reach is NaN.

    Kernels are plain Gram matrices, without n^(-c), or with layer rates sums over layers of rate_l K_l: ``kernels``
    (S, T, n, n), None unless kept; ``kernel`` (S, n, n) at the last time; and of test with training points ``test_kernels``
    (S, 2, n*, n), first at t = 0, whether that is among the times or not, then at the last time; None without test points.
    Movement since t = 0, whether that is among the times or not:

    ``kernel_drift`` (S, T) = ||K_t - K_0||_F / ||K_0||_F, and ``kernel_distance`` (S, T), as in `measures.kernel_distance`;
    ``parameter_drift`` (S, T) = ||theta_t - theta_0|| / ||theta_0|| over all stored parameters, and ``layer_drift``
    (S, T, L+1) over each layer's weights and biases, the readout's last; ``layer_kernel_drift`` (S, T, L+1) =
    ||K^l_t - K^l_0||_F / ||K^l_0||_F of each layer's part of the plain kernel, the sum over its weights and biases, whatever
    its rate;
    ``feature_drift`` (S, T) = ||h^L_t - h^L_0||_F / ||h^L_0||_F over the last hidden layer's activations on the training points;
    ``gates_flipped`` (S, T), the share of pairs of a hidden neuron and a training point whose pre-activation has changed sign;
    NaN for the activation sin, whose values do not tell it.

    ``rank`` (S,) counts the directions of a hidden matrix that networks in law have revealed, the most over matrices and sides;
    None for explicit weights.
    """

    times: np.ndarray
    outputs: np.ndarray
    test_outputs: np.ndarray | None
    loss: np.ndarray
    kernel_drift: np.ndarray
    parameter_drift: np.ndarray
    evaluations: np.ndarray
    kernels: np.ndarray | None
    status: tuple[str, ...]
    learning_rate: float | None
    kernel: np.ndarray
    test_kernels: np.ndarray | None
    kernel_distance: np.ndarray
    layer_drift: np.ndarray
    layer_kernel_drift: np.ndarray
    feature_drift: np.ndarray
    gates_flipped: np.ndarray
    rank: np.ndarray | None

    @property
    def test_kernel(self) -> np.ndarray | None:
        """The kernel of test with training points at the last time, (S, n*, n); None without test points."""
        return None if self.test_kernels is None else self.test_kernels[:, 1]


def train(
    network: Network,
    x: np.ndarray,
    y: np.ndarray,
    *,
    seeds: Sequence[int],
    method: str = "gradient_flow",
    times: Sequence[float] | None = None,
    steps: int | None = None,
    learning_rate: float | None = None,
    momentum: float = 0.0,
    nesterov: bool = False,
    batch_size: int | None = None,
    layer_rates: Sequence[float] | None = None,
    tolerance: float | None = None,
    x_test: np.ndarray | None = None,
    remove_initial_output: bool = False,
    keep_kernels: bool = False,
    checkpoint: str | Path | None = None,
    checkpoint_interval: float = INTERVAL,
    sampling: str = "weights",
    rank_tolerance: float = 1e-6,
    dtype: Any = "float64",
    device: str = "cpu",
) -> Trajectory:
    """Train one network per seed on the loss 1/2 sum (f - y)^2.

    Parameters
    ----------
    x, y : points (n, d) and targets (n,), or (n, k) for a network of k > 1 outputs; ``x_test`` (n*, d), observed only.
    method : ``"gradient_flow"``, theta' = -grad L to an error of ``tolerance``, or ``"gradient_descent"``; both with the
        parameterization's factor n^(-c) on the gradient. K_infinity below is the effective kernel, with that factor.
    times : when to look, ascending; infinity is allowed for the flow. Along directions in which the kernel is singular to the
        precision of ``dtype`` the flow does not move, at any time. For gradient descent each is moved to the nearest step. By
        default 0 and 25 log-spaced times up to the last of ``steps``, or to t = 20 / lambda_min(K_infinity).
    steps : number of steps of gradient descent; by default up to the last of ``times``, or to t = 20 / lambda_min(K_infinity)
        and, with momentum, at least 40 / (1 - mu).
    learning_rate : eta of gradient descent; by default 1 / lambda_max(K_infinity). A warning is given from
        2 / lambda_max on; with momentum mu from 2 (1 + mu) / lambda_max, Nesterov's from that over 1 + 2 mu.
    momentum : mu of gradient descent, from 0 to below 1: v <- mu v + grad L, theta <- theta - eta v (heavy ball; Polyak
        1964). Times stay eta k after k steps; slow modes move as under the effective learning rate eta / (1 - mu), at the
        effective time eta k / (1 - mu).
    nesterov : theta <- theta - eta (grad L + mu v) instead (Nesterov 1983, in the form of Bengio et al. 2013).
    batch_size : b points in each step of gradient descent, from 1 to n; None for all of them. Every epoch of n // b steps
        shuffles the points anew and takes them b at a time without replacement, those left over sitting out, as a function
        of (seed, step) alone. A step's gradient is that of the batch's part of the loss times n / b, whose mean is the full
        gradient. The default learning rate is then the inverse of a bound on (n / b) lambda_max over all batches.
    layer_rates : L + 1 factors on the learning rate of each layer's weights and biases, the readout's last; 1 by default, and
        0 for a frozen layer, whose parameters do not move. The flow is theta_l' = -rate_l dL/dtheta_l. Kernels, here and in
        the result, are then sum_l rate_l K_l, whose eigenvalues are the rates of training.
    tolerance : error of the outputs that a step of the flow may add, root mean square over training points, in units of
        the initial residual's; 1e-4 by default.
    remove_initial_output : whether f - f_0 is trained in place of f: outputs, on test points too, start at 0 with the kernel of
        f, as those of an antisymmetric pair of networks do (Chizat et al. 2019; Zhang et al. 2020).
    keep_kernels : whether to return K_t, (S, T, n, n).
    checkpoint : a folder in which to keep what has been computed. The same call, after the process was killed at any moment,
        goes on from there and returns the same bits (on a processor of the same kind); once it has returned, it does so at
        once. Calls that differ in anything
        that numbers depend on, seeds included, may share a folder; remove it when the result is safe.
    checkpoint_interval : seconds between two writes of a seed's parameters.
    sampling : ``"weights"``, or ``"conditional"`` for networks in law: exactly the distribution of a trained network, without its
        weights, in time O(m n r) a pass and memory O(m r) for m neurons a layer, n points and r directions asked, at any width.
        They are other networks than those of equal seeds by weights: a network depends on seed and points, and on all else it
        is asked for: test points, times, tolerances, steps. On the CPU, all points at once. A seed under way is not kept in a
        checkpoint, only those that are done. Lu 2021, "Householder Dice", arXiv 2101.07464.
    rank_tolerance : for ``"conditional"``, from 1e-7 to 0.1, and for a flow at most a tenth of ``tolerance``: what of activations
        and sensitivities lies outside all that has been asked before, and is shorter than this part of their length, is left out
        of what weights are applied to. In float32 it is 4e-6 at least.
    device : as in `empirical.empirical_ntk`; a GPU trains seed by seed.

    Raises
    ------
    TypeError or ValueError naming any argument that does not fit; DeviceError for ``"cuda"`` without a GPU or numba-cuda;
    MemoryError where a GPU has not enough of it: seeds are trained one after the other, so that fewer would not help.

    The notes' assumption 1.1 and section 1.7.
    """
    place = chosen_place(device, sampling)
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    kind, seed_list, in_law = precision(dtype), seed_array(seeds), sampling == "conditional"
    known_answers.check("training in law" if in_law else method, kind.name, place)
    x = points("x", x)
    y = targets("y", y, len(x), network.outputs).ravel()
    tests = None if x_test is None else points("x_test", x_test, features=x.shape[1])
    remove, keep = flag("remove_initial_output", remove_initial_output), flag("keep_kernels", keep_kernels)
    network = rated(network, layer_rates)
    options = Options(times, steps, learning_rate, momentum, nesterov, batch_size, tolerance)
    schedule = (flow_schedule if method == "gradient_flow" else descent_schedule)(network, x, options)
    rank = _checked_rank(rank_tolerance, network, schedule.plan, len(x)) if in_law else None
    task = Task(
        net=compiled_network(network, x.shape[1]),
        x=columns_of(x, None, kind, place),
        y=y,
        x_test=None if tests is None else columns_of(tests, None, kind, place),
        x_across=None if tests is None else columns_of(tests, x, kind, place),
        remove_initial_output=remove,
    )
    test_outputs = 0 if tests is None else len(tests) * network.outputs
    snapshots = Snapshots.empty(seed_list.size, schedule.looks, y.size, test_outputs, network.depth + 1, kind, keep)
    interval = _checked_interval(checkpoint, checkpoint_interval)
    numbers = network, x, y, tests, schedule.plan, seed_list, kind.name, remove, keep, rank, repr(device_identity(place))
    kept = Checkpoints(checkpoint, checkpoints.digest(*numbers), seed_list, snapshots, interval)
    status, evaluations = _Run(task, schedule.plan, seed_list, kept, place, rank).train()
    found = snapshots.at(schedule.where, network.outputs)
    return Trajectory(
        times=schedule.times,
        evaluations=evaluations,
        status=status,
        learning_rate=schedule.learning_rate,
        **found | {"rank": found["rank"][:, 0].astype(np.int64) if in_law else None},
    )


def _checked_rank(tolerance: float, network: Network, plan: Flow | Descent, n: int) -> float:
    """The tolerance of networks in law, which do not take all plans."""
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float, np.floating)) or not 1e-7 <= tolerance <= 0.1:
        raise ValueError(f"rank_tolerance must be a number from 1e-7 to 0.1; got {tolerance!r}")
    if isinstance(plan, Flow) and tolerance > plan.tolerance / 10:
        raise ValueError(
            f"rank_tolerance must be at most a tenth of the flow's tolerance {plan.tolerance:g}, or no step meets it; "
            f"got {tolerance:g}: lower rank_tolerance, or raise tolerance"
        )
    if isinstance(plan, Descent):
        if plan.batch_size is not None:
            raise ValueError("sampling='conditional' takes all points at once: leave batch_size out, or use sampling='weights'")
        if network.depth > 1 and (asked := int(plan.steps[-1]) * n) > min(network.widths):
            raise ValueError(
                f"sampling='conditional' may ask for {asked} directions in {plan.steps[-1]} steps on {n} points, more than the "
                f"width {min(network.widths)}: use method='gradient_flow', fewer steps, or sampling='weights'"
            )
    return float(tolerance)


def _checked_interval(checkpoint: object, interval: float) -> float:
    """Seconds between two checkpoints; both arguments of `train` are checked."""
    if isinstance(interval, bool) or not isinstance(interval, Real) or not interval >= 0:
        raise ValueError(f"checkpoint_interval must be a number of seconds, at least 0; got {interval!r}")
    if checkpoint is not None and (not isinstance(checkpoint, (str, PathLike)) or not str(checkpoint) or "\0" in str(checkpoint)):
        raise TypeError(f"checkpoint must be the path of a folder, or None; got {checkpoint!r}")
    return float(interval)


class _Run:
    """Many seeds, each trained on a machine of its own."""

    def __init__(
        self, task: Task, plan: Flow | Descent, seeds: np.ndarray, kept: Checkpoints, device: str, rank_tolerance: float | None
    ) -> None:
        self.task, self.plan, self.seeds, self.kept, self.device = task, plan, seeds, kept, device
        self.evaluations, self.status = np.zeros(seeds.size, np.int64), [""] * seeds.size
        self.machine: Callable[[int, np.uint64, Task], Machine] = CpuMachine
        self.huge = rank_tolerance is not None and max(task.net.widths[1:-1]) >= _HUGE
        if rank_tolerance is not None:
            self.machine = partial(ConditionalMachine, rank_tolerance=rank_tolerance)
        elif device == "cuda":
            from ntksim.engine.cuda.machine import CudaMachine

            self.machine = CudaMachine

    def train(self) -> tuple[tuple[str, ...], np.ndarray]:
        """Train all seeds and fill their snapshots; returns each one's status and number of passes."""
        with one_blas_thread():
            if self.device == "cuda":
                self._on_gpus()
            elif self.huge:
                self._work(get_num_threads(), 0, self.seeds.size, 1)
            else:
                spread(self.seeds.size, is_wide(self.task.net.widths[1:-1].tolist()), self._work)
        self.kept.close()
        return tuple(self.status), self.evaluations

    def _work(self, threads: int, first: int, end: int, step: int) -> None:
        """Train seeds number first, first + step, ... below ``end``."""
        for s in range(first, end, step):
            done = self.kept.done(s)
            self.status[s], self.evaluations[s] = self._train_seed(threads, s) if done is None else done

    def _train_seed(self, threads: int, s: int) -> tuple[str, int]:
        watch, own = Watch(self.machine(threads, self.seeds[s], self.task), self.task), self.kept.of(s)
        watch.begin(own.rows)
        status = flow_seed(watch, self.plan, own) if isinstance(self.plan, Flow) else descend_seed(watch, self.plan, own)
        watch.finish(own.rows)
        self.kept.finish(s, status, watch.passes)
        return status, watch.passes

    def _on_gpus(self) -> None:
        """Share seeds out to all GPUs."""
        from ntksim.engine.cuda.launch import OutOfMemory, memory_errors, on_every_gpu

        def on_gpu(first: int, step: int) -> None:
            with memory_errors():  # here, where what was allocated is freed on its own GPU
                self._work(1, first, self.seeds.size, step)

        try:
            on_every_gpu(self.seeds.size, on_gpu)
        except OutOfMemory as error:
            raise GpuMemoryError(
                f"training a network of widths {self.task.net.widths[1:-1].tolist()} on {len(self.task.y)} points does not fit "
                f"in the GPU's memory: use fewer points, float32, or device='cpu' ({error})"
            ) from None
