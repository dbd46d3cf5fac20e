"""The CUDA engine as far as it can be tested without a GPU; what needs one is skipped, and says so."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

import ntksim
from ntksim.engine import devices

HERE = Path(__file__).parent
NUMBA_CUDA = importlib.util.find_spec("numba_cuda") is not None
needs_numba_cuda = pytest.mark.skipif(not NUMBA_CUDA, reason="numba-cuda is not installed: make cuda")
NETWORK = ntksim.Network(1, 4)


def test_kernels_in_the_simulator():
    command = [sys.executable, "-m", "pytest", str(HERE / "simulated_cuda.py"), "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed", done.stdout)


@pytest.mark.skipif(NUMBA_CUDA or bool(numba.config.ENABLE_CUDASIM), reason="numba-cuda is installed")
def test_without_numba_cuda():
    with pytest.raises(devices.DeviceError, match=r"`make cuda`.* device='cpu'"):
        ntksim.network_outputs(NETWORK, np.ones((2, 3)), seeds=[0], device="cuda")
    assert devices.chosen_device("auto") == "cpu"


def test_without_a_gpu(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr("numba.cuda.is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(devices.DeviceError, match=r"no CUDA GPU is visible \(CUDA_VISIBLE_DEVICES is '7'\): run where"):
        devices.chosen_device("cuda")
    assert devices.chosen_device("auto") == "cpu"
    assert devices.chosen_device("cpu") == "cpu"


def test_a_driver_that_is_older_than_the_toolkit(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr("numba.cuda.is_available", lambda: True)
    monkeypatch.setattr("numba.cuda.cudadrv.driver.get_version", lambda: (12, 4))
    monkeypatch.setattr("numba.cuda.runtime.get_version", lambda: (13, 0))
    with pytest.raises(devices.DeviceError, match=r"is for CUDA 12.4, older than .* 13.0: update the driver, or .*cu12"):
        devices.chosen_device("cuda")
    assert devices.chosen_device("auto") == "cpu"


def test_the_engine_loads_no_cuda():
    code = "import sys, ntksim; ntksim.empirical_ntk, ntksim.train; sys.exit('numba.cuda' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@needs_numba_cuda
@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
def test_every_kernel_compiles_to_ptx(capability):
    import ptx
    from numba.cuda.dispatcher import CUDADispatcher

    from ntksim.engine.cuda import descent, kernels, product, small, triangular

    launched = {
        value
        for module in (descent, kernels, product, small, triangular)
        for value in vars(module).values()
        if isinstance(value, CUDADispatcher) and not value.targetoptions["device"]
    }
    assert capability in ptx.CAPABILITIES
    for real in ptx.REALS:
        every = set(ptx.signatures(real))
        assert launched <= every
        assert {kernel.py_func.__name__ for kernel in every - launched} == {"finish_layer", "evaluate_small"}  # of an activation
        for kernel in every:
            text = ptx.compile_kernel(kernel, real, capability)
            assert f".target sm_{capability[0]}{capability[1]}" in text
            assert ".entry" in text
            assert "ld.local" not in text, f"{kernel.py_func.__name__} keeps numbers of a thread in memory"


@needs_numba_cuda
@pytest.mark.parametrize("name", ["multiply", "evaluate_small"])
def test_large_kernels_keep_their_numbers_in_registers(name):
    """As they are linked for a GPU."""
    import ptx

    for real in ptx.REALS:
        (kernel,) = (kernel for kernel in ptx.signatures(real) if kernel.py_func.__name__ == name)
        linked = ptx.link_kernel(kernel, real, (9, 0))
        assert linked.spilled == 0
        assert "ld.local" not in linked.ptx


KEPT = """
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch
from numba.cuda import dispatcher
from ntksim.engine.compiled import code_cache
from ntksim.engine.cpu import product
from ntksim.engine.formulas import blocks, layer, normals  # what is the CPU's comes from its cache
code_cache.FOLDER = Path(sys.argv[1])
import ptx

class Device:
    compute_capability = 9, 0

def bind(kernel):  # all of it but loading
    kernel.cubin = kernel._codelibrary.get_cubin(cc=Device.compute_capability)

with (
    patch("numba.cuda.dispatcher.get_current_device", Device),
    patch("numba.cuda.api.get_current_device", Device),
    patch("numba.cuda.codegen.devices.get_context", lambda *_: SimpleNamespace(device=Device)),
    patch.object(dispatcher._Kernel, "bind", bind),
):
    for kernel, types in list(ptx.signatures(ptx.REALS[0]).items())[:3]:
        made = kernel.compile(types)
        bind(made)
        print(sum(kernel._cache_hits.values()), hash(bytes(made.cubin.code)))
