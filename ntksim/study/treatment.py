"""What a data set's points and targets have been through, in words, and what is unwise about them."""

import numpy as np

from ntksim.study.dataset_files import Data
from ntksim.study.dataset_options import Dataset

_DOMINANT = 0.9  # of the squared norm, from which on a few features are said to outweigh the others


def treatment(options: Dataset, data: Data) -> list[str]:
    """A line on the points and one on the targets of a data set that :func:`datasets.load` has made."""
    features = data.x_train.shape[1]
    constant = int(np.sum(~data.x_train.any(axis=0)))
    points = {
        "none": "taken as they are",
        "sphere": f"centred with the training mean, and each scaled to norm sqrt({features})",
        "standardize": "centred with the training mean, each feature scaled to variance 1 over the training points"
        + (f" ({constant} that are constant there set to 0)" if constant else "")
        + f", and each point to norm sqrt({features})",
    }[options.scaling_or_default]
    scale = "" if options.target_scale == 1 else f", times {options.target_scale:g}"
    return [f"Points: {points} (scaling: {options.scaling_or_default})", f"Targets: {_targets(options, data)}{scale}"]


def _targets(options: Dataset, data: Data) -> str:
    labels = options.classes_or_default
    if labels and len(labels) == 2:
        return f"class {labels[0]} is -1, class {labels[1]} is +1"
    if labels:
        return f"{len(labels)} classes, one-hot less 1/{len(labels)}"
    if options.is_synthetic and options.scaling_or_default == "none":
        return "x_1 x_2"
    if data.are_classes:
        return "classes as they stand, not standardized"
    if options.scaling_or_default == "none":
        return "real numbers, taken as they are"
    return "real numbers, brought to mean 0 and variance 1 over the training points"


def remarks(data: Data) -> list[str]:
    """A line if a tenth of the points' features, or one of fewer than twenty, outweighs all others in what networks see."""
    squares = np.square(data.x_train / (np.abs(data.x_train).max() or 1.0)).sum(axis=0)
    order = np.argsort(-squares, kind="stable")
    shares = np.cumsum(squares[order]) / (squares.sum() or 1.0)
    few, all_of_them = int(np.searchsorted(shares, _DOMINANT)) + 1, len(squares)
    if few > max(1, all_of_them // 10) or few == all_of_them:
        return []
    which = f"feature {order[0]} holds" if few == 1 else f"features {', '.join(map(str, sorted(order[:few])))} hold"
    return [
        f"of {all_of_them} features (counted from 0) {which} {shares[few - 1]:.1%} of the points' squared norm, so that networks "
        "see little else; dataset.scaling: standardize brings all features to one variance"
    ]
