"""Long calls end soon after Ctrl-C, and no bit depends on the slices that they are made in; bars show how far they are."""

import _thread
import io
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import numpy as np
import pytest

import ntksim
from ntksim.engine import threads
from ntksim.engine.conditional import networks
from ntksim.engine.conditional.layout import COLUMNS, CONDITIONED, ROWS
from ntksim.engine.training import checkpoints

X = np.random.default_rng(0).normal(size=(7, 5))
NETWORK = ntksim.Network(2, (300, 400), "gelu", sigma_b=0.3, output_bias=True)
SEVERAL = ntksim.Network(2, (300, 200), "tanh", sigma_b=0.3, outputs=2)


# --- slices -----------------------------------------------------------------------------------------------------------


def by_weights(network):
    other = X[:3] + 0.5
    for dtype in ("float64", "float32"):
        yield ntksim.empirical_ntk(network, X, seeds=range(3), dtype=dtype)
        yield ntksim.empirical_ntk(network, X, other, seeds=[1], dtype=dtype)
        yield ntksim.network_outputs(network, X, seeds=range(3), dtype=dtype)


def traces(_):
    yield ntksim.empirical_ntk(ntksim.Network(1, 60, outputs=11), X, seeds=range(3), form="trace")


def in_law(network):
    k = network.outputs
    for ways in ((CONDITIONED, CONDITIONED), (ROWS, COLUMNS)):
        outputs, kernels = np.empty((2, 7, k)), np.empty((2, 1, 7 * k, 7 * k))
        networks.evaluate(network, X, None, np.arange(2, dtype=np.uint64), outputs, kernels, ways)
        yield from (outputs, kernels)


def limits(network):
    for activation in ("relu", "tanh"):
        kernel = ntksim.infinite_kernel(ntksim.Network(2, 9, activation), X, X[:3] + 0.5)
        yield from (kernel.nngp, kernel.ntk, ntksim.infinite_kernel(ntksim.Network(2, 9, activation), X).ntk)


def training(network):
    y = np.stack([X[:, 0], X[:, 1]], axis=1) if network.outputs > 1 else X[:, 0]
    descent = {"method": "gradient_descent", "steps": 3, "learning_rate": 1e-2, "x_test": X[:2] + 0.5}
    for options in (
        descent,
        descent | {"momentum": 0.5, "nesterov": True, "layer_rates": [1, 0, 2]},
        descent | {"batch_size": 3, "momentum": 0.5},
        {"times": [0, 0.05], "x_test": X[:2] + 0.5},
    ):
        run = ntksim.train(network, X, y, seeds=[1], **options)
        yield from (run.outputs, run.test_outputs, run.kernel, run.parameter_drift)


@pytest.mark.parametrize("work", [by_weights, traces, in_law, limits, training])
@pytest.mark.parametrize("network", [NETWORK, SEVERAL], ids=["one output", "two"])
@pytest.mark.parametrize("count", [1, 2])
def test_bits_do_not_depend_on_slices(work, network, count, monkeypatch):
    """Whole calls, and slices as small as they can be, of one or two threads."""
    from test_empirical import threads as numba_threads

    with numba_threads(count):
        whole, looks, check = list(work(network)), [], threads.check
        monkeypatch.setattr(threads, "SLICE", 1)
        monkeypatch.setattr(threads, "check", lambda: looks.append(check()))
        sliced = list(work(network))
    assert len(looks) > 20
    for one, other in zip(whole, sliced, strict=True):
        assert one.tobytes() == other.tobytes()


def test_descent_that_diverges_in_slices(monkeypatch):
    def diverged():
        options = {"method": "gradient_descent", "times": [0, 2e22], "learning_rate": 1e20, "dtype": "float32"}
        with pytest.warns(RuntimeWarning, match="expected to diverge"):
            return ntksim.train(NETWORK, X, X[:, 0], seeds=[1], **options)

    whole = diverged()
    monkeypatch.setattr(threads, "SLICE", 1)
    sliced = diverged()
    assert whole.status == sliced.status == ("diverged",)
    assert whole.evaluations == sliced.evaluations
    assert whole.outputs.tobytes() == sliced.outputs.tobytes()


