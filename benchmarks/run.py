"""Time the engine on this machine, against its peers: `make bench`, or `python benchmarks/run.py --only kernels normals`.

Every time is the best of several warm runs. Two things that are compared take turns within the run, since machines are noisy. A
time is that of one seed, network, step or number, as the row says. "peak" is NumPy's rate for products of 2048 x 2048 matrices in
this process, on all threads. Shares of it count 4 n m^2 flops per hidden m x m layer of a kernel, and 6 n m^2 per m x m layer and
step of gradient descent. A section is a function that yields rows. The table goes to standard output, progress to standard error.
"""

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import descent
import numpy as np
import revealed as in_law
from circle import circle, drift
from scipy.integrate import solve_ivp
from table import Row, duration, machine, markdown, memory, per_second, plain
from timing import HERE, Peer, PeerError, alternate, best, fresh, one_turn

import ntksim
import studies
from ntksim.engine.cpu.compiled_network import columns_of, compiled_network
from ntksim.engine.cpu.machine import CpuMachine
from ntksim.engine.formulas.normals import fill_normals
from ntksim.engine.layout import for_descent
from ntksim.engine.machine import Task
from ntksim.engine.network import ACTIVATIONS

DTYPES = ("float32", "float64")
RELU = {"sigma_w": 2**0.5}
WITHOUT_PEERS = "--without-peers"
SHARES = {"float32": ("65%", "80%"), "float64": ("60%", "75%")}  # goals, as shares of the peak, for n = 64 and 256 at width 4,096


def report(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)


def points(n: int, d: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, d))


class Bench:
    """State that all sections share: options, measured peaks, and a peer process per precision, started when first needed."""

    def __init__(self, long: bool, with_peers: bool) -> None:
        self.long = long
        self.peaks = dict.fromkeys(DTYPES, 0.0)
        self._peers: dict[str, Peer] = {}
        self._with_peers = with_peers

    def measure_peaks(self) -> None:
        """Measure NumPy's rate. It is called before and after every section; the best one counts, since other work lowers it."""
        for dtype in DTYPES:
            a = points(2048, 2048).astype(dtype)
            self.peaks[dtype] = max(self.peaks[dtype], 2 * 2048**3 / best(partial(np.matmul, a, a), 0.5))

    def peer(self, dtype: str) -> Peer:
        if not self._with_peers:
            raise PeerError(WITHOUT_PEERS)
        if dtype not in self._peers:
            self._peers[dtype] = Peer(dtype)
        return self._peers[dtype]

    @property
    def has_peers(self) -> bool:
        return bool(self._peers)

    def versus(self, ours: Callable[[], object], count: int, dtype: str, name: str, task: str, **arguments: Any) -> dict:
        """Fields of a row: times of ours and of the peer, which take turns; only ours if there is no peer.

        A call of ``ours`` computes ``count`` networks or steps.
        """
        try:
            peer = self.peer(dtype)
            ways = peer.prepare(task, **arguments)
            report(f"  {name}: " + "; ".join(f"{way} {duration(seconds)}" for way, seconds in ways.items()))
            mine, theirs = alternate(ours, peer.turn)
        except PeerError as error:
            return {"ours": best(ours) / count, "against": f"peer skipped: {error}"}
        return {"ours": mine / count, "against": name, "theirs": theirs, "remarks": f"{name}: {next(iter(ways))}"}

    def close(self) -> None:
        for peer in self._peers.values():
            peer.close()


def geometric_means(rows: list[Row], dtype: str) -> Iterator[Row]:
    ratios = [row.ratio for row in rows if row.ratio is not None]
    if ratios:
        mean, least = math.exp(np.log(ratios).mean()), min(ratios)
        goal = "10x and 5x" if dtype == "float32" else "5x and 2.5x"
        what = f"{dtype}: geometric mean and smallest of the ratios"
        yield Row("kernels", what, against=f"{mean:.3g}x and {least:.3g}x", target=goal)


