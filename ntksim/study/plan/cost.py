"""What a job costs: a model of flops, draws, passes and bytes, and the rates at which a core does them.

Two sets of rates serve two ends. `NOMINAL` is a round machine, the same everywhere: shards are cut by it, so that a study cuts
into the same files wherever it is resumed. Rates that were measured on the machine at hand (`calibration`) predict times.
This module loads neither Numba nor pandas: the workflow reads it in every job.
"""

from dataclasses import dataclass
from functools import cache

from ntksim.study.config.dataset import FEATURES
from ntksim.study.config.study import Study

_KINKED = ("relu", "leaky_relu", "abs")
_PROCESS_MB = 280.0  # of a job's process before it has computed anything
_CUDA_MB = 1500.0  # and of a GPU's context and libraries: room, not a measurement
_MOST_PASSES = 15000.0  # of gradient flow: three for each of `flow.MAX_STEPS`


@dataclass(frozen=True)
class Rates:
    """What one core does while all others are at work too; by precision where that matters.

    ``flops`` per second of kernels at initialisation and ``training_flops`` of training, ``draws`` of normals per second,
    ``pass_seconds`` that a pass of training costs whatever the network, ``eigen_seconds`` per n^3 of an eigendecomposition and
    ``eigen_entry_seconds`` per n^2 more, which is most of it up to n of some hundreds, and ``startup_seconds`` of a process.
    """

    flops: dict[str, float]
    training_flops: dict[str, float]
    draws: dict[str, float]
    pass_seconds: float
    eigen_seconds: float
    eigen_entry_seconds: float
    startup_seconds: float


# Blocks of seeds, and so the names of shards to come, follow from these and from `_flow_passes` (a test holds some fixed).
NOMINAL = Rates(
    flops={"float64": 4e10, "float32": 8e10},
    training_flops={"float64": 3e10, "float32": 6e10},
    draws={"float64": 1e9, "float32": 1e9},
    pass_seconds=5e-4,
    eigen_seconds=5e-10,
    eigen_entry_seconds=2e-7,
    startup_seconds=1.5,
)


@dataclass(frozen=True)
class Cost:
    """Seconds on one core, peak memory in MB, and MB on disk."""

    seconds: float
    memory_mb: float
    disk_mb: float


def nominal_seconds(study: Study, stage: str, network: str, width: int, seeds: int) -> float:
    """Seconds of a job on the nominal machine, without a look into files of data: a number of the configuration alone."""
    data = study.dataset
    d = FEATURES.get(str(data.name)) or data.features or (64 if data.files else 2)
    return _seconds(study, stage, network, width, seeds, d, data.outputs, NOMINAL)


def cost_of(study: Study, stage: str, network: str, width: int, seeds: int, rates: Rates = NOMINAL) -> Cost:
    """The cost of one job on ``seeds`` seeds; ``stage`` is initial or training."""
    n, d, k, depth = study.dataset.train, _features(study), _outputs(study), study.networks[network].depth
    seconds = _seconds(study, stage, network, width, seeds, d, k, rates)
    itemsize = 8 if study.precision == "float64" else 4
    of_runs = 0
    if stage == "initial":
        held = 4.0 * n * (d + min(depth, 2) * width) * itemsize + 8 * (8 + 2 * seeds) * n * n
        rows, columns = seeds, n + 20
    else:
        # parameters of a step of the flow at six places, and what three passes leave behind
        held = (6 * parameters(d, depth, width, k) + (8 + 4 * k) * n * (d + depth * width)) * itemsize
        points = n + study.dataset.test
        n, tests = n * k, study.dataset.test * k  # from here on entries of outputs, and rows of kernels
        held += 8 * (20 + 6 * depth) * n * n + 2 * 8 * min(seeds, 8) * tests * n
        rows, outputs = seeds * (_snapshots(study) + 1), n + tests
        columns = 36 + outputs
        held += 3 * rows * 8 * outputs
        of_runs = 3 * seeds * n  # modes
        # kernels along the way, of a few seeds at a time (`stages.training`), and what is computed from them
        kernel = (_snapshots(study) + 1) * n * n * itemsize
        held += 5 * max(kernel, min(min(seeds, 8) * kernel, 2**28))  # one of the copies on its way to the checkpoint
        assert study.training is not None
        if study.training.remove_initial_output:  # the kernels' changes, and twice more in the table
            held += 3 * seeds * 8 * n * n
            of_runs += seeds * n * n
        else:  # covariances over infinitely wide networks, of one output
            held += 4 * (_snapshots(study) + 1) * 8 * points**2
        if study.training.keep_kernels:
            held += 3 * seeds * kernel
            columns += kernel // 8 // (_snapshots(study) + 1)
    process = _PROCESS_MB + (_CUDA_MB if study.device != "cpu" else 0)
    return Cost(seconds, process + held / 1e6, 0.006 + 8 * (rows * columns + of_runs) / 1e6)


