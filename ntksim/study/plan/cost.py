"""What a job costs: a model of flops, draws, passes and bytes, and the rates at which a core does them.

Two sets of rates serve two ends. `NOMINAL` is a round machine, the same everywhere: shards are cut by it, so that a study cuts
into the same files wherever it is resumed. Rates that were measured on the machine at hand (`calibration`) predict times.
This module loads neither Numba nor pandas: the workflow reads it in every job.
"""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from ntksim.study.config.dataset import FEATURES
from ntksim.study.config.headers import columns, rows
from ntksim.study.config.study import Study
from ntksim.study.plan.passes import passes_of_flow, passes_of_training, snapshots

_PROCESS_MB = 280.0  # of a job's process before it has computed anything
_CUDA_MB = 1500.0  # and of a GPU's context and libraries: room, not a measurement
_FILE_MB = 0.006  # of a file without numbers
_KERNELS_OF_STATISTICS = 8  # float64 kernels that statistics of one seed hold at a time
# Of the first layer and of every other, for each neuron and pair of points: products with factors, and sums of products, in the
# other layers one way and back (measured: 16 points, 2^20 neurons).
_FLOPS_IN_LAW = (8.0, 28.0)
_HELD_IN_LAW = 2**12  # neurons of a layer that are drawn by their weights, or held at a time
# Training in law, measured on 16 points: each output of a training point reveals at least so many directions of a hidden matrix;
# other points reveal theirs at so many looks at most, since early ones show next to nothing new. Each direction keeps two numbers
# a neuron, of Q and of P.
_LEAST_IN_LAW, _LOOKS_IN_LAW, _ARRAYS_IN_LAW = 12, 12, 2
_FINER = 0.03  # power of the inverse of `rank_tolerance` that directions grow with at most
_COLUMNS_OF_INITIAL = 20  # of numbers in a shard's row, beside the eigenvalues
_COLUMNS_OF_TRAINING = 36  # beside outputs
_COLUMNS_OF_MODES = 8  # of numbers, for each mode on which the residual is measured
_MODES = 3  # lists of a run, a number for each mode
_CONSTANT_KERNEL_STEP = 0.04  # of a pass, beside its products (measured: 16 points, 1 and 10 outputs)
_VECTORS_OF_FLOW = 6  # as long as all parameters, in a step
_TRAINED_TOGETHER, _KEPT_BYTES = 8, 2**28  # seeds, and bytes of their kernels, that `stages.training` has at a time
_COPIES_ALONG = 5  # of kernels along the way: what is computed from them, and one on its way to the checkpoint


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


# Blocks of seeds, and so the names of shards to come, follow from these and from `passes_of_flow` (a test holds some fixed).
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
    d = FEATURES.get(str(data.name)) or data.features or (64 if data.train_files else 2)
    return _seconds(study, stage, network, width, seeds, d, data.outputs, NOMINAL)


def cost_of(study: Study, stage: str, network: str, width: int, seeds: int, rates: Rates = NOMINAL) -> Cost:
    """The cost of one job on ``seeds`` seeds; ``stage`` is initial or training."""
    size = _Size(
        study.dataset.train, study.dataset.test, _features(study), _outputs(study), study.networks[network].depth, width, seeds,
        8 if study.precision == "float64" else 4,
    )  # fmt: skip
    seconds = _seconds(study, stage, network, width, seeds, size.features, size.outputs, rates)
    held, numbers = _of_initial(study, size) if stage == "initial" else _of_training(study, network, size)
    process = _PROCESS_MB + (_CUDA_MB if study.device != "cpu" else 0)
    return Cost(seconds, process + held / 1e6, _FILE_MB + 8 * numbers / 1e6)


class _Size(NamedTuple):
    """What the size of a shard's job follows from; ``itemsize`` is the bytes of a number of its precision."""

    points: int
    tests: int
    features: int
    outputs: int
    depth: int
    width: int
    seeds: int
    itemsize: int


