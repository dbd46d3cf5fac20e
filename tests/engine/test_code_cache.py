"""Compiled code on disk: no function is taken for another one, whatever wrote the cache and whatever it holds."""

import ast
import hashlib
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import time

import exact
import mpmath
import naive
import numpy as np
import pytest
from cases import oracle_arguments
from tolerances import QUADRATURE, ROUND_OFF, assert_close

import ntksim
from ntksim.engine import known_answers
from ntksim.engine.compiled import code_cache
from ntksim.engine.devices import DeviceError
from ntksim.engine.training.batches import batches

# The process that leads computes all that the engine does, the other one outputs, a kernel and a descent; numbers go to the last
# line. Of several functions that a factory makes, the first one's code is in the cache. The leader waits when it has loaded it,
# until the other one has compiled the rest; then they go on together.
ENGINE = """
import os, pathlib, sys, time, warnings
warnings.simplefilter("error")
from numba.core.dispatcher import Dispatcher
by_numba, from_python, unasked = Dispatcher.compile, Dispatcher._compile_for_args, []
home, leads = pathlib.Path(os.environ["NUMBA_CACHE_DIR"]), "lead" in sys.argv
def compile(self, signature):
    done = by_numba(self, signature)
    if leads and "strip" in self.py_func.__qualname__:
        for _ in range(30_000):  # five minutes, should the other one have died
            if (home / "followed").exists():
                break
            time.sleep(0.01)
    return done
def compile_for_args(self, *arguments):
    if not known_answers._asked:
        unasked.append(self.py_func.__qualname__)
    return from_python(self, *arguments)
Dispatcher.compile = compile
import ntksim.engine.cpu.product
if not leads:
    (home / "followed").touch()
import numpy as np
import ntksim
from ntksim.engine import known_answers
Dispatcher._compile_for_args = compile_for_args
network, x, dtype = ntksim.Network(depth=2, width=32, sigma_b=0.1), np.random.default_rng(0).normal(size=(100, 4)), sys.argv[1]
y, found = x[:, 0].copy(), {}
found["outputs"] = ntksim.network_outputs(network, x, seeds=[0], dtype=dtype)[0]
found["outputs of nine"] = ntksim.network_outputs(network, np.random.default_rng(0).normal(size=(9, 4)), seeds=[0], dtype=dtype)
found["kernel"] = ntksim.empirical_ntk(network, x, seeds=[0], dtype=dtype)[0]
descent = dict(method="gradient_descent", steps=5, learning_rate=0.002)
def trained(points, **options):
    return ntksim.train(network, x[:points], y[:points], seeds=[0], dtype=dtype, **options).outputs[0, -1]
found["descent"] = trained(100, x_test=x[:2], momentum=0.5, nesterov=True, **descent)
if leads:
    found["outputs in law"] = ntksim.network_outputs(network, x[:3], seeds=[0], dtype=dtype, sampling="conditional")[0]
    found["kernel in law"] = ntksim.empirical_ntk(network, x[:3], seeds=[0], dtype=dtype, sampling="conditional")[0]
    found["flow"] = trained(100, x_test=x[:2], times=[0, 0.05])
    found["stochastic"] = trained(100, x_test=x[:2], batch_size=40, **descent)
    found["training in law"] = trained(3, sampling="conditional", **descent)
    for activation in ("relu", "tanh"):
        found["limit of " + activation] = ntksim.infinite_kernel(ntksim.Network(2, 32, activation, sigma_b=0.1), x[:9]).ntk
    found["variance"] = ntksim.one_hidden_layer_variance(ntksim.Network(1, 32, sigma_b=0.1), x[:9])
print(({name: numbers.ravel().tolist() for name, numbers in found.items()}, unasked))
"""


