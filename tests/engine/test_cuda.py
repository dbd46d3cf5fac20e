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
from tolerances import assert_close

import ntksim
from ntksim.engine import devices

HERE = Path(__file__).parent
NUMBA_CUDA = importlib.util.find_spec("numba_cuda") is not None
needs_numba_cuda = pytest.mark.skipif(not NUMBA_CUDA, reason="numba-cuda is not installed: make cuda")
NETWORK = ntksim.Network(1, 4)
CAPABILITIES = ((8, 0), (9, 0))


def test_kernels_in_the_simulator():
    command = [sys.executable, "-m", "pytest", str(HERE / "simulated_cuda.py"), "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed", done.stdout)


@pytest.mark.skipif(NUMBA_CUDA or bool(numba.config.ENABLE_CUDASIM), reason="numba-cuda is installed")
def test_without_numba_cuda():
    with pytest.raises(devices.DeviceError, match=r"`make cuda`.* device='cpu'"):
        ntksim.network_outputs(NETWORK, np.ones((2, 3)), seeds=[0], device="cuda")
    assert devices.chosen_device("auto", NETWORK) == "cpu"


def test_without_a_gpu(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr("numba.cuda.is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(devices.DeviceError, match=r"no CUDA GPU is visible \(CUDA_VISIBLE_DEVICES is '7'\): run where"):
        devices.chosen_device("cuda", NETWORK)
    assert devices.chosen_device("auto", NETWORK) == "cpu"
    assert devices.chosen_device("cpu", NETWORK) == "cpu"


def test_networks_of_several_outputs_stay_on_the_cpu():
    network = ntksim.Network(1, 4, outputs=2)
    with pytest.raises(ValueError, match="device='cuda' has networks of one output; got outputs=2: use device='cpu'"):
        ntksim.empirical_ntk(network, np.ones((2, 3)), seeds=[0], device="cuda")
    assert devices.chosen_device("auto", network) == "cpu"


def test_the_engine_loads_no_cuda():
    code = "import sys, ntksim; ntksim.empirical_ntk, ntksim.train; sys.exit('numba.cuda' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@needs_numba_cuda
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_kernel_compiles_to_ptx(capability):
    from numba.cuda.dispatcher import CUDADispatcher

    from ntksim.engine import kernels_cuda, ptx_cuda

    launched = {
        name
        for name, value in vars(kernels_cuda).items()
        if isinstance(value, CUDADispatcher) and not value.targetoptions["device"]
    }
    for real in ptx_cuda.REALS:
        assert set(ptx_cuda.signatures(real)) == launched
        for name in launched:
            ptx = ptx_cuda.compile_kernel(name, real, capability)
            assert f".target sm_{capability[0]}{capability[1]}" in ptx
            assert ".entry" in ptx
            assert "ld.local" not in ptx, f"{name} keeps numbers of a thread in memory"


# Of two pairs of normals: 11 in each logarithm, 7 in each cosine and sine.
WRITTEN = 36


@needs_numba_cuda
@pytest.mark.parametrize("name", ["draw_matrix", "draw_vector"])
def test_draws_are_not_contracted(name):
    """As many fused operations as are written, and no product of float32 numbers that goes into a sum, in any later stage."""
    from ntksim.engine import ptx_cuda

    for capability in CAPABILITIES:
        ptx = ptx_cuda.compile_kernel(name, ptx_cuda.REALS[0], capability)
        assert len(re.findall(r"\bfma\.rn\.f32\b", ptx)) == WRITTEN
        assert not re.search(r"\bfma\.rn\.f64\b|\.ftz\.|\.approx\.", ptx)
        assert "sqrt.rn.f32" in ptx
        products = set(re.findall(r"\bmul(?:\.rn)?\.f32\s+(%f\d+),", ptx))
        assert products
        for operands in re.findall(r"\b(?:add|sub)(?:\.rn)?\.f32\s+%f\d+, (.*);", ptx):
            assert products.isdisjoint(operands.split(", "))


@pytest.mark.skipif(devices.chosen_device("auto", NETWORK) == "cpu", reason="there is no GPU: kernels have not run on one here")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize(("depth", "width", "points"), [(4, 80, 2), (3, 1000, 70), (2, 2000, 5)])
def test_a_gpu_gives_what_the_cpu_gives(dtype, tolerance, depth, width, points):
    network = ntksim.Network(depth, width, "tanh", sigma_w=1.3, sigma_b=0.3)
    x = np.random.default_rng(0).normal(size=(points, 7))
    for function in (ntksim.network_outputs, ntksim.empirical_ntk):
        found, expected = (function(network, x, seeds=range(3), dtype=dtype, device=device) for device in ("cuda", "cpu"))
        assert_close(found, expected, tolerance)
