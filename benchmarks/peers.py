"""The benchmark's peers in JAX. run.py starts this script as a process in the environment of peers.txt.

`python peers.py float32` reads lines of JSON and answers each with a line of JSON, until its input ends:

    {"task": name, "arguments": {...}}  ->  {"ways": {variant: seconds}}   all compiled, checked and timed; the fastest is kept
    {"turn": seconds}                   ->  {"seconds": best}              the kept variant, jitted, until its result is ready
    any failure                         ->  {"error": message}

A task has several variants, since none is the fastest at every size. README.md lists variants that were tried and were slower
everywhere. Seconds are those of one network, or of one step of gradient descent.
"""

# ruff: noqa: E402 (JAX is imported after its environment variables are set)

import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import ModuleType
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
sys.modules["neural_tangents.experimental"] = ModuleType("experimental")  # the only module that would import TensorFlow

import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
from jax import lax
from neural_tangents import stax
from timing import best

DOUBLE = sys.argv[1] == "float64"
jax.config.update("jax_enable_x64", DOUBLE)
DTYPE = jnp.dtype(sys.argv[1])
GENERATORS = {"threefry": "threefry2x32", "rbg": "unsafe_rbg"}  # JAX's default generator, and its fast one
CORES = len(os.sched_getaffinity(0))
POOL = ThreadPoolExecutor(CORES)

Ways = Iterator[tuple[str, int, Callable[[], Any]]]  # name, networks (or steps) in a call, call


def normals(key: jax.Array, *shape: int) -> jax.Array:
    """Standard normals, drawn in float32 as in ntksim; in float64 jax.random.normal takes at least twice as long."""
    return jax.random.normal(key, shape, jnp.float32).astype(DTYPE)


def key(generator: str) -> jax.Array:
    return jax.random.key(0, impl=GENERATORS[generator])


def on_threads(function: Callable[[Any], Any], parts: list[Any]) -> list[Any]:
    """Call a function on every core, each with a part. XLA itself runs small operations on one core only."""
    return list(POOL.map(lambda part: jax.block_until_ready(function(part)), parts))


def require_close(what: str, got: Any, expected: Any, tolerance: float) -> None:
    error = np.linalg.norm(np.asarray(got) - expected) / np.linalg.norm(expected)
    if not error <= tolerance:
        raise ValueError(f"the error of {what} is {error:.2g}; allowed is {tolerance:.2g}")


# neural-tangents' empirical kernel of a ReLU network, initialisation included


def kernel(depth: int, width: int, x: list, limit: list, own: bool = False) -> Ways:
    """Variants of neural-tangents' kernel. Their mean over seeds is checked against the infinite-width kernel ``limit``.

    With ``own`` this script draws the weights in float32, as ntksim does; otherwise neural-tangents draws them in the kernel's
    precision.
    """
    x = jnp.asarray(x, DTYPE)
    hidden = [stax.Dense(width, W_std=2**0.5, b_std=None), stax.Relu()] * depth
    init, apply, _ = stax.serial(*hidden, stax.Dense(1, W_std=1.0, b_std=None))
    structured = nt.NtkImplementation.STRUCTURED_DERIVATIVES
    ntk = nt.empirical_ntk_fn(apply, trace_axes=(-1,), vmap_axes=0, implementation=structured)

    def given(key: jax.Array) -> Any:
        return init(key, x.shape)[1]

    def drawn(key: jax.Array) -> Any:
        leaves, tree = jax.tree_util.tree_flatten(jax.eval_shape(given, key))
        keys = jax.random.split(key, len(leaves))
        return tree.unflatten([normals(k, *leaf.shape) for k, leaf in zip(keys, leaves, strict=True)])

    def of(parameters: Any) -> jax.Array:
        return ntk(x, None, parameters)

    draw = drawn if own else given

    def together(key: jax.Array) -> jax.Array:
        return of(draw(key))

    one, first, second = jax.jit(together), jax.jit(draw), jax.jit(of)
    firsts, seconds = jax.jit(jax.vmap(draw)), jax.jit(jax.vmap(of))
    for generator in GENERATORS:
        seed = key(generator)
        keys = jax.random.split(seed, 8)
        require_close("the mean kernel", sum(second(first(k)) for k in keys[:2]) / 2, np.asarray(limit), 8 / (2 * width) ** 0.5)
        yield f"{generator}, one jit", 1, partial(one, seed)
        yield f"{generator}, two jits", 1, lambda seed=seed: second(first(seed))
        if width <= 512:
            yield f"{generator}, two jits, vmap of 8", 8, lambda keys=keys: seconds(firsts(keys))
            parts = list(keys) * CORES
            yield f"{generator}, one jit, {CORES} threads", len(parts), partial(on_threads, one, parts)


# many small networks: the structured form by hand, under vmap


