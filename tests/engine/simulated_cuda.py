"""CUDA kernels in Numba's simulator, against the CPU: run by `test_cuda.py`, with NUMBA_ENABLE_CUDASIM=1.

There tiles hold 4 x 4 sums, so that these tiny networks cross them.
"""

import dataclasses
import itertools
import types
from collections.abc import Iterator
from contextlib import nullcontext

import gpu
import greenlet
import numba
import numpy as np
import ptx
import pytest
from cases import ACTIVATION_CASES, POINTS
from numba import cuda
from numba.cuda.simulator import kernel as simulator
from numba.cuda.simulator import kernelapi
from tolerances import assert_close

import ntksim
from ntksim.engine.activation import name_of
from ntksim.engine.conditional import networks
from ntksim.engine.conditional import triangular as cpu_triangular
from ntksim.engine.conditional.layout import COLUMNS, CONDITIONED, CUT, ROWS
from ntksim.engine.cpu import draws
from ntksim.engine.cpu.compiled_network import columns_of, compiled_network
from ntksim.engine.cpu.machine import CpuMachine
from ntksim.engine.cuda import conditional, library, triangular
from ntksim.engine.cuda import kernels as cuda_kernels
from ntksim.engine.cuda import launch as cuda_launch
from ntksim.engine.cuda import passes as cuda_passes
from ntksim.engine.cuda import product as cuda_product
from ntksim.engine.cuda import seeds as cuda_seeds
from ntksim.engine.cuda.machine import CudaMachine
from ntksim.engine.layout import parameter_offsets, stored_weights
from ntksim.engine.machine import Task
from ntksim.engine.training import checkpoints


class Thread(greenlet.greenlet):
    """A thread of a block. It runs until it ends or waits for the others."""

    def __init__(self, run, block, place):
        super().__init__(run)
        self.blockIdx, self.threadIdx = kernelapi.Dim3(*block), kernelapi.Dim3(*place)

    def syncthreads(self):
        self.parent.switch()


ORDERS: dict[object, Iterator[int]] = {}  # of a kernel's blocks


def run_block(block, place, *arguments):
    """A block, its threads in turn: the simulator's own are of the operating system, and take several times as long.

    The order is reversed at every barrier, and from one block of a kernel to the next, so that what lacks a barrier fails.
    """
    order = next(ORDERS.setdefault(block._f, itertools.cycle((1, -1))))
    threads = [Thread(block._f, place, of_thread) for of_thread in np.ndindex(*block._block_dim)][::order]
    first = arguments  # which a thread takes when it begins
    while threads:
        for thread in threads:
            thread.switch(*first)
        waiting = [thread for thread in threads if not thread.dead]
        assert len(waiting) in (0, len(threads)), "some threads have ended, and others wait for them"
        threads, first = waiting[::-1], ()


simulator.BlockManager.run = run_block
kernelapi.threading = types.SimpleNamespace(current_thread=greenlet.getcurrent)

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
DTYPES = tuple(TOLERANCE)
SEEDS = [3, 2**40 + 5, 7]


@pytest.fixture(autouse=True)
def types_as_compiled(monkeypatch):
    """Every launch has the types for which `test_cuda.py` compiles its kernel."""
    launch = simulator.FakeCUDAKernel.__call__
    known = [{kernel.fn.__name__: types for kernel, types in ptx.signatures(real).items()} for real in ptx.REALS]

    def checked(kernel, *arguments):
        if not kernel._device:
            given = tuple(numba.typeof(getattr(argument, "_ary", argument)) for argument in arguments)
            assert given in [signatures[kernel.fn.__name__] for signatures in known], kernel.fn.__name__
        return launch(kernel, *arguments)

    monkeypatch.setattr(simulator.FakeCUDAKernel, "__call__", checked)


NETWORK = ntksim.Network(2, (6, 11), "relu", sigma_w=1.3, sigma_b=0.4, output_bias=True)