def test_a_slice_is_some_tenths_of_a_second():
    assert list(threads.runs(2, 21, 3, threads.SLICE / 2)) == [(2, 8), (8, 14), (14, 20), (20, 21)]
    assert list(threads.runs(0, 4, 1, 5 * threads.SLICE, 2)) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    parts, seen = threads.window(), []

    def call():
        for part in range(10):
            here, parts[2] = parts[2], parts[2] + 1
            if parts[0] <= here < parts[1]:  # in slices: not all at once
                seen.append((len(calls), part))
        calls.append(None)

    calls = []
    threads.in_slices(parts, call, 3 * threads.SLICE)
    assert [part for _, part in seen] == list(range(10))
    assert len(calls) == 1 + 4  # 3, 3, 3 and 1 parts, after they have been counted
    assert parts.tolist() == threads.window().tolist()


# --- stops ------------------------------------------------------------------------------------------------------------


def test_a_fault_in_one_thread_stops_the_others():
    begun, waited = threading.Barrier(2), []

    def work(_, first, end, step):
        begun.wait(60)
        if first == 1:
            raise ZeroDivisionError("by the second")
        for _ in range(2000):  # 20 seconds, if nobody says to stop
            threads.check()
            waited.append(None)
            time.sleep(0.01)

    from test_empirical import threads as numba_threads

    if threads.numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("needs two threads")
    with numba_threads(2), pytest.raises(ZeroDivisionError, match="by the second"):
        threads.spread(2, False, work)
    assert len(waited) < 2000
    threads.check()


@pytest.mark.parametrize("at", [0, 1])
def test_ctrl_c_while_threads_are_being_started(at, monkeypatch):
    """The threads that are there already do not go on, and none is left."""
    from test_empirical import threads as numba_threads

    class Pool(threads.ThreadPoolExecutor):
        def submit(self, *arguments):
            done = super().submit(*arguments)
            if arguments[-1] == at:
                signal.raise_signal(signal.SIGINT)
            return done

    def work(*_):
        for _ in range(2000):  # 20 seconds, if nobody says to stop
            threads.check()
            waited.append(None)
            time.sleep(0.01)

    waited, before, handler = [], threading.active_count(), signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(threads, "ThreadPoolExecutor", Pool)
    if threads.numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("needs two threads")
    with numba_threads(2), pytest.raises(KeyboardInterrupt):
        threads.spread(2, False, work)
    assert len(waited) < 2000
    assert threading.active_count() == before
    assert signal.getsignal(signal.SIGINT) is handler


def test_threads_that_are_there_stop_where_no_more_can_be_had(monkeypatch):
    from test_empirical import threads as numba_threads

    class Pool(threads.ThreadPoolExecutor):
        def submit(self, *arguments):
            if arguments[-1] == 1:
                raise RuntimeError("can't start new thread")
            return super().submit(*arguments)

    def work(*_):
        for _ in range(2000):  # 20 seconds, if nobody says to stop
            threads.check()
            waited.append(None)
            time.sleep(0.01)

    waited = []
    monkeypatch.setattr(threads, "ThreadPoolExecutor", Pool)
    if threads.numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("needs two threads")
    with numba_threads(2), pytest.raises(RuntimeError, match="new thread"):
        threads.spread(2, False, work)
    assert len(waited) < 2000


def test_ctrl_c_is_what_the_caller_has_made_of_it():
    """A handler that does not raise is called at once, and stops nothing. Where Ctrl-C is ignored, it stays so."""
    called = []
    own = signal.signal(signal.SIGINT, lambda *_: called.append("own"))
    try:
        with threads._interrupt_later(lambda: called.append("told")):
            signal.raise_signal(signal.SIGINT)
            assert called == ["own"]
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with threads._interrupt_later(lambda: called.append("told")):
            signal.raise_signal(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with pytest.raises(KeyboardInterrupt), threads._interrupt_later(lambda: called.append("told")):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, own)
    assert called == ["own", "told"]


def test_a_ctrl_c_that_does_not_wake_the_main_thread_is_noticed():
    """As one that comes just as it begins to wait: the interpreter knows of it, and the thread waits on."""
    from test_empirical import threads as numba_threads

    def work(_, first, end, step):
        if first == 1:
            time.sleep(0.1)  # until the main thread waits
            _thread.interrupt_main()
        for _ in range(2000):  # 20 seconds, if nobody says to stop
            threads.check()
            waited.append(None)
            time.sleep(0.01)

    waited = []
    if threads.numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("needs two threads")
    with numba_threads(2), pytest.raises(KeyboardInterrupt):
        threads.spread(2, False, work)
    assert len(waited) < 2000