PRODUCT = """
import numpy as np
from ntksim.engine.cpu import product
from ntksim.engine.compiled.jit import jit
@jit
def multiply(b, v, c, rows, terms, points):
    product.multiply(b, 0, 1, terms, v, 0, points, points, c, 0, points, rows, terms, True)
for kind in ("float32", "float64"):
    for points in (8, 56, 112):
        b, v = np.random.default_rng(0).normal(size=(9, 20)), np.random.default_rng(1).normal(size=(20, points))
        c = np.empty((9, points), kind)
        multiply(b.astype(kind).ravel(), v.astype(kind).ravel(), c.ravel(), 9, 20, points)
        assert np.abs(c - b @ v).max() < 1e-4, (kind, points)
"""


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    """A script that multiplies; and a way to make a cache that holds only the first file which it kept of the strips."""
    script = tmp_path_factory.mktemp("product") / "product.py"
    script.write_text(PRODUCT)
    whole = script.parent / "whole"
    subprocess.run([sys.executable, script], env=os.environ | {"NUMBA_CACHE_DIR": str(whole)}, check=True)
    first = min(whole.rglob("*.product._strip*.nbc"), key=lambda path: path.stat().st_mtime_ns)

    def keep_first(home):
        (home / first.parent.name).mkdir()
        shutil.copy(first, home / first.relative_to(whole))

    return script, keep_first