def layer_by_layer(monkeypatch, panels=False):
    """Small networks too go through the kernels of large ones, and cross pieces of sums; with ``panels`` of 8 x 8 weights."""
    monkeypatch.setattr(cuda_seeds, "SMALL_WIDTH", 0)
    for module in (cuda_passes, cuda_product, library):
        monkeypatch.setattr(module, "PIECE", 8)
    monkeypatch.setattr(cuda_kernels, "GRAM_TERMS", 8)
    if panels:
        fitting = cuda_seeds._fitting
        monkeypatch.setattr(cuda_seeds, "_fitting", lambda *arguments: (fitting(*arguments)[0], False))
        monkeypatch.setattr(cuda_passes, "_PANEL", 8 * 64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sigma_b", [None, 0.4])
def test_parameters_have_the_bits_of_the_cpu(dtype, sigma_b):
    net = compiled_network(dataclasses.replace(NETWORK, sigma_b=sigma_b, output_bias=sigma_b is not None), 3)
    seeds = np.array(SEEDS, np.uint64)
    theta = cuda_passes.zeros((len(SEEDS), int(parameter_offsets(net)[-1])), dtype)
    cuda_passes.draw_parameters(net, cuda.to_device(seeds), theta, len(SEEDS))
    for seed, drawn in zip(seeds, theta.copy_to_host(), strict=True):
        expected = np.empty(drawn.size, dtype)
        draws.draw_into(seed, net, stored_weights(net, expected))
        assert drawn.tobytes() == expected.tobytes()


@pytest.mark.parametrize("initialiser", ["torch", "flax", "kaiming_normal"])
def test_parameters_of_other_initialisers_have_the_bits_of_the_cpu(initialiser):
    """In launches of their own, and in the one of a small network."""
    own = {"parameterization": "standard", "initialiser": initialiser, "sigma_b": 1.0 if initialiser == "torch" else 0.0}
    network = dataclasses.replace(NETWORK, **own)
    net, seeds = compiled_network(network, 3), np.array(SEEDS, np.uint64)
    theta = cuda_passes.zeros((len(SEEDS), int(parameter_offsets(net)[-1])), "float32")
    cuda_passes.draw_parameters(net, cuda.to_device(seeds), theta, len(SEEDS))
    for seed, drawn in zip(seeds, theta.copy_to_host(), strict=True):
        expected = np.empty(drawn.size, "float32")
        draws.draw_into(seed, net, stored_weights(net, expected))
        assert drawn.tobytes() == expected.tobytes()
    found, expected = (ntksim.empirical_ntk(network, POINTS, seeds=SEEDS[:1], device=device) for device in ("cuda", "cpu"))
    assert_close(found, expected, TOLERANCE["float64"])


@pytest.mark.parametrize(
    ("regime", "dtype"), [("block", "float32"), ("block", "float64"), ("kept", "float32"), ("panels", "float64")]
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


def test_weights_in_panels_change_no_bit(monkeypatch):
    with monkeypatch.context() as patched:
        layer_by_layer(patched)
        kept = ntksim.empirical_ntk(NETWORK, POINTS[:2], seeds=[3], device="cuda")
    layer_by_layer(monkeypatch, panels=True)
    drawn = []
    draw = cuda_passes.draw_matrix
    monkeypatch.setattr(cuda_passes, "draw_matrix", lambda *arguments: (drawn.append(arguments[3]), draw(*arguments)))
    assert ntksim.empirical_ntk(NETWORK, POINTS[:2], seeds=[3], device="cuda").tobytes() == kept.tobytes()
    # 6 x 3 forward, 11 x 6 both ways
    assert [(w.row, w.rows, w.cols) for w in drawn] == [(0, 6, 3), (0, 8, 6), (8, 3, 6), (0, 8, 6), (8, 3, 6)]


def test_tiles_of_a_gpu(monkeypatch):
    """Tiles as large as on a GPU; their ends lie inside, at and beyond those of matrices."""
    tile, depth, sums = cuda_product.GPU_TILE
    lanes, stride = tile // sums, tile + 4
    constants = {
        "TILE": tile, "DEPTH": depth, "SUMS": sums, "LANES": lanes, "TILE_THREADS": lanes**2, "_VECTOR": 4, "_STRIDE": stride,
        "_SIZE": depth * stride,
    }  # fmt: skip
    for name, value in constants.items():
        monkeypatch.setattr(cuda_product, name, value)
    random = np.random.default_rng(0)
    rows, cols, terms = 70, 64, 20
    for flip_b, flip_v in ((False, True), (True, False)):
        b, v = random.normal(size=(terms, rows)), random.normal(size=(terms, cols))
        arrays = [np.ascontiguousarray(array.T if flip else array) for array, flip in ((b, flip_b), (v, flip_v))]
        places = [(0, 1, terms) if flip else (0, size, 1) for flip, size in ((flip_b, rows), (flip_v, cols))]
        there = [cuda.to_device(array.reshape(1, -1)) for array in arrays]
        c = cuda_passes.zeros((1, rows * cols), np.float64)
        library.multiply(there[0], places[0], there[1], places[1], c, (0, cols), (rows, cols, terms), True)
        assert_close(c.copy_to_host().reshape(rows, cols), b.T @ v, 1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
def test_several_outputs(dtype):
    network, other = dataclasses.replace(NETWORK, outputs=3), POINTS[:2] + 0.5
    for form, arguments in (("full", (POINTS[:3],)), ("diagonal", (POINTS[:3], other)), ("full", (POINTS[:1], other))):
        found, expected = (
            ntksim.empirical_ntk(network, *arguments, seeds=[3], form=form, dtype=dtype, device=device)
            for device in ("cuda", "cpu")
        )
        assert_close(found, expected, TOLERANCE[dtype])
        if len(arguments) == 1:
            matrix = found[0].reshape(9, 9)
            assert matrix.tobytes() == matrix.T.copy().tobytes()
    found, expected = (
        ntksim.network_outputs(network, POINTS, seeds=SEEDS[:2], dtype=dtype, device=device) for device in ("cuda", "cpu")
    )
    assert_close(found, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("kept", [True, False])
def test_a_trace_of_a_few_outputs_at_a_time(kept, monkeypatch):
    """Parameters kept or drawn: each group draws its own rows of the readout. 5 outputs leave one alone, a small network's."""
    monkeypatch.setattr("ntksim.engine.finite.empirical._FEW", 2)
    monkeypatch.setattr("ntksim.engine.finite.empirical._TRACED", 1)
    fitting = cuda_seeds._fitting
    monkeypatch.setattr(cuda_seeds, "_fitting", lambda *arguments: (fitting(*arguments)[0], kept))
    network = dataclasses.replace(NETWORK, outputs=5)
    for points in ((POINTS[:3],), (POINTS[:1], POINTS[1:3])):
        found, expected = (
            ntksim.empirical_ntk(network, *points, seeds=[3, 4], form="trace", device=device) for device in ("cuda", "cpu")
        )
        assert_close(found, expected, TOLERANCE["float64"])


@pytest.mark.parametrize("activation", ACTIVATION_CASES, ids=name_of)
def test_activations(activation):
    network = dataclasses.replace(NETWORK, activation=activation, sigma_w=0.8)
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

    for module in (cuda_passes, cuda_seeds):
        monkeypatch.setattr(module, "allocate", allocate)
    parts = ntksim.empirical_ntk(network, POINTS[:2], seeds=seeds, device="cuda")
    assert {5, 3, 2} <= set(asked)
    assert parts.tobytes() == whole.tobytes()
    for module in (cuda_passes, cuda_seeds):
        monkeypatch.setattr(module, "allocate", lambda shape, kind: allocate((9, *shape), kind))
    with pytest.raises(MemoryError, match="do not fit in the GPU's memory"):
        ntksim.empirical_ntk(network, POINTS[:2], seeds=seeds, device="cuda")


def test_results_that_memory_does_not_hold_come_in_parts(monkeypatch):
    network, seeds, copies = ntksim.Network(1, 5), range(5), []
    whole = ntksim.empirical_ntk(network, POINTS[:2], seeds=seeds, device="cuda")
    evaluate = cuda_seeds._evaluate
    monkeypatch.setattr(cuda_seeds, "_RESULTS", -1.0)  # the simulator's memory is infinite
    monkeypatch.setattr(cuda_seeds, "_evaluate", lambda *arguments: (copies.append(arguments[3]), evaluate(*arguments))[1])
    assert ntksim.empirical_ntk(network, POINTS[:2], seeds=seeds, device="cuda").tobytes() == whole.tobytes()
    assert [some.tolist() for some in copies] == [[0], [1], [2], [3], [4]]


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

    def in_turn(count, pool, work):  # the simulator's threads belong to one GPU
        assert pool(0) is pool(0) is not pool(1)
        return [work(number) for number in range(count)]

    monkeypatch.setattr(cuda_launch, "together", in_turn)
    monkeypatch.setattr(cuda, "gpus", [Gpu(0), Gpu(1)])
    assert ntksim.network_outputs(network, POINTS[:2], seeds=SEEDS, device="cuda").tobytes() == expected.tobytes()
    options = {"seeds": SEEDS, "method": "gradient_descent", "steps": 1, "learning_rate": 0.1}
    both = ntksim.train(network, POINTS[:2], [1.0, 2.0], device="cuda", **options)
    assert used == [0, 1, 0, 1]
    assert_close(both.outputs, ntksim.train(network, POINTS[:2], [1.0, 2.0], **options).outputs, 1e-12)


def test_large_products_go_to_the_library(monkeypatch):
    """cuBLAS's part is played by NumPy: addresses, strides and transpositions are looked at, in all places that there are."""
    import ctypes

    def gemm(handle, flip_a, flip_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc):
        def matrix(address, rows, columns, gap):  # stored by columns
            assert gap >= rows
            flat = (ctypes.c_double * (gap * (columns - 1) + rows)).from_address(address)
            return np.lib.stride_tricks.as_strided(np.frombuffer(flat), (rows, columns), (8, 8 * gap))

        left = matrix(a, k, m, lda).T if flip_a else matrix(a, m, k, lda)
        right = matrix(b, n, k, ldb).T if flip_b else matrix(b, k, n, ldb)
        factors = [ctypes.c_double.from_address(address).value for address in (alpha, beta)]
        out = matrix(c, m, n, ldc)
        out[:] = factors[0] * left @ right + (factors[1] * out if factors[1] else 0)
        calls.append((flip_a, flip_b, factors[1]))

    class Cublas:
        dgemm = staticmethod(gemm)

    class Device:
        get_cublas_handle = staticmethod(int)

    class Stream:
        null = nullcontext()

    calls: list[tuple[int, int, float]] = []
    layer_by_layer(monkeypatch, panels=True)
    monkeypatch.setattr(library, "cublas", Cublas)
    monkeypatch.setattr(library, "device", Device, raising=False)
    monkeypatch.setattr(library, "Stream", Stream, raising=False)
    monkeypatch.setattr(library, "_LARGE", 1)
    monkeypatch.setattr(library, "_address", lambda array: array._ary.ctypes.data)
    thin = ntksim.Network(3, (1, 9, 4), "tanh", sigma_b=0.2)  # panels of one column and of one row
    for network, points in ((NETWORK, POINTS), (NETWORK, POINTS[:1]), (thin, POINTS), (thin, POINTS[:1])):
        calls.clear()
        found, expected = (ntksim.empirical_ntk(network, points, seeds=[3], device=device) for device in ("cuda", "cpu"))
        assert_close(found, expected, TOLERANCE["float64"])
        assert {0.0, 1.0} <= {call[2] for call in calls}
        if len(points) > 1 and network is NETWORK:
            assert {(0, 0, 0.0), (0, 1, 0.0), (0, 1, 1.0)} <= set(calls)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_pieces_of_sums_by_blocks_of_their_own_change_no_bit(monkeypatch, first, dtype):
    for module in (cuda_product, library):
        monkeypatch.setattr(module, "PIECE", 8)
    random, shape = np.random.default_rng(0), (5, 3, 27)
    b, v, before = (random.normal(size=(2, size)).astype(dtype) for size in (5 * 27, 3 * 27, 20))
    found, launched = {}, []
    add = cuda_product.add_pieces
    for enough in (1, 99):
        monkeypatch.setattr(library, "_ENOUGH", enough)
        c = cuda.to_device(before)
        monkeypatch.setattr(cuda_product, "add_pieces", Counted(add, launched))
        places = (0, 5, 1), cuda.to_device(v), (0, 3, 1), c, (2, 3)
        library.multiply(cuda.to_device(b), *places, shape, first, 2, library.Scratch())
        found[enough] = c.copy_to_host()
    assert len(launched) == 1
    assert found[1].tobytes() == found[99].tobytes()
    product = np.einsum("nka,nkl->nal", b.reshape(2, 27, 5), v.reshape(2, 27, 3)).reshape(2, -1)
    expected = before.astype("float64")
    expected[:, 2:17] = product + (0 if first else before[:, 2:17])
    assert_close(found[1], expected, TOLERANCE[dtype])


def test_pieces_stay_within_a_launch(monkeypatch):
    monkeypatch.setattr(cuda_product, "TILE", 64)
    shape = (64, 16, 100_000)
    assert library.pieces(shape, 300) == 196
    assert library.pieces(shape, 400) == 1  # 78,400 blocks in the third dimension
    assert library.pieces((64 * 512, 16, 100_000), 1) == 1
    assert library.tiles(64, 5_000_000, 3)[0] == (78_125, 1, 3)  # more columns than the second dimension has blocks


def test_products_are_not_split_where_memory_is_short(monkeypatch):
    for module in (cuda_product, library):
        monkeypatch.setattr(module, "PIECE", 8)
    random, shape = np.random.default_rng(0), (5, 3, 27)
    b, v = (random.normal(size=(1, size)) for size in (5 * 27, 3 * 27))

    def product():
        c = cuda_passes.zeros((1, 15), np.float64)
        library.multiply(cuda.to_device(b), (0, 5, 1), cuda.to_device(v), (0, 3, 1), c, (0, 3), shape, True, 1, library.Scratch())
        return c.copy_to_host().tobytes()

    def refuse(shape, kind):
        asked.append(shape)
        raise MemoryError

    asked, split = [], product()
    monkeypatch.setattr(library, "allocate", refuse)
    assert product() == split
    assert asked == [(1, 60)]


class Counted:
    """A kernel whose launches are counted."""

    def __init__(self, kernel, launched):
        self.kernel, self.launched = kernel, launched

    def __getitem__(self, configuration):
        self.launched.append(configuration)
        return self.kernel[configuration]


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("float64", {"method": "gradient_descent", "times": [0, 0.03, 0.06], "learning_rate": 0.03, "layer_rates": [1, 2, 0.5]}),
        ("float64", {"method": "gradient_descent", "steps": 2, "momentum": 0.5, "nesterov": True, "layer_rates": [0, 1, 2]}),
        ("float32", {"method": "gradient_descent", "steps": 2, "momentum": 0.5, "batch_size": 2, "learning_rate": 0.02}),
        ("float64", {"method": "gradient_flow", "times": [0, 0.05], "tolerance": 0.05, "remove_initial_output": True}),
        ("float64", {"method": "gradient_flow", "times": [0, 0.05], "tolerance": 0.05, "layer_rates": [2, 0.5, 0]}),
    ],
    ids=["descent", "nesterov", "batches", "flow", "rated flow"],
)
@pytest.mark.parametrize("outputs", [1, 2])
def test_training(dtype, options, outputs):
    x, y, tests = POINTS[:3], np.array([1.0, -1.0, 0.5]), POINTS[3:]
    if outputs > 1:
        y = np.stack([y, -(y**2)], axis=1)
    network = ntksim.Network(2, (5, 9), "tanh", sigma_b=0.3, output_bias=True, outputs=outputs)
    found, expected = (
        ntksim.train(network, x, y, seeds=[4], x_test=tests, dtype=dtype, device=device, **options) for device in ("cuda", "cpu")
    )
    assert found.status == expected.status == ("finished",)
    assert found.evaluations == expected.evaluations
    # Movements are differences of numbers that were rounded apart: relative to what they are taken of.
    kernels, drifts = ("kernel", "test_kernels"), ("kernel_drift", "parameter_drift", "layer_drift", "feature_drift")
    drifts += ("layer_kernel_drift",)
    for name in ("outputs", "test_outputs", "loss", *kernels, *drifts):
        assert_close(getattr(found, name), getattr(expected, name), 20 * TOLERANCE[dtype])
    assert found.gates_flipped.tobytes() == expected.gates_flipped.tobytes()


def test_training_goes_on_from_a_checkpoint(tmp_path, monkeypatch):
    network, options = ntksim.Network(1, 4, "tanh"), {"seeds": [1, 2], "device": "cuda"}
    options |= {"method": "gradient_descent", "times": [0, 0.1, 0.2], "learning_rate": 0.1, "momentum": 0.5}
    undisturbed = ntksim.train(network, POINTS[:2], [1.0, 2.0], **options)
    written, write = [], checkpoints.write

    def killed(path, arrays):
        done = write(path, arrays)
        written.append(path)
        if len(written) == 3:
            raise KeyboardInterrupt
        return done

    options |= {"checkpoint": tmp_path, "checkpoint_interval": 0}
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            ntksim.train(network, POINTS[:2], [1.0, 2.0], **options)
    found = ntksim.train(network, POINTS[:2], [1.0, 2.0], **options)
    for field in ("outputs", "kernel", "parameter_drift", "gates_flipped", "evaluations"):
        assert getattr(found, field).tobytes() == getattr(undisturbed, field).tobytes()


def test_a_network_seen_from_inside():
    """What a flow asks for that holds gates: open gates, the network on training and on test points, and a shift of weights."""
    network = ntksim.Network(2, (5, 9), "leaky_relu", sigma_b=0.3, output_bias=True, outputs=2)
    kind = np.dtype(np.float64)
    found = []
    for machine, place in ((CpuMachine, "cpu"), (CudaMachine, "cuda")):
        points = [columns_of(*pair, kind, place) for pair in ((POINTS[:3], None), (POINTS[3:], None), (POINTS[3:], POINTS[:3]))]
        net = compiled_network(network, POINTS.shape[1])
        own = machine(1, np.uint64(4), Task(net, points[0], np.zeros(6), *points[1:], False))
        theta, room = own.draw(), own.make_room()
        own.evaluate(theta, room)
        inside = own.inside(theta, room), own.inside_at_tests(theta)
        seen = [np.array(array) for view in inside for arrays in view for array in arrays]
        own.shift(theta, [np.ones((5, POINTS.shape[1])), np.empty(0)], [np.empty(0), np.ones(9)])
        found.append([own.open_gates(room), *seen, own.test_outputs(theta)])
    for gpu_own, cpu_own in zip(*found, strict=True):
        assert_close(gpu_own, cpu_own, TOLERANCE["float64"])


# One hidden layer in float32 is left out: the CPU's one sweep a step adds it up in float32, and overflows a step earlier.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of overflow, which Python's threads play with NumPy's numbers
@pytest.mark.parametrize(("depth", "dtype"), [(1, "float64"), (2, "float32"), (2, "float64")])
def test_descent_that_diverges(depth, dtype):
    network = ntksim.Network(depth, 4, "linear")
    options = {"method": "gradient_descent", "times": [0, 4e20], "learning_rate": 1e20, "dtype": dtype}
    with pytest.warns(RuntimeWarning, match="expected to diverge"):
        found, expected = (
            ntksim.train(network, POINTS[:2], [1.0, 2.0], seeds=[1], device=device, **options) for device in ("cuda", "cpu")
        )
    assert found.status == expected.status == ("diverged",)
    assert found.evaluations == expected.evaluations


# --- networks in law --------------------------------------------------------------------------------------------------


@numba.njit
def factors(gram, cut, r, inverse):
    """The processor's R and R^+."""
    cpu_triangular.factorise(gram, cut, r)
    cpu_triangular.invert(r, inverse)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of infinities
def test_triangular_factors_have_the_bits_of_the_cpu():
    """Of Gram matrices of full rank, of points that add no direction, and of numbers that are not finite."""
    random, n = np.random.default_rng(0), 7
    points = random.normal(size=(n, 9))
    points[3], points[5] = points[0] - 2 * points[2], 0
    grams = [random.normal(size=(n, n + 2)), points, points[:, :3], np.where(points > 1.5, np.inf, points)]
    grams = np.array([a @ a.T for a in grams])
    assert np.isnan(grams[3]).any()
    there = cuda.to_device(grams.reshape(len(grams), n * n))
    r, inverse = (cuda_passes.zeros((len(grams), n * n), np.float64) for _ in range(2))
    triangular.factorise[len(grams), triangular.FACTOR_THREADS](there, 0, n, CUT["float64"], r, 0)
    triangular.invert[cuda_launch.over(n, len(grams))](r, 0, n, inverse)
    for gram, *found in zip(grams, r.copy_to_host(), inverse.copy_to_host(), strict=True):
        expected = np.empty((n, n)), np.empty((n, n))
        factors(gram, CUT["float64"], *expected)
        for a, b in zip(found, expected, strict=True):
            finite = np.isfinite(b)
            assert (np.isfinite(a.reshape(n, n)) == finite).all()
            assert a.reshape(n, n)[finite].tobytes() == b[finite].tobytes()
    assert (np.diagonal(r.copy_to_host().reshape(-1, n, n)[1]) == 0).tolist() == [False] * 3 + [True, False, True, False]


def in_law(network, x1, x2=None, *, seeds=(3, 2**40 + 7), dtype="float64", force=None):
    """Outputs (S, n1, k) and kernels (S, 1, k n1, k n2) of the GPU and of the CPU."""
    k, rows, cols = network.outputs, len(x1), len(x1 if x2 is None else x2)
    for evaluate_seeds in (conditional.evaluate_seeds, None):
        outputs, kernels = np.empty((len(seeds), rows, k), dtype), np.empty((len(seeds), 1, k * rows, k * cols), dtype)
        arguments = network, x1, x2, np.array(seeds, np.uint64)
        assert networks.evaluate(*arguments, outputs, kernels, force, evaluate_seeds)
        alone = np.empty_like(outputs)
        networks.evaluate(*arguments, alone, np.empty((len(seeds), 0, 0, 0), dtype), force, evaluate_seeds)
        assert alone.tobytes() == outputs.tobytes()
        yield outputs, kernels


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("outputs", "ways"),
    [(1, (CONDITIONED,) * 3), (2, (CONDITIONED,) * 3), (1, (ROWS, COLUMNS, ROWS)), (2, (CONDITIONED, ROWS, CONDITIONED)),
     (2, (ROWS, CONDITIONED, COLUMNS))],
)  # fmt: skip
def test_networks_in_law(outputs, ways, dtype):
    """Three points, one of them asked for twice: N of several outputs begins a block of four points for each."""
    network = ntksim.Network(3, (12, 6, 14), "gelu", sigma_w=1.3, sigma_b=0.3, output_bias=True, outputs=outputs)
    x = np.random.default_rng(5).normal(size=(3, 6))
    arguments = (x[[0, 1, 0]], x[1:]) if ways[0] == CONDITIONED else (x,)
    found, expected = in_law(network, *arguments, dtype=dtype, force=ways)
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, TOLERANCE[dtype])
    if len(arguments) == 1:
        assert found[1].tobytes() == np.swapaxes(found[1], 2, 3).tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_points_that_add_no_direction(dtype):
    """More points than neurons, and a point at 0: the same ones are dropped, or results would differ in every digit."""
    x = np.concatenate([np.zeros((1, 3)), POINTS[:4]])
    found, expected = in_law(ntksim.Network(2, (3, 9), "linear"), x, seeds=[3], dtype=dtype, force=(CONDITIONED,) * 2)
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, 100 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_factors_have_the_bits_of_the_cpu(dtype):
    network, n = ntksim.Network(2, (9, 11), outputs=2), 3
    net = compiled_network(network, 4)
    law = conditional.make_law(net, (CONDITIONED,) * 2, n, True)
    room = conditional.Batch(net, law, POINTS[:n].T.astype(dtype), 2)
    room.count, room.seeds = 2, cuda.to_device(np.array(SEEDS[:2], np.uint64))
    room._fill_left(2, 4, 6)
    room._fill_right(2, 4, 5)
    for s, seed in enumerate(SEEDS[:2]):
        left, right = networks.draws(network, 2, n, seed)
        found = room.left.copy_to_host()[s, : n * 6].reshape(n, 6), room.right.copy_to_host()[s, : 2 * n * 5].reshape(2 * n, 5)
        assert found[0].tobytes() == np.ascontiguousarray(left[4:10].T, dtype).tobytes()
        assert found[1].tobytes() == np.ascontiguousarray(right[4:9].T, dtype).tobytes()


