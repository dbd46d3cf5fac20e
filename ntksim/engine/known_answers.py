"""Known answers of compiled code: each way into it is tried, in milliseconds, when a process first takes it.

A cache may hold wrong code for reasons that nobody has thought of. Where an answer is wrong, the cache is set aside,
all code is compiled anew in this process, and the answer is asked for again.

Numbers below are in float64, at two points and for seed 3, and hold for every precision and device within ``_TOLERANCES``; the
tests compare them with the oracle.
"""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numba import config

from ntksim.engine.activation import about
from ntksim.engine.compiled import code_cache
from ntksim.engine.compiled.jit import compile_anew
from ntksim.engine.devices import DeviceError
from ntksim.engine.network import Network
from ntksim.engine.threads import Call, working_for

Answers = Iterator[tuple[str, Any, Any]]  # what was asked, what came out, and what is right

POINTS = np.array([[1.0, -0.5, 0.25], [-0.75, 0.5, 1.5]])
TARGETS = np.array([1.0, -0.5])
SEED = 3
_TOLERANCES = {"float64": 1e-9, "float32": 1e-4}  # relative; wrong code is off by much more
_STEPS = 1e-3  # of gradient flow, whose steps depend on the library of the eigenvectors too
# The two, over and over: more than a register block takes in either precision on any processor, and an odd number of its parts.
_MANY = 112

_lock = threading.RLock()
_passed: set[tuple[str, ...]] = set()
_asked: set[tuple[str, ...]] = set()  # by the thread that holds the lock


def check(way: str, dtype: str = "float64", device: str = "cpu", activation: str = "relu") -> None:
    """Compare known answers of a way into compiled code, one of ``WAYS``, unless that has been done in this process.

    What is compiled for an activation alone is asked about with its name, which may be that of a user's own.

    Warns with RuntimeWarning where they are wrong and the code was compiled anew.

    Raises
    ------
    DeviceError if freshly compiled code is wrong too.
    """
    key = way, dtype, device, activation
    if key in _passed or (device == "cuda" and config.ENABLE_CUDASIM):  # a simulator's code is Python
        return
    with _lock:
        if key in _passed or key in _asked:  # or this is the question itself
            return
        _asked.add(key)
        try:
            with working_for(Call()):  # whatever the call that asks shows, this is none of it
                fault = _fault(way, dtype, device, activation)
            if fault:
                code_cache.set_aside(fault)
                compile_anew()
                _passed.clear()
                fault = _fault(way, dtype, device, activation)
            if fault:
                raise DeviceError(
                    f"device={device!r} cannot be used: even code that was compiled just now is wrong: {fault}; report this, and "
                    "try another version of numba"
                )
            _passed.add(key)
        finally:
            _asked.discard(key)


def _fault(way: str, dtype: str, device: str, activation: str) -> str | None:
    try:
        answers = list(WAYS[way](dtype, device, activation))
    except (ArithmeticError, IndexError, SystemError, ValueError) as error:  # of wrong code; others say themselves what is wrong
        return f"{way} in {dtype} on {device} fail ({' '.join(str(error).split())[:200]})"
    for what, found, right in answers:
        tolerance = _STEPS if way == "gradient_flow" else _TOLERANCES[dtype]
        if not np.abs(np.asarray(found, np.float64) - right).max() <= tolerance * np.abs(right).max():
            return f"{way} of {what} in {dtype} on {device} are wrong"
    return None


def _seeds(device: str) -> list[int]:
    """The seed, once for every GPU: each has code of its own."""
    if device == "cpu":
        return [SEED]
    from numba import cuda

    return [SEED] * len(cuda.gpus)


def network_of(activation: str, width: int, depth: int = 2) -> Network:
    """The networks that are asked about."""
    return Network(depth, width, activation, sigma_w=1.25, sigma_a=0.75, sigma_b=0.5, output_bias=True)


