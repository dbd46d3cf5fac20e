"""CUDA kernels in Numba's simulator, against the CPU: run by `test_cuda.py`, with NUMBA_ENABLE_CUDASIM=1.

There tiles hold 8 x 8 sums, so that these tiny networks cross them.
"""

import dataclasses

import numpy as np
import pytest
from cases import POINTS
from numba import cuda
from tolerances import assert_close

import ntksim
from ntksim.engine import kernels_cpu, networks_cuda
from ntksim.engine.empirical import compiled_network
from ntksim.engine.layout import parameter_offsets, stored_weights
from ntksim.engine.network import ACTIVATIONS

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
DTYPES = tuple(TOLERANCE)
SEEDS = [3, 2**40 + 5, 7]
NETWORK = ntksim.Network(2, (6, 11), "relu", sigma_w=1.3, sigma_b=0.4, output_bias=True)


def layer_by_layer(monkeypatch, panels=False):
    """Small networks too go through the kernels of large ones; ``panels`` of eight rows rather than weights drawn in products."""
    monkeypatch.setattr(networks_cuda, "SMALL_WIDTH", 0)
    monkeypatch.setattr(networks_cuda, "_needs_panels", lambda points, kind: panels)
    monkeypatch.setattr(networks_cuda, "_panel_rows", lambda length: 8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sigma_b", [None, 0.4])
def test_parameters_have_the_bits_of_the_cpu(dtype, sigma_b):
    net = compiled_network(dataclasses.replace(NETWORK, sigma_b=sigma_b, output_bias=sigma_b is not None), 3)
    seeds = np.array(SEEDS, np.uint64)
    theta = networks_cuda.zeros((len(SEEDS), int(parameter_offsets(net)[-1])), dtype)
    networks_cuda.draw_parameters(net, cuda.to_device(seeds), theta, len(SEEDS))
    for seed, drawn in zip(seeds, theta.copy_to_host(), strict=True):
        expected = np.empty(drawn.size, dtype)
        kernels_cpu.draw_into(seed, net, stored_weights(net, expected))
        assert drawn.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("regime", "dtype"), [("block", "float32"), ("block", "float64"), ("drawn", "float32"), ("panels", "float64")]
)
def test_outputs_and_kernels(regime, dtype, monkeypatch):
    if regime != "block":
        layer_by_layer(monkeypatch, panels=regime == "panels")
    other = POINTS[:2] + 0.5
    for seeds, arguments in ((SEEDS[:2], (POINTS,)), (SEEDS[:1], (POINTS, other))):
        compute = [ntksim.empirical_ntk] if len(arguments) == 2 else [ntksim.empirical_ntk, ntksim.network_outputs]
        for function in compute:
            found, expected = (
                function(NETWORK, *arguments, seeds=seeds, dtype=dtype, device=device) for device in ("cuda", "cpu")
            )
            assert found.dtype == expected.dtype
            assert_close(found, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation):
    network = dataclasses.replace(NETWORK, activation=activation)
    for dtype in DTYPES:
        found, expected = (
            ntksim.empirical_ntk(network, POINTS[:2], seeds=[1], dtype=dtype, device=device) for device in ("cuda", "cpu")
        )
        assert_close(found, expected, TOLERANCE[dtype])


def test_activations_layer_by_layer(monkeypatch):
    layer_by_layer(monkeypatch)
    network = ntksim.Network(1, 5, "gelu")
    found, expected = (ntksim.empirical_ntk(network, POINTS[:2], seeds=[1], device=device) for device in ("cuda", "cpu"))
    assert_close(found, expected, TOLERANCE["float64"])


@pytest.mark.parametrize("layers", [False, True])
def test_batches_halve_until_they_fit_and_change_no_bit(monkeypatch, layers):
    if layers:
        layer_by_layer(monkeypatch)
    network, seeds = ntksim.Network(1, 5), range(5)
    whole = ntksim.empirical_ntk(network, POINTS[:2], seeds=seeds, device="cuda")
    asked = []

    def allocate(shape, kind):
        asked.append(shape[0])
        if shape[0] > 2 and shape != (5, 4):  # the results are five
            raise RuntimeError("[CUresult.CUDA_ERROR_OUT_OF_MEMORY] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY")
        return cuda.device_array(shape, kind)

    monkeypatch.setattr(networks_cuda, "allocate", allocate)
    parts = ntksim.empirical_ntk(network, POINTS[:2], seeds=seeds, device="cuda")
    assert {5, 3, 2} <= set(asked)
    assert parts.tobytes() == whole.tobytes()
    monkeypatch.setattr(networks_cuda, "allocate", lambda shape, kind: allocate((9, *shape), kind))
    with pytest.raises(MemoryError, match="do not fit in the GPU's memory"):
        ntksim.empirical_ntk(network, POINTS[:2], seeds=seeds, device="cuda")


def test_every_visible_gpu_has_seeds(monkeypatch):
    network, used = ntksim.Network(1, 5), []
    expected = ntksim.network_outputs(network, POINTS[:2], seeds=SEEDS, device="cuda")

    class Gpu:
        def __init__(self, number):
            self.number = number

        def __enter__(self):
            used.append(self.number)

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(cuda, "gpus", [Gpu(0), Gpu(1)])
    assert ntksim.network_outputs(network, POINTS[:2], seeds=SEEDS, device="cuda").tobytes() == expected.tobytes()
    assert used == [0, 1, 0, 1]