def kernels(bench: Bench) -> Iterator[Row]:
    """Initial kernels of ReLU networks, against neural-tangents; both include initialisation."""
    for dtype in DTYPES:
        rows = []
        x = points(64, 64)
        for depth, width, seeds in ((3, 256, 64), (3, 1024, 16), (3, 4096, 4), (1, 16384, 8), (1, 262144, 2)):
            network = ntksim.Network(depth, width, **RELU)
            ours = partial(ntksim.empirical_ntk, network, x, seeds=range(seeds), dtype=dtype)
            task = {"depth": depth, "width": width, "x": x.tolist(), "limit": ntksim.infinite_kernel(network, x).ntk.tolist()}
            fields = bench.versus(ours, seeds, dtype, "neural-tangents", "kernel", **task)
            flops = (depth - 1) * 4 * 64 * width**2 or None
            goal = SHARES[dtype][0] if width == 4096 else ""
            rows.append(Row("kernels", f"{dtype}, n = 64, {depth} x {width:,}", flops=flops, dtype=dtype, target=goal, **fields))
            yield rows[-1]
            if dtype == "float64":
                fields = bench.versus(ours, seeds, dtype, "drawn by hand in float32", "kernel", own=True, **task)
                yield Row("kernels", "  the same", dtype=dtype, **fields)
        yield from geometric_means(rows, dtype)
        more = partial(ntksim.empirical_ntk, ntksim.Network(3, 4096, **RELU), points(256, 64), seeds=[0, 1], dtype=dtype)
        spent = best(more) / 2
        flops, goal = 2 * 4 * 256 * 4096**2, SHARES[dtype][1]
        yield Row("kernels", f"{dtype}, n = 256, 3 x 4,096", spent, flops=flops, dtype=dtype, target=goal)


def small(bench: Bench) -> Iterator[Row]:
    """Many small networks with four hidden ReLU layers, d = 4, against the same formula in JAX."""
    for dtype in DTYPES:
        for width, n, seeds in ((80, 2, 20_000), (20, 2, 100_000), (80, 8, 10_000)):
            x = points(n, 4)
            ours = partial(ntksim.empirical_ntk, ntksim.Network(4, width, **RELU), x, seeds=range(seeds), dtype=dtype)
            fields = bench.versus(ours, seeds, dtype, "JAX", "small", depth=4, width=width, x=x.tolist())
            yield Row("small", f"{dtype}, networks of width {width} on {n} points", show=per_second, target="10x", **fields)
            if (width, n) == (80, 2):
                theirs = None if fields.get("theirs") is None else 5e6 * fields["theirs"]
                extrapolated = {"ours": 5e6 * fields["ours"], "theirs": theirs, "against": fields["against"]}
                goal = "120 s" if dtype == "float32" else "240 s"
                yield Row("small", f"{dtype}, 5,000,000 of them", **extrapolated, target=goal, remarks="extrapolated from 20,000")


def law(bench: Bench) -> Iterator[Row]:
    """Kernels of ReLU networks sampled without weights (`sampling="conditional"`), against sampling by weights."""
    network, x = partial(ntksim.Network, 3, **RELU), points(64, 64)

    def goal(ratio: int, dtype: str) -> str:
        """The goal of a ratio, which in float64 is 0.8 of that in float32."""
        return f"{ratio * (0.8 if dtype == 'float64' else 1):g}x"

    def sampled(width: int, some: np.ndarray, seeds: int, dtype: str, sampling: str = "conditional") -> Callable[[], object]:
        return partial(ntksim.empirical_ntk, network(width), some, seeds=range(seeds), dtype=dtype, sampling=sampling)

    for dtype in DTYPES:
        shapes = [(4096, x, 8, 10), (16384, x, 2, 40), (4096, points(256, 64), 2, 3)]
        for width, some, seeds, ratio in shapes + [(65536, x, 2, 150)] * bench.long:
            weights = one_turn(sampled(width, some, 2, dtype, "weights"))
            mine, theirs = alternate(sampled(width, some, seeds, dtype), weights)
            what = f"{dtype}, n = {len(some)}, 3 x {width:,}"
            yield Row("law", what, mine / seeds, "by weights", theirs / 2, target=goal(ratio, dtype))
        limit = ntksim.infinite_kernel(network(4096), x).ntk.tolist()
        task = {"depth": 3, "width": 4096, "x": x.tolist(), "limit": limit}
        fields = bench.versus(sampled(4096, x, 8, dtype), 8, dtype, "neural-tangents", "kernel", **task)
        yield Row("law", f"{dtype}, n = 64, 3 x 4,096", target=goal(50, dtype), **fields)
        few, small = points(2, 4), ntksim.Network(4, 80, **RELU)
        ours = partial(ntksim.empirical_ntk, small, few, seeds=range(100_000), dtype=dtype, sampling="conditional")
        fields = bench.versus(ours, 100_000, dtype, "JAX", "small", depth=4, width=80, x=few.tolist())
        times = {name: 5e6 * fields[name] for name in ("ours", "theirs") if name in fields}
        remarks = "4 x 80 neurons, two points; extrapolated from 100,000"
        target = "30 s, " * (dtype == "float32") + goal(10, dtype)
        yield Row("law", f"{dtype}, 5,000,000 small ones", target=target, **(fields | times | {"remarks": remarks}))
    for name, values in (("width", (4096, 16384, 65536)), ("points", (32, 64, 128, 256))):
        calls = [sampled(v, x, 2, "float32") if name == "width" else sampled(16384, points(v, 64), 2, "float32") for v in values]
        spent = [best(call) / 2 for call in calls]
        exponent = float(np.polyfit(np.log(values), np.log(spent), 1)[0])
        remarks = f"from {', '.join(map(duration, spent))} at {', '.join(f'{v:,}' for v in values)}"
        yield Row("law", f"exponent of the {name} in the time of one seed", exponent, show=plain, remarks=remarks)
    for width in [2**20] + [10**8] * bench.long:
        seen = fresh("one_seed", 3, width, "float32", 1, "conditional")
        remarks, target = f"peak memory {memory(seen['memory'])}", "3 s, 400 MB" if width == 2**20 else "6 min, 400 MB"
        yield Row("law", f"float32, one seed of 3 x {width:,}", seen["seconds"], target=target, remarks=remarks)