def _parameters(dtype: str, device: str, activation: str) -> Answers:
    from ntksim.engine.finite.parameters import sample_parameters

    drawn = sample_parameters(network_of("relu", 9), 3, SEED, dtype)
    biases = drawn.biases[1] if drawn.biases is not None else None
    assert biases is not None
    found = [drawn.weights[0][8, 2], drawn.weights[1][5, 7], biases[3], drawn.readout[4], drawn.output_bias]
    yield "a network", found, PARAMETERS
    for name, right in DRAWN.items():
        drawn = sample_parameters(Network(2, 9, "relu", "standard", initialiser=name), 3, SEED, dtype)
        yield f"a network of {name}", [drawn.weights[0][8, 2], drawn.weights[1][5, 7], drawn.readout[4]], right


def _activation(dtype: str, device: str, activation: str) -> Answers:
    from ntksim.engine.formulas.blocks import block_of, code_of

    if activation in VALUES:
        z, parameter = np.array([-0.75, 0.75], dtype), float((about(activation).parameter or (0.0, 0.0))[1])
        slope = np.empty_like(z)
        block_of(code_of(activation)).loop(parameter, z, slope)
        yield f"the function {activation}", [*z, *slope], VALUES[activation]


def _initial(dtype: str, device: str, activation: str) -> Answers:
    """ReLU and the activation; a network of several panels; many points: every register block, and on a GPU layer by layer."""
    from ntksim.engine.finite.empirical import empirical_ntk, network_outputs

    seeds, many = _seeds(device), np.arange(_MANY) % 2
    for name, width in dict.fromkeys([("relu", 9), ("relu", 400), (activation, 9)]):
        if (name, width) not in INITIAL:
            continue
        first, second, k11, k12, k22 = INITIAL[name, width]
        network, kernel = network_of(name, width), np.array([[k11, k12], [k12, k22]])
        for chosen in (many[:2], many) if (name, width) == ("relu", 9) else (many[:2],):
            x = POINTS[chosen]
            outputs = network_outputs(network, x, seeds=seeds, dtype=dtype, device=device)
            yield f"{name} networks", outputs, np.array([first, second])[chosen]
            kernels = empirical_ntk(network, x, seeds=seeds, dtype=dtype, device=device)
            yield f"kernels of {name} networks", kernels, kernel[np.ix_(chosen, chosen)]


def _in_law(dtype: str, device: str, _: str) -> Answers:
    """Networks that are conditioned in every layer, in one panel and in several chunks."""
    from ntksim.engine.finite.empirical import empirical_ntk, network_outputs

    options: dict[str, Any] = {"seeds": _seeds(device), "dtype": dtype, "device": device, "sampling": "conditional"}
    for (name, width), (first, second, k11, k12, k22) in IN_LAW.items():
        network = network_of(name, width)
        yield f"{name} networks", network_outputs(network, POINTS, **options), [first, second]
        yield f"kernels of {name} networks", empirical_ntk(network, POINTS, **options), np.array([[k11, k12], [k12, k22]])


def _descent(dtype: str, device: str, activation: str) -> Answers:
    yield from _training("gradient descent", DESCENT, dtype, device, momentum=0.5, steps=3, learning_rate=0.125)
    batches: dict[str, Any] = {"batch_size": 1, "steps": 3, "learning_rate": 0.125}
    yield from _training("stochastic gradient descent", STOCHASTIC, dtype, device, **batches)
    if device == "cpu":
        shallow: dict[str, Any] = {"width": 150, "depth": 1, "momentum": 0.5, "steps": 3, "learning_rate": 0.125}
        yield from _training("gradient descent of one hidden layer", SHALLOW, dtype, device, **shallow)


def _flow(dtype: str, device: str, activation: str) -> Answers:
    yield from _training("gradient flow", FLOW, dtype, device, times=[0.0, 0.5])
    kinked: dict[str, Any] = {"activation": "relu", "width": 40, "depth": 1}
    yield from _training("gradient flow of gates", FLOW_OF_GATES, dtype, device, times=[0.0, 2.0], **kinked)