def structured(xp: ModuleType, x: Any, weights: list, readout: Any) -> Any:
    """Kernel of a ReLU network without biases, ``ntk`` parameterization, sigma_w^2 = 2; ``xp`` is jax.numpy or numpy."""
    h = [x]
    for w in weights:
        h.append(xp.maximum((2 / len(w)) ** 0.5 * (h[-1] @ w), 0))
    total = h[-1] @ h[-1].T / len(readout)
    delta = (h[-1] > 0) * readout / len(readout) ** 0.5
    for layer in reversed(range(len(weights))):
        w, below = weights[layer], h[layer]
        total = total + (delta @ delta.T) * (2 / len(w) * (below @ below.T))
        if layer:
            delta = (2 / len(w)) ** 0.5 * (delta @ w.T) * (below > 0)
    return total


def small(depth: int, width: int, x: list) -> Ways:
    x = jnp.asarray(x, DTYPE)
    sizes = [x.shape[1]] + [width] * depth
    drawn = sum(a * width for a in sizes[:-1]) + width

    def draw(key: jax.Array) -> tuple[list, jax.Array]:
        keys = jax.random.split(key, depth + 1)
        return [normals(k, a, width) for k, a in zip(keys[:-1], sizes[:-1], strict=True)], normals(keys[-1], width)

    def one(key: jax.Array) -> jax.Array:
        return structured(jnp, x, *draw(key))

    def chunked(keys: jax.Array, chunk: int) -> jax.Array:
        return lax.map(jax.vmap(one), keys.reshape(-1, chunk))

    weights, readout = jax.device_get(draw(key("threefry")))
    require_close("a kernel", one(key("threefry")), structured(np, np.asarray(x), weights, readout), 1e-4)
    chunks = [2 ** int(np.log2(2**power / drawn)) for power in (21, 22)]  # 8 and 16 MB of normals at a time
    count = 4 * CORES * chunks[1]
    for generator in GENERATORS:
        keys = jax.random.split(key(generator), count)
        runs = {chunk: jax.jit(partial(chunked, chunk=chunk)) for chunk in chunks}
        if generator == "threefry":
            yield f"threefry, vmap of {chunks[1]}", chunks[1], partial(jax.jit(jax.vmap(one)), keys[: chunks[1]])
            yield f"threefry, lax.map of vmap of {chunks[1]}", count, partial(runs[chunks[1]], keys)
        for chunk, run in runs.items():
            parts = list(keys.reshape(CORES, -1))
            yield f"{generator}, lax.map of vmap of {chunk}, {CORES} threads", count, partial(on_threads, run, parts)


# full-batch gradient descent on 1/2 sum r^2: a jitted scan


def descent(width: int, activation: str, sigma_w: float, x: list, y: list, rate: float, steps: int, networks: int) -> Ways:
    """Variants of gradient descent with two hidden layers, ``ntk`` parameterization. Only steps are timed, not the draws."""
    x, y = jnp.asarray(x, DTYPE), jnp.asarray(y, DTYPE)
    sizes, (phi, slope) = [x.shape[1], width, width], ACTIVATIONS[activation]
    scales = [sigma_w / a**0.5 for a in sizes[:-1]] + [1 / width**0.5]
    keys = jax.random.split(key("threefry"), 3)
    theta = [normals(k, *shape) for k, shape in zip(keys, (sizes[:2], sizes[1:], sizes[2:]), strict=True)]

    def loss(theta: list) -> jax.Array:
        h = x
        for w, g in zip(theta[:-1], scales, strict=False):
            h = phi(jnp, g * (h @ w))
        return ((scales[-1] * (h @ theta[-1]) - y) ** 2).sum() / 2

    def automatic(theta: list, _: None) -> tuple[list, None]:
        return [w - rate * d for w, d in zip(theta, jax.grad(loss)(theta), strict=True)], None

    def by_hand(theta: list, _: None, xp: ModuleType = jnp) -> tuple[list, None]:
        h = [x]
        for w, g in zip(theta[:-1], scales, strict=False):
            h.append(phi(xp, g * (h[-1] @ w)))
        residual = scales[-1] * (h[-1] @ theta[-1]) - y
        delta = scales[-1] * residual[:, None] * theta[-1] * slope(h[-1])
        new = [None, None, theta[-1] - rate * scales[-1] * (residual @ h[-1])]
        for layer in (1, 0):
            new[layer] = theta[layer] - rate * scales[layer] * (h[layer].T @ delta)
            if layer:
                delta = scales[layer] * (delta @ theta[layer].T) * slope(h[layer])
        return new, None

    def scan(step: Callable, length: int, unroll: int = 1) -> Callable[[list], list]:
        return jax.jit(lambda theta: lax.scan(step, theta, None, length, unroll=unroll)[0])

    expected = [np.asarray(w, np.float64) for w in theta]
    for _ in range(3):
        expected = by_hand(expected, None, np)[0]
    for step in (automatic, by_hand):
        for got, want, start in zip(scan(step, 3)(theta), expected, theta, strict=True):
            require_close("the movement", got - start, want - np.asarray(start), 1e-9 if DOUBLE else 1e-2)
    yield "jax.grad", steps, partial(scan(automatic, steps), theta)
    yield "gradient by hand", steps, partial(scan(by_hand, steps), theta)
    yield "gradient by hand, unrolled by 4", steps, partial(scan(by_hand, steps, 4), theta)
    if networks > 1:
        together = partial(on_threads, scan(by_hand, steps), [theta] * networks)
        yield f"gradient by hand, {networks} networks on {CORES} threads", networks * steps, together