def test_large_products_go_to_the_library(monkeypatch):
    """cuBLAS's part is played by NumPy: addresses, strides and transpositions are looked at, in all places that there are."""
    import ctypes

    def gemm(handle, flip_a, flip_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc):
        def matrix(address, rows, columns, gap):  # stored by columns
            flat = (ctypes.c_double * (gap * (columns - 1) + rows)).from_address(address)
            return np.lib.stride_tricks.as_strided(np.frombuffer(flat), (rows, columns), (8, 8 * gap))

        left = matrix(a, k, m, lda).T if flip_a else matrix(a, m, k, lda)
        right = matrix(b, n, k, ldb).T if flip_b else matrix(b, k, n, ldb)
        factors = [ctypes.c_double.from_address(address).value for address in (alpha, beta)]
        out = matrix(c, m, n, ldc)
        out[:] = factors[0] * left @ right + (factors[1] * out if factors[1] else 0)
        calls.append((flip_a, flip_b, factors[1]))

    class Cupy:
        class cuda:
            class cublas:
                dgemm = staticmethod(gemm)

            class device:
                get_cublas_handle = staticmethod(int)

    calls: list[tuple[int, int, float]] = []
    layer_by_layer(monkeypatch, panels=True)
    monkeypatch.setattr(networks_cuda, "cupy", Cupy)
    monkeypatch.setattr(networks_cuda, "_LARGE", 1)
    monkeypatch.setattr(networks_cuda, "_address", lambda array: array._ary.ctypes.data)
    found, expected = (ntksim.empirical_ntk(NETWORK, POINTS, seeds=[3], device=device) for device in ("cuda", "cpu"))
    assert_close(found, expected, TOLERANCE["float64"])
    assert {(0, 0, 0.0), (0, 1, 0.0), (0, 1, 1.0)} <= set(calls)


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("float64", {"method": "gradient_descent", "times": [0, 0.03, 0.06], "learning_rate": 0.03, "layer_rates": [1, 2, 0.5]}),
        ("float64", {"method": "gradient_descent", "steps": 2, "momentum": 0.5, "nesterov": True}),
        ("float32", {"method": "gradient_descent", "steps": 2, "momentum": 0.5, "batch_size": 2, "learning_rate": 0.02}),
        ("float64", {"method": "gradient_flow", "times": [0, 0.05], "tolerance": 0.05, "remove_initial_output": True}),
    ],
    ids=["descent", "nesterov", "batches", "flow"],
)
def test_training(dtype, options):
    x, y, tests = POINTS[:3], np.array([1.0, -1.0, 0.5]), POINTS[3:]
    network = ntksim.Network(2, (5, 9), "tanh", sigma_b=0.3, output_bias=True)
    found, expected = (
        ntksim.train(network, x, y, seeds=[4], x_test=tests, dtype=dtype, device=device, **options) for device in ("cuda", "cpu")
    )
    assert found.status == expected.status == ("finished",)
    assert found.evaluations == expected.evaluations
    # Movements are differences of numbers that were rounded apart: relative to what they are taken of.
    kernels, drifts = ("kernel", "test_kernel"), ("kernel_drift", "parameter_drift", "layer_drift", "feature_drift")
    for name in ("outputs", "test_outputs", "loss", *kernels, *drifts):
        assert_close(getattr(found, name), getattr(expected, name), 20 * TOLERANCE[dtype])
    assert found.gates_flipped.tobytes() == expected.gates_flipped.tobytes()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of overflow, which Python's threads play with NumPy's numbers
def test_descent_that_diverges():
    network, options = ntksim.Network(1, 4, "linear"), {"method": "gradient_descent", "times": [0, 4e20], "learning_rate": 1e20}
    with pytest.warns(RuntimeWarning, match="expected to diverge"):
        found, expected = (
            ntksim.train(network, POINTS[:2], [1.0, 2.0], seeds=[1], dtype="float32", device=device, **options)
            for device in ("cuda", "cpu")
        )
    assert found.status == expected.status == ("diverged",)
    assert found.evaluations == expected.evaluations


def test_shards_of_a_study_name_the_device(tmp_path):
    from ntksim.study import datasets, stages
    from ntksim.study.config import Dataset, Training
    from ntksim.study.storage import read_arrow
    from ntksim.study.training_shards import training_shard

    network, data, limit = ntksim.Network(1, 4), tmp_path / "dataset.npz", tmp_path / "limit.npz"
    datasets.write(data, datasets.load(Dataset(name="circle", train=3, test=2)))
    stages.limit(data, network, limit)
    schedule = Training(
        method="gradient_descent", widths=[4], seeds=2, relative_time=1.0, relative_learning_rate=0.5, snapshots=1
    ).schedule
    for device in ("cuda", "cpu"):
        stages.initial_shard(data, limit, network, range(2), "float64", tmp_path / f"initial-{device}", device)
        training_shard(data, limit, network, range(1), "float64", tmp_path / f"training-{device}", schedule, None, device)
    for stage in ("initial", "training"):
        (found, there), (expected, here) = (read_arrow(tmp_path / f"{stage}-{device}") for device in ("cuda", "cpu"))
        assert there["provenance"]["device"] == "cuda (simulator)"
        assert here["provenance"]["device"].startswith("cpu (")
        assert there["identity"] == here["identity"]
        column = {"initial": "trace", "training": "loss"}[stage]
        assert_close(found[column].to_numpy(), expected[column].to_numpy(), TOLERANCE["float64"])
