"""What training needs of whatever holds a network: a processor, a GPU, or a network that is revealed as it is asked for.

Flow and descent, watches and checkpoints work on a `Machine`. Parameters and rooms are its own: nobody else looks inside. So a
machine may keep them as a flat array, on a device, or as low-rank changes of weights that are not yet known.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ntksim.engine.layout import Net, Pairs, parameter_offsets
from ntksim.engine.loss import SQUARED_LOSS, Loss

Points = tuple[np.ndarray, Pairs]  # columns (d, padded points), and which of them are points
# As one machine keeps them: parameters, or a change of them; activations and sensitivities on the training points; activations
# and gates that movement refers to.
Theta = Any
Room = Any
Memory = Any


@dataclass(frozen=True)
class Task:
    """What all seeds share: the network, training points and targets (n k,) for k outputs, test points, test with training ones.

    With ``remove_initial_output`` f - f_0 stands for f everywhere. ``start`` is the parameter vector from which training starts,
    as `parameters.packed` makes it, and None where seeds draw it. ``loss`` is what descent descends on.
    """

    net: Net
    x: Points
    y: np.ndarray
    x_test: Points | None
    x_across: Points | None
    remove_initial_output: bool
    start: np.ndarray | None = None
    loss: Loss = SQUARED_LOSS


class Inside(NamedTuple):
    """A network on its training or its test points, as arrays on the host, for what concerns a few of its gates.

    Entry l - 1 of ``weights`` (n_l, n_(l-1)) and ``biases`` (n_l,) is layer l's, the readout's last; entry l of ``features``
    (n_l, n) holds h^l, from h^0 on; entry l - 1 of ``slopes`` (n_l, n) and ``sensitivities`` (n_l, k, n), hidden layer l's
    phi'(z) and df/dz.
    """

    weights: list[np.ndarray]
    biases: list[np.ndarray]
    features: list[np.ndarray]
    slopes: list[np.ndarray]
    sensitivities: list[np.ndarray]


class Step(NamedTuple):
    """A step of descent: theta <- theta - before w, w <- mu w - (rate g + decay theta), theta <- theta + after w.

    Here g = J' dS/df for the sum S of a ``loss`` of `engine.loss`, whose number it is, and theta in the middle is that at which
    the gradient was taken. Without momentum it is theta <- theta - (rate g + decay theta), and there is no w. The factor of the
    loss is in ``rate``; ``decay`` is the learning rate times lambda; both are multiplied by layers' rates.
    """

    rate: float
    momentum: float
    before: float
    after: float
    decay: float
    loss: int


class Machine(ABC):
    """One seed's network on one device: draws it, passes over its points, and moves its parameters.

    ``threads`` work on it. Vectors over points have k entries a point for k outputs, and are float64 on the host, whatever the
    ``kind`` of the machine's arithmetic.
    """

    holds_gates = True  # whether it knows gates one by one, so that the flow can hold those that slide along a kink

    def __init__(self, threads: int, seed: np.uint64, task: Task) -> None:
        self.threads, self.seed, self.net = threads, seed, task.net
        self.columns, self.pairs = task.x
        self.tests, self.across = task.x_test, task.x_across

    @property
    def rank(self) -> int | None:
        """Directions known of a hidden matrix, at most over matrices and sides; None of weights that are all there."""
        return None

    @property
    def kind(self) -> np.dtype:
        """The type of activations and parameters."""
        return self.columns.dtype

    @property
    def points(self) -> int:
        """Training points."""
        return self.pairs.cols

    @property
    def numbers(self) -> int:
        """Multiply-adds of a pass over one point, about: chunks of work are sized by it."""
        return int(np.sum(self.net.widths[1:] * self.net.lengths[:-1]))

    # --- parameters

    @abstractmethod
    def draw(self) -> Theta:
        """The parameters at initialisation."""

    @abstractmethod
    def zeros(self) -> Theta:
        """A change of parameters that changes nothing: the velocity before the first step."""

    @abstractmethod
    def copy(self, theta: Theta) -> Theta:
        """A copy that may be changed in place."""

    @abstractmethod
    def pack(self, theta: Theta) -> np.ndarray | None:
        """Parameters as an array on the host, for a checkpoint; None where a seed under way is to begin anew instead."""

    @abstractmethod
    def unpack(self, array: np.ndarray) -> Theta:
        """Parameters from what :meth:`pack` made of them."""

    @abstractmethod
    def square_distances(self, a: Theta, b: Theta) -> np.ndarray:
        """||a_l - b_l||^2 of each layer's parameters, the readout's last, (L+1,)."""

    @abstractmethod
    def square_norms(self, start: Theta) -> np.ndarray:
        """||theta_l||^2 of each layer's parameters at initialisation, (L+1,); asked for once, when nothing else will be."""

    # --- passes

    @abstractmethod
    def make_room(self) -> Room:
        """Room for the training points' activations, sensitivities and kernels."""

    @abstractmethod
    def evaluate(self, theta: Theta, room: Room) -> tuple[np.ndarray, np.ndarray]:
        """Outputs (n k,) and every layer's kernel (L+1, n k, n k) on the training points; ``room`` is then that of ``theta``."""

    @abstractmethod
    def test_outputs(self, theta: Theta) -> np.ndarray:
        """Outputs on the test points, (n* k,)."""

    @abstractmethod
    def test_kernels(self, theta: Theta) -> np.ndarray:
        """Every layer's kernel of test with training points, (L+1, n* k, n k)."""

    @abstractmethod
    def remember(self, room: Room) -> Memory:
        """The last hidden layer's activations on the points of a room, and which hidden neurons are open."""

    @abstractmethod
    def movement(self, now: Memory, before: Memory) -> tuple[float, float, float]:
        """||h - h_0||, ||h_0||, and the share of gates that have flipped, NaN if unknown, between two that are remembered."""

    @abstractmethod
    def open_gates(self, room: Room) -> np.ndarray:
        """Where hidden neurons are open, (hidden neurons, n), of an activation with a kink; an array on the host."""

    @abstractmethod
    def inside(self, theta: Theta, room: Room) -> Inside:
        """The network at ``theta``, where ``room`` was evaluated; not to be written to."""

    @abstractmethod
    def inside_at_tests(self, theta: Theta) -> Inside:
        """The network at ``theta`` as it is on the test points."""

    # --- steps

    @abstractmethod
    def shift(self, theta: Theta, weights: list[np.ndarray], biases: list[np.ndarray]) -> None:
        """Add to every hidden layer's weights and biases, in place; an empty array adds nothing."""

    @abstractmethod
    def pull_back(self, room: Room, vector: np.ndarray, theta: Theta) -> None:
        """theta <- theta - rate J' vector, J where ``room`` was evaluated, in place."""

    @abstractmethod
    def make_descent_room(self, room: Room, size: int | None) -> Room:
        """Room for steps of descent, without a kernel: in that of ``room``, or for batches of ``size`` points."""

    @abstractmethod
    def descend(
        self, theta: Theta, velocity: Theta | None, room: Room, y: np.ndarray, order: np.ndarray | None, step: Step, count: int,
        ready: bool,
    ) -> int:  # fmt: skip
        """Take ``count`` steps in place; returns their number, or that of the first at which outputs were not finite.

        Targets y are (n k,). ``order`` (count, size) holds the points of each batch, and is None for all points at once;
        ``ready`` says that the room that ``room`` was made from has just been evaluated at ``theta``. ``velocity`` is w, and None
        without momentum.
        """