@pytest.fixture(scope="module")
def cold(product, tmp_path_factory):
    """A cache of one strip that two processes filled at once: its files, and what each computed and asked no known answer of."""
    home = tmp_path_factory.mktemp("cold")
    product[1](home)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(home), "NUMBA_NUM_THREADS": "1"}
    options = {"env": environment, "stdout": subprocess.PIPE, "text": True}
    roles = ("float64", "lead"), ("float32", "follow")
    runs = [subprocess.Popen([sys.executable, "-c", ENGINE, *role], **options) for role in roles]
    said = [run.communicate()[0].splitlines() for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    return list(home.glob("code-*/*.nbc")), [ast.literal_eval(lines[-1]) for lines in said]


def test_processes_that_fill_a_cache_at_once_compute_what_is_right(cold):
    """Outputs, kernels, training and limits against the oracle, or against this process, and no warning."""
    network, x = ntksim.Network(depth=2, width=32, sigma_b=0.1), np.random.default_rng(0).normal(size=(100, 4))
    y, oracle = x[:, 0], oracle_arguments(network, 4, 0)
    phi = naive.PHI["relu"][0]
    rows = naive.jacobian("relu", *oracle, x, True, False)
    options = {"seeds": [0], "method": "gradient_descent", "steps": 5, "learning_rate": 0.002}
    right = {
        "outputs": naive.output(phi, *oracle, x),
        "outputs of nine": naive.output(phi, *oracle, x[:9]),
        "outputs in law": ntksim.network_outputs(network, x[:3], seeds=[0], sampling="conditional"),
        "kernel in law": ntksim.empirical_ntk(network, x[:3], seeds=[0], sampling="conditional"),
        "kernel": rows @ rows.T,
        "flow": ntksim.train(network, x, y, seeds=[0], times=[0, 0.05]).outputs[0, -1],
        "descent": ntksim.train(network, x, y, momentum=0.5, nesterov=True, **options).outputs[0, -1],
        "stochastic": ntksim.train(network, x, y, batch_size=40, **options).outputs[0, -1],
        "training in law": ntksim.train(network, x[:3], y[:3], sampling="conditional", **options).outputs[0, -1],
        "limit of relu": ntksim.infinite_kernel(network, x[:9]).ntk,
        "limit of tanh": naive.infinite_kernels("tanh", x[:9], 2, 1.0, 0.1)[1],
        "variance": ntksim.one_hidden_layer_variance(ntksim.Network(1, 32, sigma_b=0.1), x[:9]),
    }
    assert [len(found) for found, _ in cold[1]] == [12, 4]
    for found, _ in cold[1]:
        assert sum(found["outputs of nine"]) == pytest.approx(-1.4167, abs=5e-5)
    for precision, (found, _) in zip(ROUND_OFF, cold[1], strict=True):
        for name, numbers in found.items():
            tolerance = 1e-3 if name == "flow" else 1e-9 if "limit" in name else 10 * ROUND_OFF[precision]
            assert_close(numbers, np.ravel(right[name]), tolerance)


def test_a_known_answer_is_asked_of_all_that_python_calls(cold):
    """Nothing was compiled or loaded for a call from Python but for the sake of a known answer, before the call."""
    assert [unasked for _, unasked in cold[1]] == [[], []]


def content_of(path):
    """What a file of the cache holds: identity, types, and what Numba kept."""
    return pickle.loads(path.read_bytes()[32:])


def write(path, content):
    """A file of the cache with a checksum that is right."""
    data = pickle.dumps(content)
    path.write_bytes(hashlib.sha256(data).digest() + data)


def definitions(elf):
    """(name, whether strong, bytes) of the global functions and data that an object file of 64 bits defines."""
    start, size, count = struct.unpack_from("<Q", elf, 0x28)[0], *struct.unpack_from("<HH", elf, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", elf, start + i * size) for i in range(count)]
    for _, kind, _, _, offset, length, link, *_ in sections:
        if kind != 2:  # the table of symbols
            continue
        names = sections[link][4]
        for at in range(offset, offset + length, 24):
            name, info, _, section, value, extent = struct.unpack_from("<IBBHQQ", elf, at)
            if info >> 4 in (1, 2) and 0 < section < 0xFF00:
                begin = sections[section][4] + value
                text = elf[names + name : elf.index(b"\0", names + name)].decode()
                yield text, info >> 4 == 1, elf[begin : begin + extent]


def test_no_two_object_files_define_one_symbol_with_different_bodies(cold):
    """Nor does any symbol, those that a caller shares with its callee included, have a number that each process counts."""
    strong, numbered = {}, 0
    for path in cold[0]:
        _, _, (library, *_) = content_of(path)
        for name, is_strong, body in definitions(library[2][0]):
            if is_strong:
                assert strong.setdefault(name, body) == body, f"{path.name} defines another {name}"
            numbers = re.findall(r"B(\d+)v[0-9a-f]", name)
            assert set(numbers) <= {"17"}, name  # a v and 16 digits
            numbered += len(numbers)
    assert len(cold[0]) > 100
    assert len(strong) > 100
    assert numbered > len(strong)
    assert sum("strip" in name for name in strong) >= 8


def test_one_strip_alone_in_the_cache_is_not_taken_for_the_others(product, tmp_path):
    """Functions that a factory made: the first one's code was kept, the others are compiled beside it."""
    script, keep_first = product
    keep_first(tmp_path)
    subprocess.run([sys.executable, script], env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}, check=True)


PARALLEL = """
import sys
import numpy as np
from numba import prange
from ntksim.engine.compiled.jit import jit, jit_parallel

@jit_parallel
def fill(a):
    for i in prange(a.size):
        a[i] = i

@jit
def filled(a):
    fill(a)
    return a.sum()

if "callee" in sys.argv:
    fill(np.empty(4))
else:
    print(filled(np.empty(4)))
"""


def test_what_calls_parallel_code_from_the_cache_can_be_loaded(tmp_path):
    """The callee is kept by one process; another loads it and compiles its caller, which a third one loads by itself."""
    script = tmp_path / "parallel.py"
    script.write_text(PARALLEL)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_NUM_THREADS": "2"}
    for argument in ("callee", "caller", "caller"):
        done = subprocess.run([sys.executable, script, argument], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["6.0"]


SUMS = """
import warnings
caught = warnings.catch_warnings(record=True).__enter__()
warnings.simplefilter("always")
import numpy as np
from ntksim.engine import known_answers
from ntksim.engine.compiled.jit import compiled_once, jit

@compiled_once(lambda real: (real[::1],))
def double(a):
    a[0] *= 2

@compiled_once(lambda real: (real[::1],))
def triple(a):
    a[0] *= 3

@jit
def both(a):
    double(a)
    triple(a[1:])

def found():
    a = np.ones(2)
    both(a)
    return a

known_answers.WAYS["sums"] = lambda *_: [("one", found(), np.array([2.0, 3.0]))]
known_answers.check("sums")
print(found().tolist(), [str(warning.message) for warning in caught])
"""


def run_sums(home):
    """Run the script on a cache; it must print what is right. Returns what it warned of."""
    script = home / "sums.py"
    script.write_text(SUMS)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(home)}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=True)
    numbers, warned = done.stdout.split("] ", 1)
    assert ast.literal_eval(numbers + "]") == [2, 3]
    return ast.literal_eval(warned)


@pytest.fixture(scope="module")
def kept_sums(tmp_path_factory):
    home = tmp_path_factory.mktemp("sums")
    assert run_sums(home) == []
    return home


@pytest.fixture
def sums(kept_sums, tmp_path):
    """A cache of two functions that are called by address and have a known answer: a way to run them, and their files."""
    shutil.copytree(kept_sums, tmp_path, dirs_exist_ok=True)

    def files(name):
        found = sorted(tmp_path.glob(f"code-{'?' * 12}/__main__.{name}-*.nbc"))
        assert len(found) == 2
        return found

    return lambda: run_sums(tmp_path), files