def _training(
    what: str, right: tuple[float, ...], dtype: str, device: str, activation: str = "erf", width: int = 9, depth: int = 2,
    **options: Any,
) -> Answers:  # fmt: skip
    from ntksim.engine.training.train import train

    method = "gradient_flow" if "times" in options else "gradient_descent"
    run = train(
        network_of(activation, width, depth), POINTS, TARGETS, seeds=_seeds(device), method=method, x_test=POINTS[:1],
        dtype=dtype, device=device, **options,
    )  # fmt: skip
    for seed in range(len(run.outputs)):
        drifts = run.parameter_drift[seed, -1], run.kernel_drift[seed, -1]
        assert run.test_kernel is not None
        yield what, [*run.outputs[seed, -1], *drifts, run.kernel[seed, 0, 1], run.test_kernel[seed, 0, 1]], (*right, right[-1])


def _training_in_law(dtype: str, device: str, activation: str) -> Answers:
    """Descents that ask for half of the directions, biases and test points included."""
    options: dict[str, Any] = {"width": 24, "momentum": 0.5, "steps": 3, "learning_rate": 0.125, "sampling": "conditional"}
    yield from _training("erf networks", TRAINED_IN_LAW, dtype, device, **options)


def _limit(dtype: str, device: str, activation: str) -> Answers:
    from ntksim.engine.infinite.kernel import infinite_kernel

    # The kernel of exp at the points themselves spans 20 orders of magnitude.
    kernel = infinite_kernel(network_of(activation, 9), POINTS / 2 if activation == "exp" else POINTS)
    yield f"{activation} networks", [*kernel.nngp[0], *kernel.ntk[0]], LIMITS[activation]


def _variance(dtype: str, device: str, activation: str) -> Answers:
    from ntksim.engine.infinite.variance import one_hidden_layer_variance

    for name in dict.fromkeys(["relu", activation]):
        if name in VARIANCES:
            found = one_hidden_layer_variance(Network(1, 9, name, sigma_b=0.5), POINTS)
            yield f"{name} networks", found[0], VARIANCES[name]


WAYS: dict[str, Callable[[str, str, str], Answers]] = {
    "activation": _activation,
    "parameters": _parameters,
    "outputs and kernels": _initial,
    "networks in law": _in_law,
    "gradient_descent": _descent,
    "gradient_flow": _flow,
    "training in law": _training_in_law,
    "limits": _limit,
    "limits by series": _limit,
    "variances": _variance,
}

_IN_FLOAT64 = ("limits", "limits by series", "variances")  # whatever the precision of networks


def warm_up(say: Callable[[str], None]) -> None:
    """Compile and keep what Python calls: take every way into compiled code on the processor, in both precisions.

    ``say`` is given a line for each. Ctrl-C ends it between two functions; what has been compiled is kept.
    """
    code_cache.say_nothing()
    ways = [(way, dtype) for way in WAYS for dtype in _TOLERANCES if dtype == "float64" or way not in _IN_FLOAT64]
    for number, (way, dtype) in enumerate(ways, 1):
        begun = time.monotonic()
        for activation in ("tanh", "elu") if way == "limits by series" else ("relu",):  # by Mehler's series, and by sectors
            check(way, dtype, activation=activation)
        what = way.replace("_", " ") + ("" if way in _IN_FLOAT64 else f" in {dtype}")
        say(f"{number}/{len(ways)} {what}: {time.monotonic() - begun:.0f} s")