# Of each call the way into compiled code that it takes (`known_answers`), and how it is made. Any of them would take hours; its
# process is given minutes, and compiles first.
HOURS = {
    "seeds": ("outputs and kernels", "ntksim.empirical_ntk(ntksim.Network(2, 512), X, seeds=range(10**6))"),
    "outputs": ("outputs and kernels", "ntksim.network_outputs(ntksim.Network(2, 512), X, seeds=range(10**7))"),
    "wide": ("outputs and kernels", "ntksim.empirical_ntk(ntksim.Network(2, 10**6), X, seeds=[0])"),
    "in law": ("networks in law", "ntksim.empirical_ntk(ntksim.Network(2, 10**9), X, seeds=[0], sampling='conditional')"),
    "limit": ("limits", "ntksim.infinite_kernel(ntksim.Network(10**6, 1), np.random.default_rng(0).normal(size=(2000, 3)))"),
    "series": ("limits by series", "ntksim.infinite_kernel(ntksim.Network(10**6, 1, 'tanh'), X)"),
    "descent": (
        "gradient_descent",
        "ntksim.train(ntksim.Network(2, 9), X, X[:, 0], seeds=[0], method='gradient_descent', learning_rate=1e-9, steps=10**13)",
    ),
    "shallow descent": (
        "gradient_descent",
        "ntksim.train(ntksim.Network(1, 4096), X, X[:, 0], seeds=range(3), method='gradient_descent', learning_rate=1e-9, "
        "steps=10**10)",
    ),
    "wide descent": (
        "gradient_descent",
        "ntksim.train(ntksim.Network(2, 2048), X, X[:, 0], seeds=range(3), method='gradient_descent', learning_rate=1e-9, "
        "steps=10**8)",
    ),
    "flow": (
        "gradient_flow",
        "ntksim.train(ntksim.Network(2, 2048), X, X[:, 0], seeds=range(3000), times=np.linspace(0, 1, 20))",
    ),
}
SCRIPT = """
import threading, time
import numpy as np, ntksim
from ntksim.engine import known_answers, threads
known_answers.check({way!r})
X = np.random.default_rng(0).normal(size=(16, 4))
looks, check = [], threads.check

def counted():
    looks.append(None)
    if len(looks) == 5:
        print("begun", flush=True)
    check()

threads.check = counted
try:
    {call}
except KeyboardInterrupt:
    print("interrupted", time.time(), threading.active_count())
"""


def interrupted(code, *arguments):
    """Run a script, send it SIGINT once it has said that it has begun; returns what it said next, and the delay."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # which a shell has what it runs with & ignore
    )  # fmt: skip
    timer = threading.Timer(500, process.kill)  # with compilation
    timer.start()
    try:
        assert process.stdout.readline() == "begun\n", process.stderr.read()
        sent = time.time()
        process.send_signal(signal.SIGINT)
        said, fault = process.communicate()
    finally:
        timer.cancel()
        process.kill()
        process.wait()
    assert process.returncode == 0, fault
    return said.split(), float(said.split()[1]) - sent


@pytest.mark.parametrize("name", HOURS)
def test_long_calls_end_at_ctrl_c(name):
    """No thread of theirs goes on."""
    way, call = HOURS[name]
    (word, _, alive), delay = interrupted(SCRIPT.format(way=way, call=call))
    print(f"{name}: {delay:.3f} s")
    assert word == "interrupted"
    assert int(alive) == 1


KEPT = """
import sys, time
import numpy as np, ntksim
from ntksim.engine import known_answers
from ntksim.engine.training import checkpoints
known_answers.check("gradient_flow")
X = np.random.default_rng(0).normal(size=(16, 4))
finish, done = checkpoints.Checkpoints.finish, []

def told(*arguments):
    finish(*arguments)
    done.append(None)
    if len(done) == 5:
        print("begun", flush=True)

checkpoints.Checkpoints.finish = told
try:
    ntksim.train(ntksim.Network(2, 256), X, X[:, 0], seeds=range(3000), times=[0, 0.1], checkpoint=sys.argv[1])
except KeyboardInterrupt:
    print("interrupted", time.time())