# full-batch gradient descent of one hidden ReLU layer with biases: a jitted scan


def shallow_descent(width: int, x: list, y: list, rate: float, steps: int) -> Ways:
    """Variants of gradient descent with one hidden layer, ``ntk`` parameterization, sigma_w 1 and sigma_b 0.1."""
    x, y = jnp.asarray(x, DTYPE), jnp.asarray(y, DTYPE)
    first, shift, last = 1 / x.shape[1] ** 0.5, 0.1, 1 / width**0.5
    keys = jax.random.split(key("threefry"), 3)
    theta = [normals(k, *shape) for k, shape in zip(keys, ((x.shape[1], width), (width,), (width,)), strict=True)]

    def loss(theta: list) -> jax.Array:
        h = jnp.maximum(first * (x @ theta[0]) + shift * theta[1], 0)
        return ((last * (h @ theta[2]) - y) ** 2).sum() / 2

    def automatic(theta: list, _: None) -> tuple[list, None]:
        return [w - rate * d for w, d in zip(theta, jax.grad(loss)(theta), strict=True)], None

    def by_hand(theta: list, _: None, xp: ModuleType = jnp, columns: bool = False) -> tuple[list, None]:
        """With ``columns`` the product with x is a sum over its columns, which XLA fuses with what follows."""
        w, b, a = theta
        product = sum(x[:, d : d + 1] * w[d] for d in range(x.shape[1])) if columns else x @ w
        h = xp.maximum(first * product + shift * b, 0)
        residual = last * (h @ a) - y
        delta = last * residual[:, None] * a * (h > 0)
        return [w - rate * first * (x.T @ delta), b - rate * shift * delta.sum(0), a - rate * last * (residual @ h)], None

    def scan(step: Callable, length: int, unroll: int = 1) -> Callable[[list], list]:
        return jax.jit(lambda theta: lax.scan(step, theta, None, length, unroll=unroll)[0])

    expected = [np.asarray(w, np.float64) for w in theta]
    for _ in range(3):
        expected = by_hand(expected, None, np)[0]
    steps_of = {
        "jax.grad": automatic,
        "gradient by hand": by_hand,
        "gradient by hand, by columns": partial(by_hand, columns=True),
    }
    for name, step in steps_of.items():
        for got, want, start in zip(scan(step, 3)(theta), expected, theta, strict=True):
            require_close("the movement", got - start, want - np.asarray(start), 1e-9 if DOUBLE else 1e-2)
        yield name, steps, partial(scan(step, steps), theta)
        yield f"{name}, unrolled by 4", steps, partial(scan(step, steps, 4), theta)


ACTIVATIONS = {  # the value as a function of z, and the derivative as a function of the value
    "relu": (lambda xp, z: xp.maximum(z, 0), lambda h: h > 0),
    "tanh": (lambda xp, z: xp.tanh(z), lambda h: 1 - h * h),
}
TASKS = {"kernel": kernel, "small": small, "descent": descent, "shallow_descent": shallow_descent}


def fastest(ways: Ways) -> tuple[dict[str, float], tuple[int, Callable[[], Any]]]:
    """Seconds of every variant, the fastest first, and the fastest variant itself. The fastest three are timed twice."""
    seconds, calls = {}, {}
    for name, count, call in ways:
        calls[name] = count, lambda call=call: jax.block_until_ready(call())
        seconds[name] = best(calls[name][1], 0.3, 2) / count
    for name in sorted(seconds, key=seconds.get)[:3]:
        count, call = calls[name]
        seconds[name] = min(seconds[name], best(call, 0.6, 2, warm=False) / count)
    names = sorted(seconds, key=seconds.get)
    return {name: seconds[name] for name in names}, calls[names[0]]


def serve() -> None:
    """Answer requests. Anything that libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    kept: tuple[int, Callable[[], Any]] | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "task" in request:
                kept = None  # frees its arrays
                ways, kept = fastest(TASKS[request["task"]](**request["arguments"]))
                reply = {"ways": ways}
            else:
                count, call = kept
                reply = {"seconds": best(call, request["turn"], 1, warm=False) / count}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    serve()
