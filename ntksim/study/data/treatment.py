"""Sentences on how a data set's points and targets were scaled, and warnings about them."""

from pathlib import Path

import numpy as np

from ntksim.study.config.dataset import Dataset
from ntksim.study.data.files import Data

_DOMINANT = 0.9  # a few features dominate if they hold at least this share of the squared norm


def treatment(options: Dataset, data: Data) -> list[str]:
    """Lines on the points, the targets, and the evaluation points if any, of a data set that :func:`dataset.load` returned."""
    features = data.x_train.shape[1]
    constant = int(np.sum(~data.x_train.any(axis=0)))
    points = {
        "none": "used unchanged",
        "sphere": f"centred with the training mean, and each scaled to norm sqrt({features})",
        "standardize": "centred with the training mean, each feature scaled to variance 1 over the training points"
        + (f" ({constant} constant features set to 0)" if constant else "")
        + f", and each point scaled to norm sqrt({features})",
    }[options.scaling_or_default]
    scale = "" if options.target_scale == 1 else f", times {options.target_scale:g}"
    lines = [
        f"Points: {_origin(options)}{points} (scaling: {options.scaling_or_default})",
        f"Targets: {_targets(options, data)}{scale}",
    ]
    if data.x_evaluation is not None:
        source = Path(options.evaluation_file or options.files[0]).name if options.files else "evenly spaced on the circle"
        lines += [f"Evaluation points: {len(data.x_evaluation)}, {source}"]
    return lines


def _origin(options: Dataset) -> str:
    """How points are chosen, where this is not at random."""
    if options.grid is not None:
        return f"drawn from {options.grid} evenly spaced ones, "
    if options.density is not None:
        return f"of density {options.density}, "
    return "training points evenly spaced, " if options.spacing == "even" else ""


def _targets(options: Dataset, data: Data) -> str:
    labels = options.classes_or_default
    if labels and len(labels) == 2:
        return f"class {labels[0]} is -1, class {labels[1]} is +1"
    if labels:
        return f"{len(labels)} classes, one-hot vectors minus 1/{len(labels)}"
    noise = f", with noise of standard deviation {options.noise:g} on the training targets" if options.noise else ""
    if data.are_classes:
        return "numbers that encode classes, not standardized"
    if options.scaling_or_default != "none":
        return f"{options.formula or 'real numbers'}{noise}, scaled to mean 0 and variance 1 over the training points"
    return f"{options.formula or 'x_1 x_2'}{noise}" if options.is_synthetic else f"real numbers{noise}, used unchanged"


def remarks(data: Data) -> list[str]:
    """A warning if at most a tenth of the features, or a single one, holds most of the points' squared norm; else nothing."""
    squares = np.square(data.x_train / (np.abs(data.x_train).max() or 1.0)).sum(axis=0)
    order = np.argsort(-squares, kind="stable")
    shares = np.cumsum(squares[order]) / (squares.sum() or 1.0)
    few, features = int(np.searchsorted(shares, _DOMINANT)) + 1, len(squares)
    if few > max(1, features // 10) or few == features:
        return []
    dominant = f"feature {order[0]} holds" if few == 1 else f"features {', '.join(map(str, sorted(order[:few])))} hold"
    return [
        f"{dominant} {shares[few - 1]:.1%} of the points' squared norm (of {features} features, counted from 0), so the others "
        "have little influence on the networks; dataset.scaling: standardize gives all features the same variance"
    ]