def _of_initial(study: Study, size: _Size) -> tuple[float, float]:
    """Bytes that a job at initialisation holds, and numbers in its file."""
    n = size.points
    held = min(size.width, _HELD_IN_LAW) if study.initial.sampling == "conditional" else size.width  # neurons of a layer
    # inputs, and of two layers at a time activations and sensitivities, each with a copy packed for the products
    passes = 4.0 * n * (size.features + min(size.depth, 2) * held) * size.itemsize
    statistics = 8 * _KERNELS_OF_STATISTICS * n * n
    triangle = n * (n + 1) // 2  # of the differences from the limit
    kernels = 8 * size.seeds * (2 * n * n + 3 * triangle)  # and differences, and those in the table
    numbers, now = n + triangle + _COLUMNS_OF_INITIAL, passes + statistics
    if study.initial.first_step is not None:
        now = max(now, _of_engine(size, 1, _directions_of_step(study, n, size.width)))
        numbers += n + 1
    return now + kernels, size.seeds * numbers


def _of_training(study: Study, network: str, size: _Size) -> tuple[float, float]:
    """Bytes that a job of training holds, and numbers in its file."""
    training, k = study.training, size.outputs
    assert training is not None
    entries, tests = size.points * k, size.tests * k  # of outputs, and rows of kernels
    times, together = training.looks + 1, min(size.seeds, _TRAINED_TOGETHER)
    rows, square = size.seeds * times, entries * entries
    directions = _directions(study, network, size.width, entries, size.features) if training.sampling == "conditional" else None
    engine = _of_engine(size, k, directions)
    across = 8 * 2 * together * tests * entries  # test with training points, at 0 and at the end
    outputs = 3 * 8 * rows * (entries + tests)  # themselves, less the limit, and in the table
    measures = training.measures
    across_rows = tests + k * _evaluation_points(study) if measures is not None and measures.at_test_points else 0
    kernel = times * entries * (entries + across_rows) * size.itemsize  # along the way, of one seed
    along = _COPIES_ALONG * max(kernel, min(together * kernel, _KEPT_BYTES))
    held = engine + across + outputs + along
    columns, of_runs = _COLUMNS_OF_TRAINING + entries + tests, _MODES * size.seeds * entries
    if training.remove_initial_output:
        held += 3 * 8 * size.seeds * square  # the kernels' changes, and twice more in the table
        of_runs += size.seeds * square
    else:  # covariances over infinitely wide networks, of one output, and what they are made of
        held += 4 * 8 * times * (size.points + size.tests) ** 2
    if measures is not None:
        columns += (measures.eigenvalues or 0) + _COLUMNS_OF_MODES * len(measures.labels) + measures.number_of_couplings
        columns += (2 * measures.profile + k * (3 + measures.regression) * measures.predictions) * (
            _evaluation_points(study) or size.tests
        )
    if training.keep_kernels:
        held += 3 * size.seeds * times * square * size.itemsize  # kept, together, and in the table
        columns += square * size.itemsize // 8
    return held, rows * columns + of_runs


def _of_engine(size: _Size, k: int, directions: float | None) -> float:
    """Bytes that `train` holds of one seed with ``k`` outputs; ``directions`` of a hidden matrix are those revealed in law."""
    drawn, revealed = size.depth, 0.0
    if directions is not None:
        drawn, revealed = 1, _ARRAYS_IN_LAW * (size.depth - 1) * size.width * directions
    vectors = revealed + _VECTORS_OF_FLOW * parameters(size.features, drawn, size.width, k)
    layers = (8 + 4 * k) * size.points * (size.features + size.depth * size.width)  # left by three passes
    kernels = 8 * (20 + 6 * size.depth) * (size.points * k) ** 2  # of layers at 0 and now, and what the flow makes of their sum
    return (vectors + layers) * size.itemsize + kernels


def limit_cost(study: Study, network: str, rates: Rates = NOMINAL) -> Cost:
    """The cost of the infinite-width kernels of a network: some 50 flops for each pair of points and layer."""
    n, tests, depth = study.dataset.train, study.dataset.test, study.networks[network].depth
    seconds = rates.startup_seconds + 2000 * n * (n + tests) * depth / rates.flops["float64"]
    entries = n * (2 * n + tests) + (n * n if depth == 1 else 0)
    return Cost(seconds, _PROCESS_MB + 8 * 4 * entries / 1e6, 0.003 + 8 * entries / 1e6)


