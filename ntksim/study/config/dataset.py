"""The section `dataset` of a configuration: which points and targets, and what is checked of them before any file is read."""

import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from ntksim.study.config.section import MOST, Section, check_path, one_of
from ntksim.study.errors import shown

CLASSES = {"digits": 10, "iris": 3, "wine": 3, "breast_cancer": 2}  # labels 0, 1, ... of scikit-learn's sets
FEATURES = {"digits": 64, "iris": 4, "wine": 13, "breast_cancer": 30, "diabetes": 10}
SYNTHETIC = ("gaussian", "sphere", "circle")
SCALINGS = ("sphere", "standardize", "none")
_SUFFIXES = (".npz", ".csv", ".parquet")


class Dataset(Section):
    """The points and targets: a set that ships with scikit-learn, a synthetic one, or files of one's own."""

    name: Annotated[str, one_of((*FEATURES, *SYNTHETIC))] | None = Field(
        default=None,
        description="a set of scikit-learn, or synthetic points (normal, on the sphere of radius sqrt(features), on the unit "
        "circle) with the targets x_1 x_2",
    )
    file: str | list[str] | None = Field(
        default=None,
        description="your own data instead of a name: .npz with arrays x and y, .csv or .parquet with feature columns and a "
        "target column, or a pair [x.npy, y.npy]; y may have a column for each of several targets; the path is taken from the "
        "folder you run in",
    )
    target: str | list[str] | None = Field(
        default=None, description="target column of a .csv or .parquet file, or a list of them (default: target)"
    )
    classes: list[int | float | str] | None = Field(
        default=None,
        description="labels, two at least: the first of two becomes the target -1, the second +1, and k > 2 become k targets, "
        "one-hot less 1 / k; leave out for all classes of a set of scikit-learn, and for real-valued targets; a column of "
        "booleans has the labels 0 and 1",
    )
    features: int | None = Field(default=None, ge=2, lt=MOST, description="features of the synthetic sets gaussian and sphere")
    train: int = Field(ge=2, lt=MOST, description="training points")
    test: int = Field(ge=2, lt=MOST, description="test points")
    seed: int = Field(default=0, ge=0, lt=2**32, description="seed of the choice of points, or of synthetic ones")
    scaling: Annotated[str, one_of(SCALINGS)] | None = Field(
        default=None,
        description="sphere (default, except for synthetic sets): centre points with the training mean, scale each to norm "
        "sqrt(features), and standardize targets unless they encode classes (-1 and 1, or one-hot); standardize: the same, but "
        "first divide each feature by its standard deviation over the training points (a constant one becomes 0); none: take "
        "the numbers as they are",
    )
    # left out of every record where it does nothing, so that those of earlier studies stay what they were
    target_scale: float = Field(
        default=1.0,
        ge=1e-8,
        le=1e8,
        exclude_if=lambda scale: scale == 1,
        description="factor on the targets, those of classes too",
    )

    evaluation: int | None = Field(
        default=None,
        ge=1,
        lt=MOST,
        exclude_if=lambda points: points is None,
        description="of circle: evaluation points, evenly spaced from angle 0 on",
    )

    @property
    def is_synthetic(self) -> bool:
        """Whether the points are made rather than loaded."""
        return self.name in SYNTHETIC

    @property
    def files(self) -> list[str]:
        """The files of one's own data; empty without."""
        return [self.file] if isinstance(self.file, str) else list(self.file or [])

    @property
    def targets(self) -> list[str]:
        """The target columns of a table."""
        return self.target if isinstance(self.target, list) else [self.target or "target"]

    @property
    def classes_or_default(self) -> list[Any] | None:
        """The labels, or None for real-valued targets."""
        return list(range(CLASSES[self.name])) if self.name in CLASSES and self.classes is None else self.classes

    @property
    def outputs(self) -> int:
        """Targets of a point, as far as the configuration tells: arrays of one's own may have more."""
        classes = len(self.classes_or_default or [])
        return (1 if classes == 2 else classes) if classes else len(self.targets)

    @property
    def scaling_or_default(self) -> str:
        """sphere, standardize or none."""
        return self.scaling or ("none" if self.is_synthetic else "sphere")

    @field_validator("file", mode="before")
    @classmethod
    def _readable(cls, file: Any) -> Any:
        paths = file if isinstance(file, list) else [file]
        if file is not None:
            if not all(isinstance(path, str) for path in paths) or not 1 <= len(paths) <= 2:
                raise ValueError("expected a path, or a pair [x.npy, y.npy]")
            suffixes = [Path(path).suffix for path in paths]
            for path in paths:
                check_path(path)
            if suffixes != [".npy", ".npy"] and (len(paths) == 2 or suffixes[0] not in _SUFFIXES):
                raise ValueError("expected one .npz, .csv or .parquet file, or a pair [x.npy, y.npy]")
        return file

    @field_validator("target", mode="before")
    @classmethod
    def _columns(cls, target: Any) -> Any:
        names = target if isinstance(target, list) else [target]
        if target is not None and not (names and all(isinstance(name, str) for name in names) and len(set(names)) == len(names)):
            raise ValueError("expected the name of a column, or a list of different ones")
        return target

    @field_validator("classes", mode="before")
    @classmethod
    def _labels(cls, classes: Any) -> Any:
        if classes is None:
            return classes
        if not isinstance(classes, list) or not all(map(_is_label, classes)):
            raise ValueError(
                "expected a list of text and finite numbers (quote words like yes and no; for a column of booleans give 0 and 1)"
            )
        if len(classes) < 2 or len(set(classes)) < len(classes):
            raise ValueError("expected different labels, two at least")
        return classes

    @model_validator(mode="after")
    def _fits_together(self) -> "Dataset":
        if (self.name is None) == (self.file is None):
            raise ValueError("give either name (a set that ships with ntksim) or file (your own data), and not both")
        if self.target is not None and not (self.files and self.files[0].endswith(_SUFFIXES[1:])):
            raise ValueError("target names a column of a .csv or .parquet file; leave it out here")
        if self.classes is not None and len(self.targets) > 1:
            raise ValueError("target: labels of classes stand in one column; name that one, or leave classes out")
        if self.name in CLASSES:
            labels = range(CLASSES[self.name])
            if any(c not in labels for c in self.classes or []):
                raise ValueError(f"classes: expected labels of {self.name}, from 0 to {labels[-1]}, got {shown(self.classes)}")
        elif self.name is not None and self.classes is not None:
            raise ValueError(f"classes: the targets of {self.name} are real numbers; leave classes out")
        if (self.name in ("gaussian", "sphere")) != (self.features is not None):
            raise ValueError("features: the synthetic sets gaussian and sphere need it, and only they have it")
        if self.evaluation is not None and self.name != "circle":
            raise ValueError("evaluation: a number of evenly spaced points belongs to name: circle; leave it out here")
        return self


def _is_label(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, (int, str)) and not isinstance(value, bool)
