"""What is written down of training: arrays with a row per seed and time."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ntksim.engine.machine import Task

_TIMELESS = "kernel", "test_kernels", "rank", "end_parameters"
_AXES_OF_POINTS = {"outputs": 1, "test_outputs": 1, "kernels": 2, "kernel": 2, "test_kernels": 2, "kept_test_kernels": 2}
_OF_THE_END = ("time_reached", "end_kernel_drift", "end_parameter_drift")


@dataclass(frozen=True)
class Snapshots:
    """What is seen of S seeds at T times, or of one of them; NaN until it is filled. `training.Trajectory` says what each is.

    Arrays lead with axes (S, T), of one seed with (T,), but for those of the end of training, which have no times, ``rank``
    (S, 1), and ``test_kernels``, which has two: t = 0, whether it is among the times or not, and the end. ``time_reached`` is
    that of the flow theta' = -grad L. What is of test points, ``kernels``, ``kept_test_kernels`` and the parameter vectors
    ``parameters`` (S, T, numbers) and ``end_parameters`` (S, numbers) are empty where they are not wanted.
    """

    outputs: np.ndarray
    test_outputs: np.ndarray
    loss: np.ndarray
    kernel_drift: np.ndarray
    kernel_distance: np.ndarray
    parameter_drift: np.ndarray
    layer_drift: np.ndarray
    layer_kernel_drift: np.ndarray
    feature_drift: np.ndarray
    gates_flipped: np.ndarray
    sliding_gates: np.ndarray
    kernels: np.ndarray
    kernel: np.ndarray
    test_kernels: np.ndarray
    kept_test_kernels: np.ndarray
    parameters: np.ndarray
    end_parameters: np.ndarray
    rank: np.ndarray
    time_reached: np.ndarray
    end_kernel_drift: np.ndarray
    end_parameter_drift: np.ndarray

    @classmethod
    def empty(cls, seeds: int, times: int, task: Task, kept: tuple[bool, bool], numbers: int) -> "Snapshots":
        """Room for ``seeds`` seeds at ``times`` times; ``numbers`` counts parameters, 0 where they are not kept.

        ``kept`` says whether kernels of training points are, and those of test with training points.
        """
        points, layers, kind = task.y.size, task.net.widths.size - 1, task.x[0].dtype
        tests = 0 if task.x_test is None else task.x_test[1].cols * int(task.net.widths[-1])

        def missing(*shape: int, kind: np.dtype | type = np.float64) -> np.ndarray:
            return np.full((seeds, *shape), np.nan, kind)

        drifts = ("kernel_drift", "kernel_distance", "parameter_drift", "feature_drift")
        scalars = ("loss", *drifts, "gates_flipped", "sliding_gates")
        return cls(
            outputs=missing(times, points, kind=kind),
            test_outputs=missing(times, tests, kind=kind),
            layer_drift=missing(times, layers),
            layer_kernel_drift=missing(times, layers),
            kernels=missing(times if kept[0] else 0, points, points, kind=kind),
            kernel=missing(points, points, kind=kind),
            test_kernels=missing(2, tests, points, kind=kind),
            kept_test_kernels=missing(times if kept[1] else 0, tests, points, kind=kind),
            parameters=missing(times if numbers else 0, numbers, kind=kind),
            end_parameters=missing(numbers, kind=kind),
            rank=missing(1),
            **{name: missing(times) for name in scalars},
            **{name: missing() for name in _OF_THE_END},
        )

    def of(self, seed: int) -> "Snapshots":
        """One seed's rows, as views."""
        return Snapshots(**{field.name: getattr(self, field.name)[seed, ...] for field in fields(self)})

    def at(self, where: np.ndarray, outputs: int) -> dict[str, Any]:
        """The arrays of all seeds by name, at the times with indices ``where``; None for those that are not wanted.

        What has an axis of points has one of ``outputs`` behind it, if they are several.
        """
        found: dict[str, Any] = {}
        for field in fields(self):
            array = getattr(self, field.name)
            if 0 in array.shape[1:]:
                array = None
            elif field.name not in (*_TIMELESS, *_OF_THE_END):
                array = array[:, where]
            if array is not None and outputs > 1 and (axes := _AXES_OF_POINTS.get(field.name, 0)):
                lead, last = array.shape[:-axes], array.shape[-axes:]
                array = array.reshape(*lead, *(n for points in last for n in (points // outputs, outputs)))
            found[field.name] = array
        return found
