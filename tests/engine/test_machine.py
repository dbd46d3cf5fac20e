"""What training needs of a device: every machine has all of it, and training looks into no machine's parameters."""

import ast
import inspect
from pathlib import Path

import numpy as np
import pytest
from cases import POINTS

import ntksim
from ntksim.engine.conditional.machine import ConditionalMachine
from ntksim.engine.cpu.compiled_network import columns_of, compiled_network
from ntksim.engine.cpu.machine import CpuMachine
from ntksim.engine.machine import Machine, Task
from ntksim.engine.training import descent, flow, train, watch

NETWORK = ntksim.Network(2, 12, "tanh", sigma_b=0.2)
TARGETS = np.array([1.0, -1.0, 0.5, 0.0, -0.3])
MACHINES = CpuMachine, ConditionalMachine
METHODS = sorted(Machine.__abstractmethods__)


def task():
    points = columns_of(POINTS, None, np.dtype(np.float64), "cpu")
    return Task(compiled_network(NETWORK, POINTS.shape[1]), points, TARGETS, None, None, False)


@pytest.mark.parametrize("method", METHODS)
def test_a_forgotten_method_is_an_error_at_construction(method):
    own = {name: getattr(CpuMachine, name) for name in METHODS if name != method}
    incomplete = type("Incomplete", (Machine,), own)
    with pytest.raises(TypeError, match=f"abstract.*{method}"):
        incomplete(1, np.uint64(0), task())


def test_every_machine_has_the_signatures_of_the_abstract_one():
    for method in METHODS:
        expected, *found = (list(inspect.signature(getattr(one, method)).parameters) for one in (Machine, *MACHINES))
        assert found == [expected] * len(MACHINES), method


class Boxed:
    """Parameters that can do nothing."""

    def __init__(self, inner):
        self.inner = inner


class BoxedMachine(Machine):
    """The CPU's machine, with parameters that nobody else can look into."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.cpu = CpuMachine(*arguments)

    def draw(self):
        return Boxed(self.cpu.draw())

    def zeros(self):
        return Boxed(self.cpu.zeros())

    def copy(self, theta):
        return Boxed(self.cpu.copy(theta.inner))

    def pack(self, theta):
        return theta.inner

    def unpack(self, array):
        return Boxed(self.cpu.unpack(array))

    def square_distances(self, a, b):
        return self.cpu.square_distances(a.inner, b.inner)

    def square_norms(self, start):
        return self.cpu.square_norms(start.inner)

    def make_room(self):
        return Boxed(self.cpu.make_room())

    def evaluate(self, theta, room):
        return self.cpu.evaluate(theta.inner, room.inner)

    def test_outputs(self, theta):
        return self.cpu.test_outputs(theta.inner)

    def test_kernels(self, theta):
        return self.cpu.test_kernels(theta.inner)

    def remember(self, room):
        return Boxed(self.cpu.remember(room.inner))

    def movement(self, now, before):
        return self.cpu.movement(now.inner, before.inner)

    def open_gates(self, room):
        return self.cpu.open_gates(room.inner)

    def inside(self, theta, room):
        return self.cpu.inside(theta.inner, room.inner)

    def inside_at_tests(self, theta):
        return self.cpu.inside_at_tests(theta.inner)

    def shift(self, theta, weights, biases):
        self.cpu.shift(theta.inner, weights, biases)

    def pull_back(self, room, vector, theta):
        self.cpu.pull_back(room.inner, vector, theta.inner)

    def make_descent_room(self, room, size):
        return Boxed(self.cpu.make_descent_room(room.inner, size))

    def descend(self, theta, velocity, room, y, order, step, count, ready):
        moving = None if velocity is None else velocity.inner
        return self.cpu.descend(theta.inner, moving, room.inner, y, order, step, count, ready)


DESCENT = {"method": "gradient_descent", "learning_rate": 0.02, "times": [0.0, 0.1, 0.5]}
RUNS = [
    {"times": [0.0, 0.3, np.inf]},
    {"times": [1.0], "remove_initial_output": True, "layer_rates": [1, 0, 0.5]},
    DESCENT,
    DESCENT | {"momentum": 0.9, "nesterov": True},
    DESCENT | {"batch_size": 2, "momentum": 0.5},
]


@pytest.mark.parametrize("options", RUNS, ids=["flow", "rated flow", "descent", "nesterov", "batches"])
def test_training_looks_into_no_parameters(options, monkeypatch, tmp_path):
    options = {"seeds": [0, 3], "x_test": -POINTS[:2], "keep_kernels": True} | options
    expected = ntksim.train(NETWORK, POINTS, TARGETS, **options)
    monkeypatch.setattr(train, "CpuMachine", BoxedMachine)
    found = ntksim.train(NETWORK, POINTS, TARGETS, checkpoint=tmp_path, checkpoint_interval=0, **options)
    for name, value in vars(expected).items():
        same = getattr(found, name)
        assert same.tobytes() == value.tobytes() if isinstance(value, np.ndarray) else same == value, name


def test_training_names_no_layout_of_parameters():
    for module in (flow, descent, watch):
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert "ntksim.engine.layout" not in imported, module.__name__