PARAMETERS = (-0.301326572895, -0.549470245838, 0.288722872734, -0.046480294317, -1.35429251194)
# Two weights and a readout of other distributions.
DRAWN = {
    "torch": (-0.175183713436, 0.0961923226714, -0.0112437065691),
    "flax": (-0.243737131357, 0.133534044027, -0.0152955558151),
}
# Activation: values and slopes at -0.75 and 0.75.
VALUES = {
    "relu": (0.0, 0.75, 0.0, 1.0),
    "erf": (-0.711155633654, 0.711155633654, 0.642931069195, 0.642931069195),
    "tanh": (-0.635148952387, 0.635148952387, 0.596585808281, 0.596585808281),
    "leaky_relu": (-0.075, 0.75, 0.1, 1.0),
    "abs": (0.75, 0.75, -1.0, 1.0),
    "gelu": (-0.169970514283, 0.580029485717, 0.000774278260765, 0.999225721739),
    "sin": (-0.681638760023, 0.681638760023, 0.731688868874, 0.731688868874),
    "linear": (-0.75, 0.75, 1.0, 1.0),
    "sigmoid": (0.320821300825, 0.679178699175, 0.217894993762, 0.217894993762),
    "silu": (-0.240615975618, 0.509384024382, 0.157400055503, 0.842599944497),
    "softplus": (0.386871006115, 1.13687100611, 0.320821300825, 0.679178699175),
    "gelu_tanh": (-0.170039444834, 0.579960555166, 0.00106174386259, 0.998938256137),
    "elu": (-0.527633447259, 0.75, 0.472366552741, 1.0),
    "selu": (-0.927632015835, 0.788025740517, 0.830467325012, 1.05070098736),
    "cos": (0.731688868874, 0.731688868874, 0.681638760023, -0.681638760023),
    "gaussian": (0.569782824731, 0.569782824731, 0.854674237096, -0.854674237096),
    "exp": (0.472366552741, 2.11700001661, 0.472366552741, 2.11700001661),
    "monomial": (0.5625, 0.5625, -1.5, 1.5),
    "rectified_monomial": (0.0, 0.5625, 0.0, 1.5),
}
# Activation and width: outputs at both points; kernel entries 11, 12 and 22. The network of exp overflows float32.
INITIAL = {
    ("relu", 9): (-1.49890238177, -3.35860922765, 1.19602482658, 0.814264649513, 4.30695999577),
    ("erf", 9): (-0.613811997846, -1.40115748566, 1.01955350899, 0.302393108613, 0.597069229423),
    ("tanh", 9): (-0.658431991408, -1.36888982427, 0.831456616412, 0.289543622177, 0.542107636624),
    ("linear", 9): (-0.102115328866, -3.19390588696, 3.82652622472, -1.67402025256, 7.39175264748),
    ("leaky_relu", 9): (-1.37778022336, -3.32996654668, 1.1706544208, 0.604272745788, 4.36156845549),
    ("abs", 9): (-2.66366862493, -3.65591410431, 4.15333176343, 3.43665517921, 6.71119581447),
    ("gelu", 9): (-1.41574611015, -3.35601381675, 1.09530838924, 0.710593092585, 4.06562953032),
    ("sin", 9): (-0.856763989269, -1.01503700371, 1.11978657864, 0.459112842383, 0.895513586024),
    ("sigmoid", 9): (-1.13675106256, -1.21000413704, 0.393990246705, 0.40201630673, 0.423455403422),
    ("silu", 9): (-1.19558190387, -3.28261041536, 0.766215034765, 0.484403423117, 3.9950925106),
    ("softplus", 9): (-1.61882795012, -3.46069968983, 1.08135449193, 1.25935899995, 4.38979874644),
    ("gelu_tanh", 9): (-1.41577389008, -3.35609243166, 1.09552207774, 0.710737058811, 4.0659166284),
    ("elu", 9): (-0.959372943719, -3.32298673441, 1.30829040067, -0.0263228449466, 4.98407911992),
    ("selu", 9): (-0.434034542396, -3.53234201412, 1.79007393656, -0.713182789663, 7.28132018382),
    ("cos", 9): (-1.03665108365, -1.28143958629, 0.974403340934, 0.497826456781, 1.32222092744),
    ("gaussian", 9): (-1.17793273582, -1.02172868723, 0.662258622104, 0.523646084484, 0.647686028137),
    ("monomial", 9): (-53.8917945158, -185.543958323, 5524.9061188, 7422.35826394, 84580.2097589),
    ("rectified_monomial", 9): (-4.08271227133, -173.639589124, 50.2899306568, 149.415990669, 73035.6064358),
    ("relu", 400): (-0.212171254493, -0.504246036766, 0.973598935128, 0.518161329745, 1.61752836604),
}
# The same of networks in law.
IN_LAW = {
    ("gelu", 24): (-0.331585182977, -0.42523948124, 0.64050845195, 0.407090838038, 1.37631951529),
    ("relu", 600): (0.58086781252, -0.24007314873, 1.00243800399, 0.505799145764, 1.38538052266),
}
# Outputs at both points, drifts of parameters and kernel, and kernel entry 12, after training of an erf network.
DESCENT = (0.128145369823, -0.927135901064, 0.0757809728035, 0.292590831681, 0.277018994949)
STOCHASTIC = (0.0229043496754, -1.06411993371, 0.0617800689987, 0.272566794852, 0.277680661863)
SHALLOW = (-0.198677201042, -0.495077843807, 0.0318276153149, 0.0074659199746, 0.199964084048)
FLOW = (0.00875329061825, -1.00996441837, 0.0615691836047, 0.246142227269, 0.283967377289)
# The same of a ReLU network of one hidden layer, three gates of which change sides.
FLOW_OF_GATES = (0.781842093478, -0.427015681693, 0.0537072151722, 0.0441216931108, 0.312284574214)
TRAINED_IN_LAW = (0.433638955506, -0.0268058451109, 0.0214308235075, 0.0429649073914, 0.350921280382)
# Activation: entries 11 and 12 of the NNGP and of the NTK.
LIMITS = {
    "relu": (0.525447845459, 0.452793978374, 1.00603103638, 0.546190695369),
    "erf": (0.50644240032, 0.298435471011, 1.09648032582, 0.337607838806),
    "tanh": (0.454867416552, 0.295932156021, 0.883757065181, 0.334346830434),
    "linear": (1.21116638184, 0.324249267578, 2.99287414551, 0.332122802734),
    "leaky_relu": (0.530274190903, 0.432092049001, 1.01980694771, 0.519877386709),
    "abs": (1.21116638184, 1.27462610567, 2.99287414551, 1.68775124585),
    "gelu": (0.452212769567, 0.369418892823, 0.83472189832, 0.435665347249),
    "sin": (0.485725964934, 0.297836182972, 1.05843068761, 0.339945155852),
    "elu": (0.676177518993, 0.354267499481, 1.48134249833, 0.410596523497),
    "cos": (0.559335332847, 0.47667227495, 1.00709212391, 0.559033157121),
    "gaussian": (0.504829644091, 0.484709078519, 0.807999552154, 0.559585088759),
    "exp": (1308.31116602, 2332.22643272, 8374.37916094, 11519.6504219),
    "monomial": (31.9708386088, 49.6279632218, 127.406182836, 69.569250739),
    "rectified_monomial": (4.68556002931, 4.39302849324, 17.6252778148, 5.90758185952),
}
# Activation: entries 11 and 12 of the variance of the kernel of one hidden layer of width 9.
VARIANCES = {
    "relu": (0.157552083333, 0.0255330200666),
    "leaky_relu": (0.156517491319, 0.0267873252553),
    "abs": (0.210069444444, 0.0588488530639),
    "exp": (98.1737793338, 6.24872326393),
    "monomial": (7.94325086806, 0.708912539384),
    "rectified_monomial": (4.27570300632, 0.249085464669),
}