def test_wrong_code_in_the_cache_is_found_by_its_answer(sums, tmp_path):
    """Files hold code of the right name and types with checksums, which triples one number too many."""
    run, files = sums
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / "sums.py").write_text(SUMS.replace("*= 2", "*= 3").replace("known_answers.check", "# "))
    environment = os.environ | {"NUMBA_CACHE_DIR": str(wrong)}
    subprocess.run([sys.executable, wrong / "sums.py"], env=environment, check=True, capture_output=True)
    kept = {content_of(path)[1]: content_of(path)[2] for path in wrong.glob("code-*/__main__.double-*.nbc")}
    for path in files("double"):
        identity, types, _ = content_of(path)
        write(path, (identity, types, kept[types]))
    (warned,) = run()
    assert re.search(
        r"sums of one in float64 on cpu are wrong; it is now \S+/code-\w{12}-aside-\w+, and code is compiled anew", warned
    )
    assert "\n" not in warned
    assert run() == []
    assert all(files(name) for name in ("double", "triple"))


def test_code_of_another_function_is_not_called(sums):
    """Files have each other's code, with checksums: it is not even tried, for it might bring the process down."""
    run, files = sums
    contents = [(path, content_of(path)) for name in ("double", "triple") for path in files(name)]
    for path, (identity, types, _) in contents:
        (other,) = (data for _, (name, kinds, data) in contents if kinds == types and name != identity)
        write(path, (identity, types, other))
    (warned,) = run()
    assert re.search(r"what was kept of double is the code of triple\(.*; it is now \S+-aside-\w+, and", warned)
    assert run() == []


def test_files_that_were_exchanged_are_not_loaded(sums):
    run, files = sums
    for one, other in zip(files("double"), files("triple"), strict=True):
        first, second = one.read_bytes(), other.read_bytes()
        one.write_bytes(second)
        other.write_bytes(first)
    (warned,) = run()
    assert re.search(r"__main__.double\S+ holds __main__.triple in another's place; it is now \S+-aside-\w+, and", warned)
    assert run() == []


