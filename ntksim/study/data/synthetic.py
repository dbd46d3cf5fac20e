"""Points that are made rather than loaded, targets by formula, evaluation points, and noise on training targets.

Each of these draws from a stream of its own, so that more training points leave the first ones, the test points and the noise
of the first ones as they are. (The points without `spacing`, `grid` and `density` are drawn together, as they always were.)
"""

from dataclasses import replace

import numpy as np

from ntksim.engine.infinite.harmonics import circle_angles
from ntksim.study.config.dataset import Dataset
from ntksim.study.config.formula import formula
from ntksim.study.data.files import Data
from ntksim.study.errors import StageError

# Words behind the seed of a stream. NumPy pads seeds with zeros, so that a word 0 would repeat the stream of the seed alone.
_TRAIN, _TEST, _NOISE = 1, 2, 3
_CELLS = 2**16  # of the circle, in which a density is constant: its relative error is (2 pi / cells)^2 / 24 of f'' / f
_ROUNDING = 1e-12  # relative: a density is 0 where it is negative by less, and targets that vary by less do not vary


def synthetic(options: Dataset) -> Data:
    """Points with targets x_1 x_2, the function that Jacot et al. (2018) use on the unit circle, or those of a formula.

    Points are independent and random, unless ``spacing`` or ``grid`` says otherwise; those of a grid are in the order in which
    they are drawn. Evaluation points of the circle are evenly spaced from angle 0 on.
    """
    is_even = options.spacing == "even" or options.grid is not None
    x_train, x_test = _on_circle(options) if is_even or options.density else _random(options)
    data = Data(x_train, target(options, x_train), x_test, target(options, x_test), are_classes=False)
    if not options.noise and 0 < np.ptp(data.y_train) < _ROUNDING * np.abs(data.y_test).max():
        raise StageError(
            f"dataset: the target {options.formula or 'x_1 x_2'} is constant at the {options.train} training points but for "
            "rounding, as sin(8 theta) is at 8 evenly spaced ones; change train, or choose other points"
        )
    if options.evaluation is None:
        return data
    grid = circle(_even(options.evaluation))
    return replace(data, x_evaluation=grid, y_evaluation=target(options, grid))


def target(options: Dataset, points: np.ndarray) -> np.ndarray:
    """The targets (n,) of points (n, d), without noise."""
    if options.formula is None:
        return points[:, 0] * points[:, 1]
    return formula("dataset.formula", options.formula, points.shape[1], on_circle=options.name == "circle")(points)


def noise(options: Dataset, shape: tuple[int, ...]) -> np.ndarray:
    """Independent normal numbers of the standard deviation ``noise``, for training targets."""
    return options.noise * np.random.default_rng([options.noise_seed, _NOISE]).normal(size=shape)


def in_order(data: Data) -> Data:
    """A data set whose training and test points are sorted by angle."""
    train, test = (np.argsort(circle_angles(points)) for points in (data.x_train, data.x_test))
    return replace(
        data, x_train=data.x_train[train], y_train=data.y_train[train], x_test=data.x_test[test], y_test=data.y_test[test]
    )


def circle(angles: np.ndarray) -> np.ndarray:
    """Points (n, 2) of the unit circle."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _even(count: int) -> np.ndarray:
    return 2 * np.pi * np.arange(count) / count


def _random(options: Dataset) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(options.seed)
    x = rng.normal(size=(options.train + options.test, options.features or 2))
    if options.name != "gaussian":
        radius = 1.0 if options.name == "circle" else np.sqrt(x.shape[1])
        x *= radius / np.linalg.norm(x, axis=1, keepdims=True)
    return x[: options.train], x[options.train :]


def _on_circle(options: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Training and test points that are evenly spaced, of a grid, or of a density.

    Test points of a grid are the last of the permutation whose first are the training points. Those of evenly spaced points are
    uniform.
    """
    if options.grid is not None:
        order = np.random.default_rng([options.seed, _TRAIN]).permutation(options.grid)
        grid = _even(options.grid)
        return circle(grid[order[: options.train]]), circle(grid[order[-options.test :]])
    uniform = {
        part: np.random.default_rng([options.seed, part]).uniform(size=count)
        for part, count in ((_TRAIN, options.train), (_TEST, options.test))
    }
    if options.density is not None:
        return circle(_quantiles(options.density, uniform[_TRAIN])), circle(_quantiles(options.density, uniform[_TEST]))
    return circle(_even(options.train)), circle(2 * np.pi * uniform[_TEST])


def _quantiles(density: str, levels: np.ndarray) -> np.ndarray:
    """The angles below which a density, normalised, has the shares ``levels``: by its sums over small cells of the circle.

    Raises StageError for a density that is negative somewhere, or 0 everywhere.
    """
    angles = 2 * np.pi * (np.arange(_CELLS) + 0.5) / _CELLS
    values = formula("dataset.density", density, 2, on_circle=True)(circle(angles))
    least = int(values.argmin())
    if values[least] < -_ROUNDING * np.abs(values).max():
        raise StageError(
            f"dataset.density: expected a formula of at least 0, got {values[least]:g} at theta = {angles[least]:.6g}; add to it"
        )
    sums = np.concatenate([[0.0], np.cumsum(np.maximum(values, 0.0))])
    if sums[-1] == 0 or not np.isfinite(sums[-1]):
        raise StageError(f"dataset.density: its integral over the circle is {sums[-1]:g}; expected a number above 0")
    return np.interp(levels, sums / sums[-1], 2 * np.pi * np.arange(_CELLS + 1) / _CELLS)