def inside_of(net: Net, pairs: Pairs, theta: np.ndarray, held: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Inside:
    """Views of a flat parameter vector, and of flat activations, slopes and sensitivities that have a row per neuron."""
    h, slope, delta = held
    last, points, n, outputs = net.widths.size - 2, pairs.points, pairs.cols, int(net.widths[-1])
    at = np.concatenate([[0], np.cumsum(net.widths[: last + 1])]) * points

    def rows(values: np.ndarray, layer: int) -> np.ndarray:
        return values[at[layer] : at[layer + 1]].reshape(-1, points)[:, :n]

    sensitivities = []
    for layer in range(1, last + 1):
        begin, end = (at[i] - at[1] for i in (layer, layer + 1))
        own = delta[begin * outputs : end * outputs].reshape(-1, outputs, points)
        sensitivities.append(own[:, :, :n])
    layers = range(1, last + 1)
    return Inside(
        *_parameters(net, theta), [rows(h, layer) for layer in range(last + 1)], [rows(slope, layer) for layer in layers],
        sensitivities,
    )  # fmt: skip


def _parameters(net: Net, theta: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights and biases of every layer, the readout's last, as views of a flat parameter vector."""
    offsets, weights, biases = parameter_offsets(net), [], []
    for layer in range(1, net.widths.size):
        rows, cols = int(net.widths[layer]), int(net.widths[layer - 1])
        weights.append(theta[offsets[2 * layer - 2] : offsets[2 * layer - 1]].reshape(rows, -1)[:, :cols])
        biases.append(theta[offsets[2 * layer - 1] : offsets[2 * layer - 1] + rows])
    return weights, biases


def shift_parameters(net: Net, theta: np.ndarray, weights: list[np.ndarray], biases: list[np.ndarray]) -> None:
    """Add to every hidden layer's weights and biases in a flat parameter vector; an empty array adds nothing."""
    own_weights, own_biases = _parameters(net, theta)
    for own, change in zip([*own_weights[:-1], *own_biases[:-1]], [*weights, *biases], strict=True):
        if change.size:
            own += change
