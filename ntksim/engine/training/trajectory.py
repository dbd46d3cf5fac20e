"""The result of training: what was seen of every seed at every time."""

from dataclasses import dataclass, field

import numpy as np

from ntksim.engine.arguments import shapes, span
from ntksim.engine.finite.parameters import Parameters, unpacked
from ntksim.engine.layout import Net


@dataclass(frozen=True)
class KeptParameters:
    """Parameter vectors of seeds at times (S, T, numbers) and at the ``ends`` (S, numbers) of training, and how to read them."""

    net: Net
    has_biases: tuple[bool, ...]
    seeds: tuple[int, ...]
    vectors: np.ndarray
    ends: np.ndarray

    def at(self, times: np.ndarray, reached: np.ndarray, seed: int | None, time: float | None) -> Parameters:
        """Those of a seed at one of the ``times`` (T,), or where it ended, at the time ``reached`` (S,), if left out."""
        if seed is None and len(self.seeds) > 1:
            raise ValueError(f"seed must be one of the {len(self.seeds)} that were trained; got None")
        if seed is not None and seed not in self.seeds:
            raise ValueError(f"seed must be one of those that were trained; got {seed!r}")
        own = 0 if seed is None else self.seeds.index(seed)
        asked = reached[own] if time is None else time
        found = np.flatnonzero(times == asked)
        if not found.size and asked != reached[own]:
            shown = ", ".join(f"{t:.6g}" for t in times[:30])
            raise ValueError(f"time must be one of {shown}{', ...' if len(times) > 30 else ''}; got {time!r}")
        vector = self.vectors[own, found[0]] if found.size else self.ends[own]
        if np.isnan(vector).all():
            raise ValueError(
                f"seed {self.seeds[own]} did not reach t = {asked:.6g}: ask for a time of at most {reached[own]:.6g}, "
                "its time_reached"
            )
        return unpacked(self.net, vector, self.has_biases)


@dataclass(frozen=True, repr=False)
class Trajectory:
    """Training of S seeds, seen at T times; float64 but for outputs and kernels, which have the run's dtype.

    ``times`` (T,) in the notes' t. ``outputs`` (S, T, n) and ``test_outputs`` (S, T, n*), None without test points. For k > 1
    outputs, here and in kernels, an axis of points has one of outputs behind it: (S, T, n, k), (S, n, k, n, k).
    ``loss`` (S, T) = 1/2 sum r^2, or the loss that was chosen, without weight decay. ``evaluations`` (S,) counts
    forward-and-backward passes over the training points, or over a batch of them; the flow applies each one's gradient up to
    twice more, which is not counted. ``learning_rate`` is None for gradient flow. ``status`` holds for each seed "finished",
    "diverged", "step_limit" (the flow took ``max_steps`` steps) or "stalled" (it found no step that meets its tolerance and is
    long enough to move time). ``time_reached`` (S,) is the last of the times, or where the
    flow stopped before, its last accepted step; of descent that diverged the last snapshot. Rows at later times are NaN. Of the
    flow the fields of the end are those at ``time_reached``:
    ``kernel``, the second of ``test_kernels``, ``end_kernel_drift`` and ``end_parameter_drift`` (S,), and `parameters`.

    Kernels are plain Gram matrices, without n^(-c), or with layer rates sums over layers of rate_l K_l: ``kernels``
    (S, T, n, n), None unless kept; ``kernel`` (S, n, n) at the last time; and of test with training points ``test_kernels``
    (S, 2, n*, n), first at t = 0, whether that is among the times or not, then at the last time; None without test points; and
    ``kept_test_kernels`` (S, T, n*, n), the same at all times, None unless kept. Where gates of training points slide, kernels
    have the slopes that hold them: those of test points J* J(s)', with the test points' own slopes in J*.
    Movement since t = 0, whether that is among the times or not:

    ``kernel_drift`` (S, T) = ||K_t - K_0||_F / ||K_0||_F, and ``kernel_distance`` (S, T), as in `measures.kernel_distance`;
    ``parameter_drift`` (S, T) = ||theta_t - theta_0|| / ||theta_0|| over all stored parameters, and ``layer_drift``
    (S, T, L+1) over each layer's weights and biases, the readout's last; ``layer_kernel_drift`` (S, T, L+1) =
    ||K^l_t - K^l_0||_F / ||K^l_0||_F of each layer's part of the plain kernel, the sum over its weights and biases, whatever
    its rate;
    ``feature_drift`` (S, T) = ||h^L_t - h^L_0||_F / ||h^L_0||_F over the last hidden layer's activations on the training points;
    ``gates_flipped`` (S, T), the share of pairs of a hidden neuron and a training point whose pre-activation has changed sign;
    NaN for activations whose values do not tell it (sin, cos, gaussian).
    ``sliding_gates`` (S, T), how many such pairs the flow of a network with kinks holds at pre-activations of 0, where K_t takes
    the slopes that hold them (`sliding`); NaN of descent, which has none.

    ``rank`` (S,) counts the directions of a hidden matrix that networks in law have revealed, the most over matrices and sides;
    None for explicit weights.
    """

    times: np.ndarray
    outputs: np.ndarray
    test_outputs: np.ndarray | None
    loss: np.ndarray
    kernel_drift: np.ndarray
    parameter_drift: np.ndarray
    evaluations: np.ndarray
    kernels: np.ndarray | None
    status: tuple[str, ...]
    learning_rate: float | None
    kernel: np.ndarray
    test_kernels: np.ndarray | None
    kernel_distance: np.ndarray
    layer_drift: np.ndarray
    layer_kernel_drift: np.ndarray
    feature_drift: np.ndarray
    gates_flipped: np.ndarray
    sliding_gates: np.ndarray
    time_reached: np.ndarray
    end_kernel_drift: np.ndarray
    end_parameter_drift: np.ndarray
    rank: np.ndarray | None
    kept_test_kernels: np.ndarray | None = None
    _kept: KeptParameters | None = field(default=None, repr=False)

    def parameters(self, seed: int | None = None, time: float | None = None) -> Parameters:
        """The parameters of a seed at one of ``times``, or if left out at its ``time_reached``; of the run that returned them.

        ``seed`` may be left out where there is one, as with ``start``.

        Raises
        ------
        ValueError for a seed or a time that is not among them, or without ``return_parameters=True``.
        """
        if self._kept is None:
            raise ValueError("parameters are not kept: call train with return_parameters=True")
        return self._kept.at(self.times, self.time_reached, seed, time)

    @property
    def test_kernel(self) -> np.ndarray | None:
        """The kernel of test with training points at the last time, (S, n*, n); None without test points."""
        return None if self.test_kernels is None else self.test_kernels[:, 1]

    def __repr__(self) -> str:
        finished = self.status.count("finished")
        others = sorted(set(self.status) - {"finished"})
        status = ", ".join([f"{finished} finished", *(f"{self.status.count(word)} {word}" for word in others)])
        return f"Trajectory: {len(self.status)} seeds ({status}), {span(self.times)}\n  {shapes(self)}"