"""


@needs_numba_cuda
def test_kernels_are_kept_on_disk(tmp_path):
    """As for a launch, but for loading and launching: another process finds them, the same to the last byte.

    One that was damaged is compiled anew.
    """
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1] / "benchmarks"), "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-c", KEPT, str(tmp_path)]

    def run():
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return zip(*(line.split() for line in done.stdout.splitlines()), strict=True)

    found, first = run()
    assert found == ("0", "0", "0")
    found, second = run()
    assert found == ("1", "1", "1")
    assert first == second
    (damaged,) = tmp_path.glob("cuda.product.multiply-*.nbc")
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    found, _ = run()
    assert found == ("0", "1", "1")
    assert damaged.read_bytes() != content


# Of two pairs of normals: 11 in each logarithm, 7 in each cosine and sine. Of four truncated normals: 11 in the logarithm, 7 in
# the polynomial of it, and 1 before both.
WRITTEN = 2 * (11 + 7) + 4 * (11 + 7 + 1)


@needs_numba_cuda
@pytest.mark.parametrize("name", ["draw_matrix", "draw_vector"])
def test_draws_are_not_contracted(name):
    """As many fused operations as are written, and no product of float32 numbers that goes into a sum, in any later stage."""
    import ptx

    from ntksim.engine.cuda import kernels

    kernel, real = getattr(kernels, name), ptx.REALS[0]
    texts = [ptx.compile_kernel(kernel, real, capability) for capability in ptx.CAPABILITIES]
    texts += [ptx.link_kernel(kernel, real, capability).ptx for capability in ptx.CAPABILITIES]
    for text in texts:
        assert len(re.findall(r"\bfma\.rn\.f32\b", text)) == WRITTEN
        assert not re.search(r"\bfma\.rn\.f64\b|\.ftz\.|\.approx\.", text)
        assert "sqrt.rn.f32" in text
        products = set(re.findall(r"\bmul(?:\.rn)?\.f32\s+(%f\d+),", text))
        assert products
        for operands in re.findall(r"\b(?:add|sub)(?:\.rn)?\.f32\s+%f\d+, (.*);", text):
            assert products.isdisjoint(operands.split(", "))


@needs_numba_cuda
@pytest.mark.parametrize("name", ["factorise", "invert"])
def test_factors_are_rounded_as_on_the_cpu(name):
    """They decide which directions of a network in law there are: written fused operations, and nothing else that is added."""
    import ptx

    from ntksim.engine.cuda import triangular

    kernel, real = getattr(triangular, name), ptx.REALS[0]
    texts = [ptx.compile_kernel(kernel, real, capability) for capability in ptx.CAPABILITIES]
    texts += [ptx.link_kernel(kernel, real, capability).ptx for capability in ptx.CAPABILITIES]
    for text in texts:
        assert {"fma.rn.f64", "div.rn.f64"} <= set(re.findall(r"\b[a-z]+\.rn\.f64\b", text))
        assert not re.search(r"\b(add|sub)(\.rn)?\.f64\b|\.ftz\.|\.approx\.|\.f32\b", text)
        assert ("sqrt.rn.f64" in text) == (name == "factorise")


@needs_numba_cuda
@pytest.mark.parametrize("asked", [None, "1"])
def test_small_launches_are_warned_of_if_that_is_asked_for(asked):
    """Numba is there before the device is chosen, and by then has read the variable."""
    code = """
import ntksim
from ntksim.engine import devices
devices.chosen_device("auto")
from numba.cuda import dispatcher
print(bool(dispatcher.config.CUDA_LOW_OCCUPANCY_WARNINGS))
"""
    environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS"}
    environment |= {} if asked is None else {"NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS": asked}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(asked is not None)


@pytest.mark.skipif(devices.chosen_device("auto") == "cpu", reason="there is no GPU: kernels have not run on one here")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_gpu_gives_what_the_cpu_gives(dtype):
    """Parameters' bits; outputs, kernels and training in every regime, one point and two sets of points among them."""
    import gpu

    check = gpu.Check()
    gpu.check_networks(check, False, dtype, gpu.DTYPES[dtype])
    gpu.check_in_law(check, False, dtype, gpu.DTYPES[dtype])
    gpu.check_training(check, False, dtype, gpu.DTYPES[dtype])
    assert not check.faults