def test_panels_and_batches_of_networks_in_law_change_no_bit(monkeypatch):
    network, ways, sizes = ntksim.Network(2, (17, 21), "tanh", sigma_b=0.2, outputs=2), (CONDITIONED,) * 2, []
    monkeypatch.setattr(cuda_kernels, "GRAM_TERMS", 8)
    batch = conditional.Batch
    monkeypatch.setattr(conditional, "Batch", lambda *arguments: (sizes.append(arguments[-1]), batch(*arguments))[1])
    whole, expected = in_law(network, POINTS[:2], force=ways)
    monkeypatch.setattr(conditional, "_PANEL", 1)
    monkeypatch.setattr(conditional, "_fitting", lambda *_: 1)
    assert conditional.make_law(compiled_network(network, 3), ways, 2, True).panel == 8
    parts, _ = in_law(network, POINTS[:2], force=ways)
    assert sizes == [2, 2, 1, 1]
    for a, b, c in zip(whole, parts, expected, strict=True):
        assert a.tobytes() == b.tobytes()
        assert_close(a, c, TOLERANCE["float64"])


def test_conditional_sampling_is_asked_for_on_a_gpu(monkeypatch):
    """Every form, the warning's way out, and a network whose layers are cheaper by their weights."""
    options, ran = {"seeds": [3, 4], "sampling": "conditional"}, []
    evaluate_seeds = conditional.evaluate_seeds
    monkeypatch.setattr(conditional, "evaluate_seeds", lambda *arguments: (ran.append(arguments[1]), evaluate_seeds(*arguments)))
    network = ntksim.Network(2, (20, 24), outputs=2)
    for device in ("cuda", "auto"):
        found, expected = (ntksim.network_outputs(network, POINTS[:1], device=d, **options) for d in (device, "cpu"))
        assert_close(found, expected, TOLERANCE["float64"])
    for form in ("full", "diagonal", "trace"):
        found, expected = (ntksim.empirical_ntk(network, POINTS[:1], form=form, device=d, **options) for d in ("cuda", "cpu"))
        assert_close(found, expected, TOLERANCE["float64"])
    assert ran == [(CONDITIONED, CONDITIONED)] * 5
    found = ntksim.empirical_ntk(NETWORK, POINTS, device="cuda", **options)
    assert found.tobytes() == ntksim.empirical_ntk(NETWORK, POINTS, device="cuda", seeds=[3, 4]).tobytes()
    assert len(ran) == 5


