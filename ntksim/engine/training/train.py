"""Training: gradient flow and gradient descent, with the kernel along the way.

Time is the notes' t: that of the flow, and eta k after k steps of gradient descent with learning rate eta. The loss is by default
1/2 sum r^2, with no 1/n, so rates are eigenvalues of the kernel itself (`engine.loss` has the others). In the abc
parameterizations, whose learning rates carry a factor n^(-c) (`Network.learning_rate_scale`; 1 in the others), they are those of
the effective kernel n^(-c) K: the flow is theta' = -n^(-c) grad L, and a step of descent eta n^(-c) grad L.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numba import get_num_threads

from ntksim.engine import known_answers
from ntksim.engine.arguments import METHODS, flag, one_of, points, precision
from ntksim.engine.blas import one_blas_thread
from ntksim.engine.conditional.machine import ConditionalMachine
from ntksim.engine.cpu.compiled_network import columns_of, compiled_network
from ntksim.engine.cpu.machine import CpuMachine
from ntksim.engine.cpu.shallow import is_shallow, worth_sharing
from ntksim.engine.devices import GpuMemoryError, device_identity
from ntksim.engine.finite.empirical import chosen_place, is_wide
from ntksim.engine.finite.parameters import Parameters, packed
from ntksim.engine.gates.gates import is_smooth
from ntksim.engine.layout import parameter_offsets
from ntksim.engine.loss import loss_and_targets
from ntksim.engine.machine import Machine, Task
from ntksim.engine.network import Network, rated
from ntksim.engine.threads import advance, shown, spread
from ntksim.engine.training import checkpoints, checks
from ntksim.engine.training.checkpoints import INTERVAL, Checkpoints
from ntksim.engine.training.descent import Descent, descend_seed
from ntksim.engine.training.flow import Flow, flow_seed
from ntksim.engine.training.schedules import Options, Schedule, descent_schedule, flow_schedule
from ntksim.engine.training.snapshots import Snapshots
from ntksim.engine.training.trajectory import KeptParameters, Trajectory
from ntksim.engine.training.watch import Watch

_SMALL, _TOGETHER = 512, 2e5  # neurons, and (points times outputs)^2 times neurons: one thread is best for smaller ones in law
_HUGE = 1 << 14  # neurons from which threads share a network in law, rather than having one each: memory for one is enough


def train(
    network: Network,
    x: np.ndarray,
    y: np.ndarray,
    *,
    seeds: Sequence[int] | None = None,
    start: Parameters | None = None,
    method: str = "gradient_flow",
    times: Sequence[float] | None = None,
    steps: int | None = None,
    learning_rate: float | None = None,
    loss: str = "squared",
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    nesterov: bool = False,
    batch_size: int | None = None,
    layer_rates: Sequence[float] | None = None,
    tolerance: float | None = None,
    max_steps: int | None = None,
    x_test: np.ndarray | None = None,
    remove_initial_output: bool = False,
    keep_kernels: bool = False,
    keep_test_kernels: bool = False,
    return_parameters: bool = False,
    checkpoint: str | Path | None = None,
    checkpoint_interval: float = INTERVAL,
    sampling: str = "weights",
    rank_tolerance: float | None = None,
    dtype: Any = "float64",
    device: str = "cpu",
    progress: bool = False,
) -> Trajectory:
    """Train one network per seed, by default on the loss 1/2 sum (f - y)^2.

    Parameters
    ----------
    network : its shape, activation and parameterization.
    x, y : points (n, d) and targets (n,), or (n, k) for a network of k > 1 outputs; ``x_test`` (n*, d), observed only.
    seeds : S non-negative integers below 2^64, a sequence or range: networks that are drawn.
    start : in place of seeds, the parameters of a network of your own (`from_torch` and its like); the result then has an axis of
        seeds of length 1, and ``batch_size`` shuffles as for seed 0. Defaults of times and learning rate come from the limit of
        drawn networks all the same: give your own.
    method : ``"gradient_flow"``, theta' = -grad L to an error of ``tolerance``, or ``"gradient_descent"``; both with the
        parameterization's factor n^(-c) on the gradient. K_infinity below is the effective kernel, with that factor.
    times : when to look, ascending; infinity is allowed for the flow. Along directions in which the kernel is singular to the
        precision of ``dtype`` the flow does not move, at any time. For gradient descent each is moved to the nearest step. By
        default 0 and 25 log-spaced times up to the last of ``steps``, or to t = 20 / lambda_min(K_infinity).
    steps : number of steps of gradient descent; by default up to the last of ``times``, or to t = 20 / lambda_min(K_infinity)
        and, with momentum, at least 40 / (1 - mu).
    learning_rate : eta of gradient descent; by default 1 / lambda_max(K_infinity). A warning is given from
        2 / lambda_max on; with momentum mu from 2 (1 + mu) / lambda_max, Nesterov's from that over 1 + 2 mu.
    loss : what gradient descent descends on; ``"squared"`` (1/2 sum r^2), ``"mean_squared"`` (the mean of r^2 over points and
        outputs), ``"half_mean_squared"`` (1/(2n) sum r^2), ``"logistic"`` (sum log(1 + exp(-y f)), targets 1 and -1),
        ``"mean_logistic"`` (its mean over points and outputs), ``"softmax_cross_entropy"`` (summed over points; targets are
        classes (n,) from 0 to k - 1, probabilities (n, k), or these less 1/k) or ``"mean_softmax_cross_entropy"``. Gradient flow
        has the first alone; GPUs, networks in law and ``remove_initial_output`` have the squared ones. Those with a softmax or
        logarithm need ``steps`` or ``times``; their default learning rate is 1 / lambda_max over a bound on their curvature.
    weight_decay : lambda of gradient descent: it descends on the loss plus lambda/2 ||theta||^2, theta being the parameters of
        the parameterization in use, as `Trajectory.parameters` returns them. `Trajectory.loss` is without it.
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
    tolerance : error of the outputs that one step of the flow may add, as it is estimated, root mean square over training
        points, in units of the initial residual's; 1e-4 by default. It is no bound on a whole run. Measured over runs of smooth
        networks, outputs end within about 3 tolerances and test outputs within about 7; docs/training.md has the table.
    max_steps : steps, rejected ones included, after which the flow of a seed is given up, with a warning; 5000 by default.
    remove_initial_output : whether f - f_0 is trained in place of f: outputs, on test points too, start at 0 with the kernel of
        f, as those of an antisymmetric pair of networks do (Chizat et al. 2019; Zhang et al. 2020).
    keep_kernels : whether to return K_t, (S, T, n, n), or (S, T, n, k, n, k) for k > 1 outputs.
    keep_test_kernels : whether to return K_t of test with training points, (S, T, n*, n); networks in law are then asked for
        test points at every time.
    return_parameters : whether to keep the parameters of every seed at all times and at its end, for `Trajectory.parameters`; ask
        for few times.
    checkpoint : a folder in which to keep what has been computed. The same call, after the process was killed at any moment,
        goes on from there and returns the same bits (on a processor of the same kind); once it has returned, it does so at
        once. Calls that differ in anything that numbers depend on, seeds included, may share a folder; remove it when the result
        is safe.
    checkpoint_interval : seconds between two writes of a seed's parameters.
    sampling : ``"weights"``, or ``"conditional"`` for networks in law: exactly the distribution of a trained network, without its
        weights, in time O(m n r) a pass and memory O(m r) for m neurons a layer, n points and r directions asked, at any width.
        They are other networks than those of equal seeds by weights, with one hidden layer too: a network depends on seed and
        points, and on all else it is asked for: test points, times, tolerances, steps. On the CPU, all points at once. A seed
        under way is not kept in a checkpoint, only those that are done. Lu 2021, "Householder Dice", arXiv 2101.07464.
    rank_tolerance : for ``"conditional"``, from 1e-7 to 0.1, and for a flow at most a tenth of ``tolerance``; 1e-6 by default.
        What of activations and sensitivities lies outside all that has been asked before, and is shorter than this part of their
        length, is left out of what weights are applied to. In float32 it is 3.8e-6 at least.
    dtype : ``"float64"`` or ``"float32"``, the precision of the arithmetic.
    device : as in `empirical_ntk`; a GPU trains seed by seed.
    progress : whether to show a bar of seeds, and the time that the last of them has reached, by tqdm. Ctrl-C ends training
        within about a second, or at the end of an eigendecomposition; seeds that are done stay in the ``checkpoint``.

    Raises
    ------
    TypeError or ValueError naming any argument that does not fit; DeviceError for ``"cuda"`` without a GPU or numba-cuda;
    MemoryError where a GPU has not enough of it: seeds are trained one after the other, so that fewer would not help.
    ModuleNotFoundError for ``progress`` without tqdm.

    The notes' assumption 1.1 and section 1.7.
    """
    network = rated(network, layer_rates)
    in_law = checks.in_law(sampling, device, start is not None or return_parameters, rank_tolerance)
    place = chosen_place("cpu" if in_law or checks.on_cpu(device, loss, weight_decay) else device, sampling)
    one_of("method", method, METHODS)
    kind, seed_list = precision(dtype), checks.seeds(seeds, start)
    known_answers.check("training in law" if in_law else method, kind.name, place)
    x = points("x", x)
    objective, y = loss_and_targets(loss, y, len(x), network.outputs)
    tests = None if x_test is None else points("x_test", x_test, features=x.shape[1])
    remove, keep = flag("remove_initial_output", remove_initial_output), checks.kept(keep_kernels, keep_test_kernels, tests)
    decay = checks.checked_loss(objective, weight_decay, place, in_law, remove)
    options = Options(times, steps, learning_rate, momentum, nesterov, batch_size, tolerance, max_steps, objective, decay)
    schedule = (flow_schedule if method == "gradient_flow" else descent_schedule)(network, x, options)
    rank = checks.checked_rank(rank_tolerance, network, schedule.plan, len(x), kind) if in_law else None
    net, theta = _net_and_start(network, x.shape[1], start, kind)
    task = Task(
        net, columns_of(x, None, kind, place), y, None if tests is None else columns_of(tests, None, kind, place),
        None if tests is None else columns_of(tests, x, kind, place), remove, theta, objective,
    )  # fmt: skip
    numbers = int(parameter_offsets(net)[-1]) if flag("return_parameters", return_parameters) else 0
    snapshots = Snapshots.empty(seed_list.size, schedule.looks, task, keep, numbers)
    own = network, x, y, tests, schedule.plan, seed_list, kind.name, remove, keep, rank, numbers, theta, net.scales, objective
    run = checkpoints.digest(*own, repr(device_identity(place)))
    kept = Checkpoints(checkpoint, run, seed_list, snapshots, checks.checked_interval(checkpoint, checkpoint_interval))
    with shown(progress, seed_list.size, "training", network.learning_rate_scale):
        status, evaluations = _Run(task, schedule.plan, seed_list, kept, place, rank).train()
    owners = partial(KeptParameters, net, checks.biases(network, start), tuple(map(int, seed_list)))
    return _trajectory(network, schedule, snapshots, status, evaluations, owners)


def _trajectory(
    network: Network,
    schedule: Schedule,
    snapshots: Snapshots,
    status: tuple[str, ...],
    evaluations: np.ndarray,
    owners: Callable[[np.ndarray, np.ndarray], KeptParameters],
) -> Trajectory:
    """What has been seen at the times that were asked for; ``owners`` reads parameter vectors, if they were kept."""
    last = schedule.times[-1]
    snapshots.time_reached[:] = checks.times_asked(snapshots.time_reached, status, last, network.learning_rate_scale)
    checks.warn_of_the_end(status, snapshots.time_reached, last, schedule.plan)
    found = snapshots.at(schedule.where, network.outputs)
    vectors, ends, rank = found.pop("parameters"), found.pop("end_parameters"), found.pop("rank")[:, 0]
    return Trajectory(
        times=schedule.times,
        evaluations=evaluations,
        status=status,
        learning_rate=schedule.learning_rate,
        rank=None if np.isnan(rank).all() else rank.astype(np.int64),
        _kept=None if vectors is None else owners(vectors, ends),
        **found,
    )


def _net_and_start(network: Network, input_dim: int, start: Parameters | None, kind: np.dtype) -> tuple[Any, Any]:
    """The compiled network, and the parameters that it starts from, where they are given."""
    if start is None:
        return compiled_network(network, input_dim), None
    return packed(network, input_dim, start, kind, "start")


def _one_by_one(task: Task) -> bool:
    """Whether networks in law are so small that one thread trains all seeds faster than several do, which wait for Python's lock.

    Measured with tanh and three hidden layers: of up to 512 neurons and up to ten points two threads took 1.3 to 1.8 times the
    time of one; of 512 neurons and 20 points 0.7 to 1.1 times.
    """
    points = (task.x[1].cols + (0 if task.x_test is None else task.x_test[1].cols)) * int(task.net.widths[-1])
    width = int(max(task.net.widths[1:-1]))
    return is_smooth(task.net) and width <= _SMALL and points**2 * width < _TOGETHER


class _Run:
    """Many seeds, each trained on a machine of its own."""

    def __init__(
        self, task: Task, plan: Flow | Descent, seeds: np.ndarray, kept: Checkpoints, device: str, rank_tolerance: float | None
    ) -> None:
        self.task, self.plan, self.seeds, self.kept, self.device = task, plan, seeds, kept, device
        self.evaluations, self.status = np.zeros(seeds.size, np.int64), [""] * seeds.size
        self.machine: Callable[[int, np.uint64, Task], Machine] = CpuMachine
        self.alone = 0  # the threads of a seed, if seeds are trained in turn
        if rank_tolerance is not None:
            self.machine = partial(ConditionalMachine, rank_tolerance=rank_tolerance)
            huge = max(task.net.widths[1:-1]) >= _HUGE
            self.alone = get_num_threads() if huge else int(_one_by_one(task))
        elif device == "cuda":
            from ntksim.engine.cuda.machine import CudaMachine

            self.machine = CudaMachine

    def train(self) -> tuple[tuple[str, ...], np.ndarray]:
        """Train all seeds and fill their snapshots; returns each one's status and number of passes."""
        try:
            with one_blas_thread():
                if self.device == "cuda":
                    self._on_gpus()
                elif self.alone:
                    self._work(self.alone, 0, self.seeds.size, 1)
                else:
                    spread(self.seeds.size, self._is_wide(), self._work)
        finally:
            self.kept.close()  # with the seeds that are done, whatever ended the others
        return tuple(self.status), self.evaluations

    def _is_wide(self) -> bool:
        """Whether threads share the seeds that are left over; one seed has them all, where a step is long enough for them."""
        net, plan = self.task.net, self.plan
        wide = is_wide(net.widths[1:-1].tolist())
        if self.machine is CpuMachine and isinstance(plan, Descent) and is_shallow(net):
            return worth_sharing(net, plan.batch_size or self.task.x[1].cols) or (wide and self.seeds.size == 1)
        return wide

    def _work(self, threads: int, first: int, end: int, step: int) -> None:
        """Train seeds number first, first + step, ... below ``end``."""
        for s in range(first, end, step):
            done = self.kept.done(s)
            if done is not None:
                advance(1)
            self.status[s], self.evaluations[s] = self._train_seed(threads, s) if done is None else done

    def _train_seed(self, threads: int, s: int) -> tuple[str, int]:
        watch, own = Watch(self.machine(threads, self.seeds[s], self.task), self.task), self.kept.of(s)
        watch.begin(own.rows)
        status = flow_seed(watch, self.plan, own) if isinstance(self.plan, Flow) else descend_seed(watch, self.plan, own)
        watch.finish(own.rows)
        self.kept.finish(s, status, watch.passes)
        own.reach(1.0)
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