"""


def test_seeds_that_are_done_are_kept_at_ctrl_c(tmp_path):
    (word, _), _ = interrupted(KEPT, str(tmp_path))
    assert word == "interrupted"
    (path,) = tmp_path.glob("done.*.checkpoint")
    found = checkpoints.read(path)
    assert 5 <= len(found["done"]) < 3000
    assert np.isfinite(found["outputs"]).all()


# --- bars -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bars(monkeypatch):
    """Bars of the kind that terminals have, whose text is kept; what each of them counted when it was closed."""
    tqdm = pytest.importorskip("tqdm", reason="tqdm is not installed: make")
    text, counts = io.StringIO(), []

    class Bar(tqdm.tqdm):
        def __init__(self, **options):
            super().__init__(**options, file=text, mininterval=0)

        def close(self):
            if not self.disable:
                counts.append((self.desc, self.total, round(self.n, 9)))
            super().close()

    monkeypatch.setattr("tqdm.auto.tqdm", Bar)
    return text, counts


def test_bars_count_every_seed_once(bars):
    text, counts = bars
    options = {"seeds": range(5), "progress": True}
    ntksim.network_outputs(NETWORK, X, **options)
    ntksim.empirical_ntk(NETWORK, X, **options)
    ntksim.empirical_ntk(ntksim.Network(1, 60, outputs=21), X, form="trace", **options)
    ntksim.empirical_ntk(ntksim.Network(2, 100), X, sampling="conditional", **options)
    ntksim.train(NETWORK, X, X[:, 0], method="gradient_descent", steps=20, **options)
    ntksim.train(NETWORK, X, X[:, 0], times=[0, 0.01, 0.1], **options)
    assert counts == [("outputs", 5, 5.0), *[("kernels", 5, 5.0)] * 3, *[("training", 5, 5.0)] * 2]
    assert "training: 100%|" in text.getvalue()
    assert "5.0/5 seeds" in text.getvalue()
    assert "t = 0.1" in text.getvalue()


def test_bars_close_where_a_call_fails(bars, monkeypatch):
    monkeypatch.setattr("ntksim.engine.cpu.passes.evaluate_seeds", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ntksim.empirical_ntk(NETWORK, X, seeds=range(5), progress=True)
    assert bars[1] == [("kernels", 5, 0.0)]
    assert threads.current() is None


def test_what_bars_need_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.delitem(sys.modules, "tqdm.auto", raising=False)
    with pytest.raises(ModuleNotFoundError, match="progress=True needs the package tqdm: pip install tqdm"):
        ntksim.empirical_ntk(NETWORK, X, seeds=[0], progress=True)
    with pytest.raises(TypeError, match="progress must be True or False; got 1"):
        ntksim.train(NETWORK, X, X[:, 0], seeds=[0], progress=1)
    with threads.shown(False, 5, "nothing"):
        assert threads.current() is None


# --- compilation ------------------------------------------------------------------------------------------------------

COMPILING = """
import numpy as np
import ntksim
x = np.arange(6.0).reshape(3, 2) + 1
for activation in ("relu", "tanh"):
    ntksim.infinite_kernel(ntksim.Network(2, 8, activation), x)
ntksim.one_hidden_layer_variance(ntksim.Network(1, 8), x)
"""


def test_compilation_is_told_of_once(tmp_path):
    """In a process that compiles, and in none that finds everything compiled."""
    said = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", COMPILING], env=threads.os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        said.append(done.stderr)
    assert said[0].startswith("ntksim: compiling its code")
    assert "`ntksim warm-up` does it beforehand" in said[0]
    assert said[0].count("\n") == 1
    assert said[1] == ""


WARM = """
import sys
import ntksim.cli
assert ntksim.cli.main(["warm-up"]) == 0
"""


def test_warm_up_says_what_it_does():
    done = subprocess.run([sys.executable, "-c", WARM], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert lines[0].startswith("ntksim: 1/")
    assert any("gradient descent in float32" in line for line in lines)
    assert "compiling" not in done.stderr
    assert done.stdout.startswith("Compiled code is in ")


def test_ctrl_c_while_the_command_is_imported_prints_no_traceback():
    """Also as ``python -m ntksim``."""
    script = """
import sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "ntksim.cli":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
from ntksim.__main__ import main
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "ntksim: error: interrupted; the same command goes on from here\n"
    done = subprocess.run([sys.executable, "-m", "ntksim", "--version"], capture_output=True, text=True)
    assert done.stdout == f"ntksim {ntksim.__version__}\n"