def test_damaged_files_are_compiled_anew(sums):
    """Another bit, no end, nothing."""
    run, files = sums
    paths = [*files("double"), files("triple")[0]]
    flipped = bytearray(paths[0].read_bytes())
    flipped[len(flipped) // 2] ^= 1
    damaged = [bytes(flipped), paths[1].read_bytes()[:-100], b""]
    for path, content in zip(paths, damaged, strict=True):
        path.write_bytes(content)
    assert run() == []
    for path, content in zip(paths, damaged, strict=True):
        now = path.read_bytes()
        assert now != content
        assert hashlib.sha256(now[32:]).digest() == now[:32]


@pytest.mark.parametrize("refilled", [False, True])
def test_a_folder_that_another_process_set_aside_is_left_to_it(monkeypatch, tmp_path, refilled):
    """What that process has put in its place is good."""
    folder = tmp_path / "code-0"
    folder.mkdir()
    monkeypatch.setattr(code_cache, "FOLDER", folder)
    monkeypatch.setattr(code_cache, "_INODE", code_cache._inode())
    monkeypatch.setattr(code_cache, "_trusted", True)
    folder.rename(tmp_path / "aside")
    if refilled:
        folder.mkdir()
    with pytest.warns(RuntimeWarning, match="sums are wrong; another process has set it aside already, and code is"):
        code_cache.set_aside("sums are wrong")
    assert folder.exists() == refilled
    assert len(list(tmp_path.iterdir())) == 1 + refilled
    assert not code_cache._trusted


def test_code_that_is_wrong_as_compiled_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(code_cache, "FOLDER", tmp_path / "code-0")
    monkeypatch.setattr(known_answers, "compile_anew", lambda: None)
    monkeypatch.setattr(code_cache, "_trusted", True)
    monkeypatch.setattr(known_answers, "_passed", set())
    monkeypatch.setitem(known_answers.WAYS, "sums", lambda *_: [("one", np.array([2.0, np.nan]), np.array([2.0, 3.0]))])
    with pytest.warns(RuntimeWarning, match="sums of one"), pytest.raises(DeviceError, match="report this"):
        known_answers.check("sums")


def test_known_answers_are_the_oracles():
    x, y, seed = known_answers.POINTS, known_answers.TARGETS, known_answers.SEED
    for (activation, width), right in known_answers.INITIAL.items():
        oracle = oracle_arguments(known_answers.network_of(activation, width), 3, seed)
        rows = naive.jacobian(activation, *oracle, x, True, True)
        kernel = rows @ rows.T
        outputs = naive.output(naive.PHI[activation][0], *oracle, x)
        assert_close([*outputs, kernel[0, 0], kernel[0, 1], kernel[1, 1]], right, 1e-11)

    oracle, shallow = (oracle_arguments(known_answers.network_of("erf", *shape), 3, seed) for shape in ((9,), (150, 1)))
    drawn = batches(np.uint64(seed), 0, 3, 2, 1)
    for right, network, rate, steps, options, tolerance in (
        (known_answers.DESCENT, oracle, 0.125, 3, {"momentum": 0.5}, 1e-11),
        (known_answers.STOCHASTIC, oracle, 0.125, 3, {"batches": drawn}, 1e-11),
        (known_answers.SHALLOW, shallow, 0.125, 3, {"momentum": 0.5}, 1e-11),
        (known_answers.FLOW, oracle, 0.5 / 512, 512, {}, 1e-3),  # by small steps
    ):
        history = naive.descent("erf", *network, x, y, rate, steps, True, True, **options)
        (_, first, theta0), (outputs, kernel, theta) = history[0], history[-1]
        moved = np.linalg.norm(theta - theta0) / np.linalg.norm(theta0)
        drift = np.linalg.norm(kernel - first) / np.linalg.norm(first)
        assert_close([*outputs, moved, drift, kernel[0, 1]], right, tolerance)
    oracle = oracle_arguments(known_answers.network_of("relu", 40, 1), 3, seed)
    (_, first, theta0), *_, (outputs, kernel, theta) = naive.descent("relu", *oracle, x, y, 2 / 4096, 4096, True, True)
    moved = np.linalg.norm(theta - theta0) / np.linalg.norm(theta0)
    drift = np.linalg.norm(kernel - first) / np.linalg.norm(first)
    assert_close([*outputs, moved, drift, kernel[0, 1]], known_answers.FLOW_OF_GATES, 1e-3)

    for activation, right in known_answers.VALUES.items():
        phi, slope = naive.PHI[activation]
        assert_close([*phi(np.array([-0.75, 0.75])), *slope(np.array([-0.75, 0.75]))], right, 1e-11)
    nngp, ntk = (0.5625 * k[0] + 0.25 for k in naive.infinite_kernels("tanh", x, 2, 1.25, 0.5))
    assert_close([*nngp, *ntk], known_answers.LIMITS["tanh"], QUADRATURE)


def test_known_limits_and_variances_are_those_of_many_digits():
    points, network = known_answers.POINTS, known_answers.network_of("erf", 9)
    for activation, right in known_answers.LIMITS.items():
        own = points / 2 if activation == "exp" else points
        if activation in exact.DUALS:  # quadrature in many digits takes its time: see test_activations
            with mpmath.workdps(30):
                pairs = [exact.pair_kernels(activation, own[0], own[j], 2, network.sigma_w, 0.5) for j in (0, 1)]
            assert_close([network.sigma_a**2 * float(pairs[j][k]) + 0.25 for k in (0, 1) for j in (0, 1)], right, 1e-11)


def test_code_of_other_states_is_removed_after_a_month(monkeypatch, tmp_path):
    names = ("engine-0123456789ab", "code-0123456789ab", "code-0123456789ab-aside-0a", "code-ab0123456789", "code-mine", "other")
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
        age = 20 if name == "code-ab0123456789" else 40
        os.utime(tmp_path / name, (time.time() - age * 86400,) * 2)
    monkeypatch.setattr(code_cache, "FOLDER", tmp_path / "code-ffffffffffff")
    assert code_cache._is_writable()
    assert {path.name for path in tmp_path.iterdir()} == {"code-ffffffffffff", "code-ab0123456789", "code-mine", "other"}


def test_without_compiled_code_a_line_says_so():
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", "import ntksim; ntksim.train"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("DeviceError: ntksim cannot run without compiled code: unset NUMBA_DISABLE_JIT")
