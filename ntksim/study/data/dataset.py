"""Data sets: points with one or several targets, from scikit-learn, from the user's files, or synthetic."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ntksim.study.config.dataset import Dataset
from ntksim.study.data import targets
from ntksim.study.data.files import Data, read, write
from ntksim.study.data.reading import Source, check_features, evaluation, named, sources
from ntksim.study.data.synthetic import in_order, noise, synthetic, target
from ntksim.study.errors import StageError, shown

__all__ = ["Data", "load", "on_sphere", "read", "write"]

_CONSTANT = 1e-12  # a feature whose range is smaller, relative to its largest value, is constant up to rounding


def load(options: Dataset, *, sort: bool = True) -> Data:
    """The data set of a configuration: read, split into training and test points, and scaled.

    Targets: two classes become -1 and +1. k > 2 classes become k targets, one-hot vectors minus 1 / k; for ten classes these are
    the -0.1 and 0.9 of Lee et al. (2019). Training and test points have the classes in the same proportions as the whole data.
    All other targets are real numbers. ``noise`` is added to the training targets before anything is scaled; targets of test and
    evaluation points have none. Points of a grid are sorted by angle, unless ``sort`` is false: then they are as drawn.

    Scaling: ``sphere`` subtracts the training mean from all points and scales each point to norm sqrt(features). Targets that are
    not classes are scaled to mean 0 and variance 1 over the training points. ``standardize`` does the same, but after centring it
    also scales each feature to variance 1 over the training points. ``target_scale`` finally multiplies all targets.

    Raises StageError if the data cannot be used; the message names the key of the configuration and the remedy.
    """
    try:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the checks below find what overflowed
            data = _noisy(options, _unscaled(options))
            if (
                sort and options.grid is not None
            ):  # after the noise, so that more training points leave that of the others as it is
                data = in_order(data)
            if options.scaling_or_default != "none":
                equal = options.scaling_or_default == "standardize"
                data = on_sphere(data, standardize_targets=not data.are_classes, equal_features=equal)
            _check_finite(data, "dataset: points or targets overflow when they are centred and scaled; give smaller numbers")
            if options.target_scale != 1:
                targets_of = {name: values for name, values in data.arrays.items() if name.startswith("y_")}
                data = data.with_arrays({name: options.target_scale * values for name, values in targets_of.items()})
                _check_finite(data, f"dataset.target_scale: targets overflow if multiplied by {options.target_scale:g}; lower it")
            check_training(data)
            return data
    except MemoryError:
        raise StageError("dataset: does not fit into this machine's memory; use fewer points or features") from None


def _unscaled(options: Dataset) -> Data:
    """Points and targets as they are given or made."""
    if options.train_key is not None:
        found = sources(options)
        data = _split(options, found.train) if found.test is None else _given(options, found.train, found.test)
        return data if found.evaluation is None else replace(data, x_evaluation=found.evaluation.x)
    data = synthetic(options) if options.is_synthetic else _split(options, _sklearn(str(options.name)))
    if (given := evaluation(options)) is not None:
        check_features(given.where, data.x_train.shape[1], given.x.shape[1])
        data = replace(data, x_evaluation=given.x, y_evaluation=target(options, given.x) if options.is_synthetic else None)
    return data


def _noisy(options: Dataset, data: Data) -> Data:
    """The data set with noise on its training targets."""
    if not options.noise:
        return data
    if data.are_classes:
        raise StageError("dataset.noise: the targets encode classes, and noise is for real numbers; leave it out")
    return replace(data, y_train=data.y_train + noise(options, data.y_train.shape))


def _sklearn(name: str) -> Source:
    import sklearn.datasets

    loaded = getattr(sklearn.datasets, f"load_{name}")()
    return Source(f"dataset.name: {name}", loaded.data, named("y", loaded.target))


def _numbers(options: Dataset, *parts: Source) -> tuple[list[tuple[np.ndarray, np.ndarray]], bool]:
    """Points, and their targets or the indices of their classes, of each source; and whether the targets encode classes.

    Points of classes that the configuration does not list are left out. All sources together decide what targets are.
    """
    if classes := options.classes_or_default:
        indices = [targets.class_indices(part.where, classes, part.y) for part in parts]
        targets.check_presence(classes, np.concatenate(indices), pd.concat([part.y.iloc[:, 0] for part in parts]))
        return [(part.x[own >= 0], own[own >= 0]) for part, own in zip(parts, indices, strict=True)], True
    numbers = [targets.real(part.where, part.y) for part in parts]
    together = np.concatenate(numbers)
    are_classes = targets.encode_classes(together)
    if options.scaling_or_default != "none" and together.ndim == 1 and not are_classes:
        targets.check_unnamed_labels(parts[0].where, together)
    return [(part.x, own) for part, own in zip(parts, numbers, strict=True)], are_classes


def _split(options: Dataset, source: Source) -> Data:
    """Training and test points drawn from a source."""
    from sklearn.model_selection import train_test_split

    classes = options.classes_or_default
    ((x, numbers),), are_classes = _numbers(options, source)
    if options.train + options.test > len(x):
        given = f"the classes {shown(classes)}" if classes else "the data"
        raise StageError(
            f"dataset.train + dataset.test = {options.train + options.test}, but {given} have only {len(x)} points; "
            "lower one of the two"
        )
    try:
        x_train, x_test, y_train, y_test = train_test_split(
            x, numbers, train_size=options.train, test_size=options.test, random_state=options.seed,
            stratify=numbers if classes else None,
        )  # fmt: skip
    except ValueError as error:  # for example a class with a single point
        raise StageError(f"dataset.classes: cannot be split into training and test points: {error}") from None
    return _encoded(options, Data(x_train, y_train, x_test, y_test, are_classes), numbers)


def _given(options: Dataset, train: Source, test: Source) -> Data:
    """The first training and the first test points of sources of their own, in their order."""
    if options.seed != 0:
        raise StageError(f"dataset.seed: the points of {train.where.partition(': ')[2]} are taken in their order; leave it out")
    parts, are_classes = _numbers(options, train, test)
    for key, source, (x, _) in zip(("train", "test"), (train, test), parts, strict=True):
        wanted = getattr(options, key)
        if wanted > len(x):
            classes = f" of the classes {shown(options.classes)}" if options.classes else ""
            raise StageError(
                f"dataset.{key}: {wanted} points are asked for (all in the file, at least 2, if {key} is left out), but "
                f"{source.where.partition(': ')[2]} has only {len(x)}{classes}; lower it"
            )
    (x_train, y_train), (x_test, y_test) = parts
    n, m = options.train, options.test
    return _encoded(options, Data(x_train[:n], y_train[:n], x_test[:m], y_test[:m], are_classes), y_train)


def _encoded(options: Dataset, data: Data, of_all: np.ndarray) -> Data:
    """The data set with targets in place of indices of classes; ``of_all`` are those of all points that training could have."""
    classes = options.classes_or_default
    if not classes:
        return data
    _check_classes(classes, of_all, data.y_train)
    y_train, y_test = (targets.class_targets(indices, len(classes)) for indices in (data.y_train, data.y_test))
    return replace(data, y_train=y_train, y_test=y_test)


def _check_classes(classes: list[Any], indices: np.ndarray, training_indices: np.ndarray) -> None:
    """Refuse a class that has no training point."""
    counts, training_counts = (np.bincount(part, minlength=len(classes)) for part in (indices, training_indices))
    if len(missing := np.flatnonzero(training_counts == 0)):
        rare = missing[0]
        raise StageError(
            f"dataset.train: none of the {len(training_indices)} training points has the class {shown(classes[rare])}, which has "
            f"{counts[rare]} of all {len(indices)} points; raise train"
            + (" or leave this class out of classes" if len(classes) > 2 else "")
        )


def on_sphere(data: Data, *, standardize_targets: bool = False, equal_features: bool = False) -> Data:
    """Subtract the training mean from all points (n, d) and scale each point to norm sqrt(d).

    With ``equal_features`` each centred feature is first scaled to variance 1 over the training points. A feature that is
    constant on the training points, up to rounding, becomes 0 on all points, since its scale is unknown. With
    ``standardize_targets`` each target is scaled to mean 0 and variance 1 over the training points.

    Raises StageError for a single feature, for a point at the mean, and for constant targets that should be standardized.
    """
    if data.x_train.shape[1] == 1:
        raise StageError(
            "dataset.scaling: with one feature every point would become -1 or 1 on the sphere; set scaling: none, which leaves "
            "numbers unchanged"
        )
    mean = data.x_train.mean(axis=0)
    points = {name: values - mean for name, values in data.arrays.items() if name.startswith("x_")}
    if equal_features:
        varies = np.ptp(data.x_train, axis=0) > _CONSTANT * np.abs(data.x_train).max(axis=0)
        factors = np.divide(1.0, points["x_train"].std(axis=0), out=np.zeros(len(mean)), where=varies)
        points = {name: values * factors for name, values in points.items()}
    scaled = data.with_arrays({name: _scaled(values) for name, values in points.items()})
    if not standardize_targets:
        return scaled
    check_training(data)
    centre, spread = data.y_train.mean(axis=0), data.y_train.std(axis=0)
    spread = np.where(np.isfinite(spread), spread, np.nan)  # division by inf would hide an overflow as 0
    return scaled.with_arrays({name: (y - centre) / spread for name, y in data.arrays.items() if name.startswith("y_")})


def _scaled(points: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    if not norms.all():
        raise StageError(
            "dataset: a point equals the training mean, so it cannot be scaled to the sphere (is the data constant?); remove the "
            "point, change dataset.seed, or set dataset.scaling to none"
        )
    return points * (np.sqrt(points.shape[1]) / norms)


def _check_finite(data: Data, message: str) -> None:
    if not all(np.isfinite(values).all() for values in data.arrays.values()):
        raise StageError(message)


def check_training(data: Data) -> None:
    """Refuse repeated training points, which make every kernel singular, and constant targets, which make every fit trivial."""
    _, count = np.unique(_rounded(data.x_train), axis=0, return_counts=True)
    if len(count) < len(data.x_train):
        repeated = int(np.sum(count[count > 1]))
        raise StageError(
            f"dataset: {repeated} of {len(data.x_train)} training points equal another one to ten digits after scaling, so every "
            "kernel would be singular; remove duplicates, or change dataset.seed"
        )
    columns = data.y_train.reshape(len(data.y_train), -1)
    if len(constant := np.flatnonzero(np.ptp(columns, axis=0) == 0)):
        number = "" if columns.shape[1] == 1 else f" number {constant[0]} (counted from 0)"
        raise StageError(
            f"dataset: the target{number} is {columns[0, constant[0]]:g} at every training point; "
            "give targets that vary, or more points"
        )


def _rounded(points: np.ndarray) -> np.ndarray:
    """A row for every point with its direction and the logarithm of its norm, both rounded to ten digits.

    Rows are equal if the points are equal to ten digits, whatever their size.
    """
    largest = np.abs(points).max(axis=1, keepdims=True)
    scaled = np.divide(points, largest, out=np.zeros_like(points), where=largest > 0)  # so that squares do not underflow
    norm = np.linalg.norm(scaled, axis=1, keepdims=True)
    direction = np.divide(scaled, norm, out=scaled, where=norm > 0)
    with np.errstate(divide="ignore"):
        size = np.log(norm) + np.log(largest)
    return np.round(np.hstack([direction, size]), 10) + 0.0  # turns -0 into 0
