"""Bits do not depend on the threads of BLAS, and a process that was forked says that it cannot use threads."""

import subprocess
import sys

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import ntksim
from ntksim.engine.blas import one_blas_thread


def results(activation):
    """Arrays of the functions that use BLAS, of sizes from which on OpenBLAS shares its work."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(340, 40)), rng.normal(size=340)
    network = ntksim.Network(2, 1, activation, sigma_w=1.4)
    whole, block = ntksim.infinite_kernel(network, x), ntksim.infinite_kernel(network, x[:300], x)
    train, test = ntksim.closed_form(whole.ntk[:310, :310], y[:310], 2 * y[:310], [0.5, np.inf], whole.ntk[310:, :310])
    ensemble = ntksim.infinite_ensemble(network, x[:310], y[:310], [0.5, 20.0], x[310:])
    return [whole.nngp, whole.ntk, block.ntk, train, test, ensemble.mean, ensemble.covariance, ensemble.test_covariance]


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_bits_do_not_depend_on_the_threads_of_blas(activation):
    found = []
    for count in (1, 2):
        with threadpool_limits(count, user_api="blas"):
            found.append(results(activation))
    for one, two in zip(*found, strict=True):
        assert one.tobytes() == two.tobytes()


def blas_threads():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_the_number_of_threads_comes_back_when_the_last_holder_leaves():
    """Holders that overlap as those of several Python threads do, not nested."""
    with threadpool_limits(2, user_api="blas"):
        first, second = one_blas_thread(), one_blas_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert blas_threads() == {1}
        second.__exit__(None, None, None)
        assert blas_threads() == {2}


SCRIPT = """
import multiprocessing, sys, warnings
import numpy as np, ntksim
warnings.simplefilter("ignore")  # Python's own of forks, from 3.12 on
X, WIDE = np.eye(3), ntksim.Network(1, 512)

def limit(_):
    return ntksim.infinite_kernel(ntksim.Network(2, 1), X).ntk.tobytes()

def narrow(_):
    return ntksim.network_outputs(ntksim.Network(1, 8), X, seeds=[0, 1, 2]).tobytes()

def wide(_):
    return ntksim.empirical_ntk(WIDE, X, seeds=[0]).tobytes()

def variance(_):
    return ntksim.one_hidden_layer_variance(ntksim.Network(1, 8, "tanh"), X).tobytes()

def in_pool(work):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(work, range(2))
"""


def run(code):
    done = subprocess.run([sys.executable, "-c", SCRIPT + code], capture_output=True, text=True, timeout=400)  # with compilation
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork here")
@pytest.mark.parametrize("first", ["limit(0)", "wide(0)", "narrow(0)"])
def test_a_fork_after_threads_were_used_raises_at_once(first):
    """Numba's omp layer would end the child; a pool would start the next one, for ever."""
    run(f"""
{first}
import numba
if numba.threading_layer() != "omp":
    sys.exit(0)  # the others may be forked
for work in (limit, variance) + ((wide,) if numba.get_num_threads() > 1 else ()):
    try:
        in_pool(work)
    except RuntimeError as error:
        assert 'multiprocessing.get_context("spawn")' in str(error), error
    else:
        sys.exit(f"{{work.__name__}} worked")
assert in_pool(narrow) == [narrow(0)] * 2  # seeds side by side need no threads of Numba's
limit(0)  # the parent may go on
""")


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork here")
def test_a_fork_before_threads_were_used_works():
    run("""
found = [in_pool(work) for work in (limit, narrow, wide, variance)]
assert found == [[work(0)] * 2 for work in (limit, narrow, wide, variance)]
""")