def revealed(bench: Bench) -> Iterator[Row]:
    """Training without weights."""
    return in_law.rows(bench.long)


def wide(bench: Bench) -> Iterator[Row]:
    """One seed of a wide ReLU network, n = 64, float32; each in a new process."""
    shapes = [(3, 32768), (1, 10**6)] + ([(3, 65536), (1, 10**7)] if bench.long else [])
    for depth, width in shapes:
        seen = fresh("one_seed", depth, width, "float32")
        peak, flops = f"peak memory {memory(seen['memory'])}", (depth - 1) * 4 * 64 * width**2 or None
        yield Row("wide", f"one seed of {depth} x {width:,}", seen["seconds"], flops=flops, dtype="float32", remarks=peak)
    widths = [1024, 2048, 4096, 8192]
    rounds = [[fresh("one_seed", 3, width, "float32", max(4, 32768 // width))["seconds"] for width in widths] for _ in range(2)]
    spent = np.min(rounds, axis=0)
    remarks = "from " + ", ".join(f"{s:.3g} s" for s in spent) + " at widths 1,024 to 8,192"
    exponent = float(np.polyfit(np.log(widths), np.log(spent), 1)[0])
    yield Row("wide", "exponent of the width in the time of one seed, depth 3", exponent, show=plain, target="2", remarks=remarks)
    call = partial(fresh, "one_seed", 3, 4096, "float32", 5)
    pairs = [(call()["seconds"], call(NUMBA_NUM_THREADS="1")["seconds"]) for _ in range(2)]
    every, single = map(min, zip(*pairs, strict=True))
    yield Row("wide", "one seed of 3 x 4,096 on all threads", every, "one thread", single)


def normals(bench: Bench) -> Iterator[Row]:
    """Standard normals on one core."""
    for dtype in DTYPES:
        out, rng = np.empty((256, 512), dtype), np.random.default_rng(0)
        words = [np.uint32(k) for k in range(4)]
        mine, numpys = alternate(
            partial(fill_normals, *words, 0, 0, out), one_turn(partial(rng.standard_normal, out.size, dtype)), 2.0
        )
        yield Row("normals", f"{dtype}, per number, one core", mine / out.size, "NumPy", numpys / out.size, target="0.7 ns")


def activations(bench: Bench) -> Iterator[Row]:
    """Kernels of networks with three hidden layers of 1,024 and other activations, against ReLU."""
    x = points(64, 64)
    for dtype in DTYPES:
        call = {
            name: partial(ntksim.empirical_ntk, ntksim.Network(3, 1024, name, sigma_w=0.7), x, seeds=range(8), dtype=dtype)
            for name in ACTIVATIONS
        }
        for name, function in call.items():
            if name != "relu":
                mine, relu = alternate(function, one_turn(call["relu"]), 2.0)
                yield Row("activations", f"{dtype}, {name}", mine / 8, "ReLU", relu / 8, target="0.77x")


def startup(bench: Bench) -> Iterator[Row]:
    """Start of a new process, with the compiled code in the cache, and with an empty cache."""
    fresh("first")
    warm = min(fresh("first")["wall"] for _ in range(3))
    yield Row("startup", "import and first kernel, warm cache", warm, target="2 s", remarks="time of the whole process")
    with tempfile.TemporaryDirectory() as folder:
        cold = fresh("everything", NUMBA_CACHE_DIR=folder)["wall"]
        again = fresh("everything", NUMBA_CACHE_DIR=folder)["wall"]
    remarks = f"kernels, outputs, training, limits, both precisions; the same again, from the cache, {again:.3g} s"
    yield Row("startup", "everything, empty cache", cold, target="60 s", remarks=remarks)


def training(bench: Bench) -> Iterator[Row]:
    """Gradient descent with two hidden ReLU layers of 1,024, n = 64, two seeds. Our time includes the draws of the weights."""
    x, y, steps, rate = points(64, 64), np.ones(64), 50, 1e-3
    network = ntksim.Network(2, 1024)
    for dtype in DTYPES:
        options = {"method": "gradient_descent", "learning_rate": rate, "times": [rate * steps], "dtype": dtype}
        ours = partial(ntksim.train, network, x, y, seeds=[0, 1], **options)
        task = {"width": 1024, "activation": "relu", "sigma_w": 1.0, "x": x.tolist(), "y": y.tolist(), "rate": rate}
        fields = bench.versus(ours, 2 * steps, dtype, "JAX", "descent", **task, steps=steps, networks=2)
        flops = 6 * 64 * 1024**2
        yield Row(
            "training", f"{dtype}, a step of descent of one of two seeds", flops=flops, dtype=dtype, target="60%, 1.5x", **fields
        )


def limits(bench: Bench) -> Iterator[Row]:
    """Infinite-width kernels at depth 3: ReLU in closed form, and tanh by series, against ReLU on the same points."""
    n = 10_000 if bench.long else 4_000
    yield Row("limits", f"ReLU, {n:,} points", best(partial(ntksim.infinite_kernel, ntksim.Network(3, 1), points(n, 64)), 1.0, 2))
    x = points(2000, 64)
    sphere = 8 * x / np.linalg.norm(x, axis=1, keepdims=True)
    for where, some in (("on the sphere", sphere), ("off the sphere", x)):
        relu, tanh = (partial(ntksim.infinite_kernel, ntksim.Network(3, 1, name), some) for name in ("relu", "tanh"))
        mine, closed = alternate(tanh, one_turn(relu), least=2)
        remarks = f"{mine / closed:.3g} times the closed form's time"
        yield Row("limits", f"tanh, {len(some):,} points {where}", mine, "ReLU", closed, target="0.33x", remarks=remarks)


def flow(bench: Bench) -> Iterator[Row]:
    """Gradient flow on 128 points, a stiff problem, to t = 20 / lambda_min, against descent with learning rate 1 / lambda_max."""
    from ntksim.study.config.dataset import Dataset
    from ntksim.study.data.dataset import load

    data = load(Dataset(name="digits", classes=[4, 9], train=128, test=32))
    x, y, network = data.x_train, data.y_train, ntksim.Network(2, 1024, "tanh", sigma_w=1.5)
    values = np.linalg.eigvalsh(ntksim.infinite_kernel(network, x).ntk)
    end, rate = 20 / values[0], 1 / values[-1]
    steps = math.ceil(end / rate)
    ours = partial(ntksim.train, network, x, y, seeds=[0], times=[0, end], tolerance=1e-4)
    task = {"width": 1024, "activation": "tanh", "sigma_w": 1.5, "x": x.tolist(), "y": y.tolist(), "rate": float(rate)}
    fields = bench.versus(ours, 1, "float64", "JAX's descent", "descent", **task, steps=20, networks=1)
    if "theirs" in fields:
        step = fields["theirs"]
        fields["theirs"] = step * steps
        fields["remarks"] += f"; extrapolated: {steps:,} steps of {1e3 * step:.3g} ms"
    yield Row("flow", "float64, 128 digits, tanh, 2 x 1,024, tolerance 1e-4", target="50x", **fields)
    options = {"method": "gradient_descent", "learning_rate": rate, "times": [20 * rate]}
    mine = best(partial(ntksim.train, network, x, y, seeds=[0], **options), 2.0, 2) / 20
    remarks = f"extrapolated: {steps:,} steps of {1e3 * mine:.3g} ms"
    yield Row("flow", "the same by ntksim's gradient descent", mine * steps, remarks=remarks)
    yield from runge_kutta(network, x, y, end)


def runge_kutta(network: ntksim.Network, x: np.ndarray, y: np.ndarray, end: float) -> Iterator[Row]:
    """SciPy's explicit adaptive methods with this engine's gradient, run for a fiftieth of the training time and extrapolated.

    Stability limits the length of their steps, so their cost is proportional to the training time. The error is the root mean
    square difference of the outputs from gradient flow with tolerance 1e-8, relative to the initial residual.
    """
    few = end / 50
    exact = ntksim.train(network, x, y, seeds=[0], times=[0, few], tolerance=1e-8).outputs[0]
    size = np.sqrt(np.mean((exact[0] - y) ** 2))
    own = compiled_network(network, x.shape[1])
    task = Task(own, columns_of(x, None, np.dtype(float), "cpu"), y, None, None, False)
    machine = CpuMachine(1, np.uint64(0), task)
    room = for_descent(machine.make_room())

    def outputs(theta: np.ndarray) -> np.ndarray:
        return machine.evaluate(theta, room)[0]

    def velocity(_: float, theta: np.ndarray) -> np.ndarray:
        residual, moved = outputs(theta) - y, np.zeros_like(theta)
        machine.pull_back(room, residual, moved)
        return moved

    for method in ("RK45", "DOP853"):
        begin = time.perf_counter()
        found = solve_ivp(velocity, (0, few), machine.draw(), method, rtol=1e-6, atol=1e-7)
        seconds = 50 * (time.perf_counter() - begin)
        error = np.sqrt(np.mean((outputs(found.y[:, -1]) - exact[1]) ** 2)) / size
        remarks = f"extrapolated from {found.nfev} gradients for a fiftieth of the training time; error {error:.1g} at its end"
        yield Row("flow", f"the same by SciPy's {method}, one core", seconds, remarks=remarks)


def prediction(bench: Bench) -> Iterator[Row]:
    """Predictions for the jobs of the study in results/."""
    return studies.prediction(HERE.parent / "results")


def registers(bench: Bench) -> Iterator[Row]:
    """Registers of CUDA kernels, which can be compiled without a GPU."""
    if find_spec("numba_cuda") is None:
        yield Row("registers", "CUDA kernels", remarks="numba-cuda is not installed: make cuda")
        return
    import ptx

    yield from ptx.register_rows()


SECTIONS = (
    kernels,
    small,
    law,
    revealed,
    wide,
    normals,
    activations,
    startup,
    training,
    descent.small_descent,
    descent.crowded,
    limits,
    flow,
    circle,
    drift,
    prediction,
    registers,
)


def measured(bench: Bench, section: Callable[[Bench], Iterator[Row]]) -> Iterator[Row]:
    """Yield a section's rows, and report them on standard error as they come. A failure becomes a row, and the run goes on."""
    start = time.perf_counter()
    bench.measure_peaks()
    try:
        for row in section(bench):
            report(f"[{row.section}] " + "  ".join(cell for cell in row.cells(bench.peaks) if cell))
            yield row
    except Exception as error:
        report(f"[{section.__name__}] failed: {error!r}")
        yield Row(section.__name__, "failed", remarks=repr(error).replace("|", "/"))
    bench.measure_peaks()
    report(f"[{section.__name__}] {time.perf_counter() - start:.0f} s in total")


def main() -> int:
    """Run the benchmark and print its table. Returns 1 if a section failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = {section.__name__: section for section in SECTIONS}
    parser.add_argument("--only", nargs="+", choices=names, metavar="SECTION", help=f"sections to run: {', '.join(names)}")
    long = (
        "also time kernels in law at widths 65,536 and 10^8, by weights at 65,536 and 10^7, training in law at 16,384 and "
        "1,048,576, the circle at width 10,000, the experiment of the section drift, and limits of 10,000 points"
    )
    parser.add_argument("--long", action="store_true", help=long)
    parser.add_argument(WITHOUT_PEERS, action="store_true", help="time ntksim alone")
    options = parser.parse_args()
    bench = Bench(options.long, not options.without_peers)
    try:
        rows = [row for name in options.only or names for row in measured(bench, names[name])]
    finally:
        bench.close()
    print(machine(bench.peaks))
    if bench.has_peers:
        pins = [line for line in (HERE / "peers.txt").read_text().split() if line.startswith(("jax==", "neural-tangents=="))]
        print(f"- peers: {', '.join(pins)}")
    print(f"\n{markdown(rows, bench.peaks)}")
    return any(row.what == "failed" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