def test_batches_of_networks_in_law_halve_until_they_fit(monkeypatch):
    network, asked = ntksim.Network(1, 20), []
    options = {"seeds": range(3), "sampling": "conditional", "device": "cuda"}
    whole = ntksim.empirical_ntk(network, POINTS[:2], **options)
    most = 1

    def allocate(shape, kind):
        asked.append(shape[0])
        if shape[0] > most:
            raise MemoryError
        return cuda.device_array(shape, kind)

    monkeypatch.setattr(conditional, "allocate", allocate)
    assert ntksim.empirical_ntk(network, POINTS[:2], **options).tobytes() == whole.tobytes()
    assert {3, 2, 1} <= set(asked)
    most = -1
    with pytest.raises(MemoryError, match=r"a network of widths \[20\] on 2 points does not fit in the GPU's memory: use fewer"):
        ntksim.empirical_ntk(network, POINTS[:2], **options)


def test_shards_of_a_study_name_the_device(tmp_path):
    from ntksim.study.config.dataset import Dataset
    from ntksim.study.config.stages import Schedule
    from ntksim.study.data import dataset
    from ntksim.study.files.storage import read_arrow
    from ntksim.study.stages import initial
    from ntksim.study.stages.shard import ShardJob
    from ntksim.study.stages.training import training_shard

    network, data, limit = ntksim.Network(1, 4), tmp_path / "dataset.npz", tmp_path / "limit.npz"
    dataset.write(data, dataset.load(Dataset(name="circle", train=3, test=2)))
    initial.limit(data, network, limit)
    schedule = Schedule(method="gradient_descent", relative_time=1.0, relative_learning_rate=0.5, snapshots=1)
    for device in ("cuda", "cpu"):
        initial.initial_shard(ShardJob(data, limit, network, range(2), tmp_path / f"initial-{device}", device=device))
        training_shard(ShardJob(data, limit, network, range(1), tmp_path / f"training-{device}", device=device), schedule)
    for stage in ("initial", "training"):
        (found, there), (expected, here) = (read_arrow(tmp_path / f"{stage}-{device}") for device in ("cuda", "cpu"))
        assert there["provenance"]["device"] == "cuda (simulator)"
        assert here["provenance"]["device"].startswith("cpu (")
        assert there["identity"] == here["identity"]
        column = {"initial": "trace", "training": "loss"}[stage]
        assert_close(found[column].to_numpy(), expected[column].to_numpy(), TOLERANCE["float64"])