def others(study: Study, rates: Rates, figures: int) -> dict[str, float]:
    """Seconds of the jobs beside limits and shards, by kind: processes, rows of tables, statistics of `ensemble`, figures."""
    each = len(study.networks) * len(study.data_sets)
    seeds = study.initial.seeds * len(study.initial.widths) * each
    times = (snapshots(study) + 1) * len(study.training.widths) * each if study.training else 0
    start = rates.startup_seconds
    tables = 1.5 * start + 3e-4 * seeds + 1e-3 * times
    return {"dataset": start, "tables": tables, "figures": (1 + 0.8 * figures) * start, "report": start}


def parameters(features: int, depth: int, width: int, outputs: int = 1) -> float:
    """How many parameters a network has, biases aside."""
    return float(features * width + (depth - 1) * width * width + outputs * width)


def _seconds(study: Study, stage: str, network: str, width: int, seeds: int, d: int, k: int, rates: Rates) -> float:
    """``d`` features, and ``k`` outputs in training; at initialisation one is looked at."""
    if stage == "initial":
        own = _seconds_of_initial(study, network, width, d, rates) + _seconds_of_first_step(study, network, width, d, rates)
        return rates.startup_seconds + seeds * own
    return rates.startup_seconds + seeds * _seconds_of_training(study, network, width, d, k, rates)


def _seconds_of_initial(study: Study, network: str, width: int, d: int, rates: Rates) -> float:
    if study.initial.sampling == "conditional":
        return _seconds_in_law(study, network, width, d, rates)
    depth, n, count = study.networks[network].depth, study.dataset.train, parameters(d, 1, width)
    hidden = (depth - 1) * width * width
    flops = 4.0 * n * (count + hidden) + 4.0 * n * n * width * depth
    draws = 2 * count + hidden * (2 - 1 / max(1, depth - 1))  # the last hidden layer is drawn once, others twice
    return flops / rates.flops[study.precision] + draws / rates.draws[study.precision] + 3 * _eigen(n, rates)


def _seconds_in_law(study: Study, network: str, width: int, d: int, rates: Rates) -> float:
    """Of a network at initialisation without its weights: normals of points in place of neurons, twice, and sums over neurons."""
    depth, n = study.networks[network].depth, study.dataset.train
    inputs = min(n, d) * width  # normals of the first layer, which has no way back
    pairs = 2.0 * (depth - 1) * min(n * width, width * width / 2)  # and of every other layer, one way and back
    flops = n * n * width * (_FLOPS_IN_LAW[0] + _FLOPS_IN_LAW[1] * (depth - 1))
    return flops / rates.flops[study.precision] + 2 * (inputs + pairs) / rates.draws[study.precision] + 3 * _eigen(n, rates)


def _seconds_of_first_step(study: Study, network: str, width: int, d: int, rates: Rates) -> float:
    """Of one step of descent of one output, and a look at the kernel before and after it; 0 where none is asked for."""
    if study.initial.first_step is None:
        return 0.0
    depth, n = study.networks[network].depth, study.dataset.train
    directions = _directions_of_step(study, n, width)
    count, own = _applied(study, depth, width, d, 1, directions, 3.0, rates)
    if directions is None:  # train draws the weights anew
        own += count / rates.draws[study.precision]
    speed, kernel = rates.training_flops[study.precision], 4.0 * n * n * width * depth
    step = 6.0 * n * count / speed + 0.1 * rates.pass_seconds
    return own + step + 2 * ((6.0 * n * count + kernel) / speed + rates.pass_seconds)


def _directions_of_step(study: Study, n: int, width: int) -> float | None:
    """Of a hidden matrix in the first step of descent in law; None where its weights are drawn."""
    if study.initial.sampling != "conditional":
        return None
    return float(n if n < width / 3 else width)


def _applied(
    study: Study, depth: int, width: int, d: int, k: int, directions: float | None, passes: float, rates: Rates
) -> tuple[float, float]:
    """Numbers that a pass applies to a point, and the seconds that networks in law take beside.

    In law a pass applies a basis and normals each way in place of a matrix; each direction is made orthogonal to all others.
    """
    if directions is None:
        return parameters(d, depth, width, k), 0.0
    count = parameters(d, 1, width, k) + 2.0 * (depth - 1) * width * directions
    drawn = 2.0 * (depth - 1) * width * directions * passes
    orthogonal = 8.0 * (depth - 1) * width * directions**2
    return count, orthogonal / rates.training_flops[study.precision] + drawn / rates.draws[study.precision]