def limit_cost(study: Study, network: str, rates: Rates = NOMINAL) -> Cost:
    """The cost of the infinite-width kernels of a network: some 50 flops for each pair of points and layer."""
    n, tests, depth = study.dataset.train, study.dataset.test, study.networks[network].depth
    seconds = rates.startup_seconds + 2000 * n * (n + tests) * depth / rates.flops["float64"]
    entries = n * (2 * n + tests) + (n * n if depth == 1 else 0)
    return Cost(seconds, _PROCESS_MB + 8 * 4 * entries / 1e6, 0.003 + 8 * entries / 1e6)


def others(study: Study, rates: Rates) -> dict[str, float]:
    """Seconds of the jobs beside limits and shards, by kind: a process, rows of tables, and the statistics of `ensemble`."""
    seeds = study.initial.seeds * len(study.initial.widths) * len(study.networks)
    times = (_snapshots(study) + 1) * len(study.training.widths) * len(study.networks) if study.training else 0
    start = rates.startup_seconds
    return {"dataset": start, "tables": 1.5 * start + 3e-4 * seeds + 1e-3 * times, "figures": 1.8 * start, "summary": start}


def parameters(features: int, depth: int, width: int, outputs: int = 1) -> float:
    """How many parameters a network has, biases aside."""
    return float(features * width + (depth - 1) * width * width + outputs * width)


def _seconds(study: Study, stage: str, network: str, width: int, seeds: int, d: int, k: int, rates: Rates) -> float:
    """``d`` features, and ``k`` outputs in training; at initialisation one is looked at."""
    if stage == "initial":
        return rates.startup_seconds + seeds * _seconds_of_initial(study, network, width, d, rates)
    return rates.startup_seconds + seeds * _seconds_of_training(study, network, width, d, k, rates)


def _seconds_of_initial(study: Study, network: str, width: int, d: int, rates: Rates) -> float:
    depth, n, count = study.networks[network].depth, study.dataset.train, parameters(d, 1, width)
    hidden = (depth - 1) * width * width
    flops = 4.0 * n * (count + hidden) + 4.0 * n * n * width * depth
    draws = 2 * count + hidden * (2 - 1 / max(1, depth - 1))  # the last hidden layer is drawn once, others twice
    return flops / rates.flops[study.precision] + draws / rates.draws[study.precision] + 3 * _eigen(n, rates)


def _seconds_of_training(study: Study, network: str, width: int, d: int, k: int, rates: Rates) -> float:
    n, count = study.dataset.train, parameters(d, study.networks[network].depth, width, k)
    kernel = 4.0 * (k * n) ** 2 * width * study.networks[network].depth
    speed = rates.training_flops[study.precision]
    assert study.training is not None
    schedule, looks = study.training.schedule, 5.0 + _snapshots(study)
    if schedule["method"] == "gradient_descent":
        passes = schedule["relative_time"] / schedule["relative_learning_rate"]
        points = schedule.get("batch_size") or n
        steps = passes * (6.0 * points * count / speed + 0.1 * rates.pass_seconds)
        return steps + looks * (((2.0 + 4.0 * k) * n * count + kernel) / speed + rates.pass_seconds)
    passes = min(_MOST_PASSES, looks + _flow_passes(study, network, width))
    return passes * (((4.0 + 6.0 * k) * n * count + kernel) / speed + rates.pass_seconds + _eigen(k * n, rates))


def _flow_passes(study: Study, network: str, width: int) -> float:
    """Passes of gradient flow but for those of snapshots: fitted to the default study, whose kernel moves as 1 / sqrt(width).

    They follow the kernel's change, and every kink of a ReLU costs a step.
    """
    assert study.training is not None
    schedule = study.training.schedule
    kinks = 2800.0 if study.networks[network].activation in _KINKED else 260.0
    return (10 + kinks * width**-0.5) * (1e-4 / schedule["tolerance"]) ** (1 / 3) * (schedule["relative_time"] / 100) ** 0.2


def _snapshots(study: Study) -> int:
    return study.training.snapshots if study.training else 0


def _eigen(n: int, rates: Rates) -> float:
    return rates.eigen_seconds * n**3 + rates.eigen_entry_seconds * n**2


def _features(study: Study) -> int:
    data = study.dataset
    if not data.files:
        return FEATURES.get(str(data.name)) or data.features or 2
    table = data.files[0].endswith((".csv", ".parquet"))
    return max(1, _columns_in_file(data.files[0]) - (len(data.targets) if table else 0))


def _outputs(study: Study) -> int:
    data = study.dataset
    arrays = data.classes is None and data.files and data.files[-1].endswith((".npz", ".npy"))
    return _columns_in_file(data.files[-1], "y") if arrays else data.outputs


@cache
def _columns_in_file(path: str, array: str = "x") -> int:
    from ntksim.study.data.dataset import columns_in_file  # pandas, for the sake of such files alone

    return columns_in_file(path, array)