@pytest.mark.parametrize("method", ["gradient_flow", "gradient_descent"])
def test_measures_along_training_are_those_of_the_cpu(method, tmp_path):
    """All of a study's, of kernels with test and evaluation points too, whichever device trains."""
    from ntksim.study.config.dataset import Dataset
    from ntksim.study.config.stages import Schedule
    from ntksim.study.data import dataset
    from ntksim.study.files.storage import read_arrow
    from ntksim.study.stages import initial
    from ntksim.study.stages.shard import ShardJob
    from ntksim.study.stages.training import training_shard
    from ntksim.study.statistics.measures import SHARD_COLUMNS

    network, data, limit = ntksim.Network(1, 4, "tanh"), tmp_path / "dataset.npz", tmp_path / "limit.npz"
    dataset.write(data, dataset.load(Dataset(name="circle", train=3, test=2, evaluation=2)))
    initial.limit(data, network, limit)
    asked = {"eigenvalues": 2, "eigenvectors": 1, "modes": {"frequencies": [1]}, "regression": True, "profile": True}
    asked["couplings"] = True
    options = {"gradient_flow": {"tolerance": 0.05}, "gradient_descent": {"relative_learning_rate": 0.5}}[method]
    options |= {"measures": asked | {"predictions": True}, "ridge": 0.1}
    schedule = Schedule(method=method, relative_time=1.0, snapshots=1, **options)
    found = {}
    for device in ("cuda", "cpu"):
        training_shard(ShardJob(data, limit, network, range(1), tmp_path / device, device=device), schedule)
        found[device] = read_arrow(tmp_path / device)[0].to_pandas()
    assert set(SHARD_COLUMNS) <= set(found["cuda"])
    for name in SHARD_COLUMNS:
        there, here = (np.array(found[device][name].to_list(), np.float64) for device in ("cuda", "cpu"))
        assert np.isfinite(here).any(), name
        assert (np.isnan(there) == np.isnan(here)).all(), name
        assert_close(np.nan_to_num(there), np.nan_to_num(here), 20 * TOLERANCE["float64"])


def test_the_script_for_a_gpu_names_what_differs(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "DTYPES", {"float32": -1.0})
    monkeypatch.setattr(gpu, "check_training", lambda *arguments: None)
    assert gpu.main(["--tiny"]) == 1
    assert "FAILED: empirical_ntk, widths (9, 9) on 2 points, float32, tiles: differs by" in capsys.readouterr().err


def test_the_script_for_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "best", lambda function, *_, **__: function() is None or 1.0)
    monkeypatch.setattr(gpu, "DTYPES", {"float32": 1e-5})
    assert gpu.main(["--tiny", "--only", "kernels", "small", "normals"]) == 0
    printed = capsys.readouterr()
    assert "GPU and CPU agree" in printed.err
    assert "- GPU: simulator" in printed.out
    assert "networks of width 80" in printed.out