def _directions(study: Study, network: str, width: int, entries: int, features: int) -> float:
    """Of a hidden matrix of a network in law in training on so many outputs, on either side.

    Every pass asks for those of the training points, and every look for those of the points that are only looked at.
    """
    assert study.training is not None
    flows = study.training.method == "gradient_flow"
    of = study, network, width, features
    each = max(_LEAST_IN_LAW, 6.0 + passes_of_flow(*of)) if flows else passes_of_training(*of)
    measures = study.training.measures
    seen = study.dataset.test + (_evaluation_points(study) if measures is not None and measures.at_test_points else 0)
    looks = min(study.training.looks + 1, _LOOKS_IN_LAW)
    finer = 1e-6 / study.training.chosen(study.precision)["rank_tolerance"]
    asked = (each + looks * seen / study.dataset.train) * entries * finer**_FINER
    return asked if asked < width / 3 else width  # beyond, all are drawn at once


def _seconds_of_training(study: Study, network: str, width: int, d: int, k: int, rates: Rates) -> float:
    assert study.training is not None
    n, depth = study.dataset.train, study.networks[network].depth
    kernel = 4.0 * (k * n) ** 2 * width * depth
    speed = rates.training_flops[study.precision]
    schedule, looks, seconds = study.training.filled, 5.0 + snapshots(study), _seconds_of_measures(study, n, k, rates)
    directions, passes = None, passes_of_training(study, network, width, d)
    if schedule.sampling == "conditional":
        directions = _directions(study, network, width, k * n, d)
    count, in_law = _applied(study, depth, width, d, k, directions, passes, rates)
    seconds += in_law
    if schedule.method == "gradient_descent":
        points = schedule.batch_size or n
        steps = passes * (6.0 * points * count / speed + 0.1 * rates.pass_seconds)
        if schedule.has_linearized and not schedule.has_closed_forms:  # with K_0 and K_inf, step by step
            steps += 2 * passes * (_CONSTANT_KERNEL_STEP * rates.pass_seconds + 2.0 * (k * n) ** 2 / speed)
        return seconds + steps + looks * (((2.0 + 4.0 * k) * n * count + kernel) / speed + rates.pass_seconds)
    return seconds + passes * (((4.0 + 6.0 * k) * n * count + kernel) / speed + rates.pass_seconds + _eigen(k * n, rates))


def _seconds_of_measures(study: Study, n: int, k: int, rates: Rates) -> float:
    """Eigendecompositions of what is measured at every snapshot of a seed."""
    measures = study.training.measures if study.training else None
    if measures is None:
        return 0.0
    solved = bool(measures.eigenvalues) + bool(measures.eigenvectors) + measures.regression
    return (1 + snapshots(study)) * solved * _eigen(k * n, rates)


def _evaluation_points(study: Study) -> int:
    data = study.dataset
    if data.evaluation_file is not None:
        return _rows(data.evaluation_file, "x") or 0
    arrays = data.train_files[0] if data.train_files and data.train_files[0].endswith(".npz") else None
    return data.evaluation or (arrays and _rows(arrays, "x_evaluation")) or 0


def _eigen(n: int, rates: Rates) -> float:
    return rates.eigen_seconds * n**3 + rates.eigen_entry_seconds * n**2


def _features(study: Study) -> int:
    data = study.dataset
    if not data.train_files:
        return FEATURES.get(str(data.name)) or data.features or 2
    table = data.train_files[0].endswith((".csv", ".parquet"))
    return max(1, _columns(data.train_files[0], "x", "x_train") - (len(data.targets) if table else 0))


def _outputs(study: Study) -> int:
    data = study.dataset
    arrays = data.classes is None and data.train_files and data.train_files[-1].endswith((".npz", ".npy"))
    return _columns(data.train_files[-1], "y", "y_train") if arrays else data.outputs


_columns, _rows = cache(columns), cache(rows)
