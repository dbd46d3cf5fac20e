"""The section `dataset` of a configuration: which points and targets, and what is checked of them before any file is read."""

import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from ntksim.study.config.headers import rows
from ntksim.study.config.section import MOST, Section, check_path, one_of
from ntksim.study.errors import shown

CLASSES = {"digits": 10, "iris": 3, "wine": 3, "breast_cancer": 2}  # labels 0, 1, ... of scikit-learn's sets
FEATURES = {"digits": 64, "iris": 4, "wine": 13, "breast_cancer": 30, "diabetes": 10}
SYNTHETIC = ("gaussian", "sphere", "circle")
SCALINGS = ("sphere", "standardize", "none")
SPACINGS = ("random", "even")
FILES = ("file", "train_file", "test_file", "evaluation_file")  # keys of the user's files
_SUFFIXES = (".npz", ".csv", ".parquet")


def _new(default: Any, description: str, **limits: Any) -> Any:
    """A key that is left out of every record where it does nothing, so that those of earlier studies stay what they were."""
    return Field(default=default, exclude_if=lambda value: value == default, description=description, **limits)


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
        "folder you run in; an .npz with arrays x_train, y_train, x_test and y_test holds a split of its own, and may have "
        "evaluation points x_evaluation",
    )
    train_file: str | list[str] | None = _new(
        None, "training points instead of file, in its formats, for a split of your own; with test_file"
    )
    test_file: str | list[str] | None = _new(None, "test points, beside train_file")
    evaluation_file: str | None = _new(
        None, "points at which kernels and predictions are looked at, beside those of the test: .npz with x, .npy, or a table of "
        "the features"
    )  # fmt: skip
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
    # None where they are left out, which the validator below turns into the number that the file has
    train: int = Field(
        default=None, ge=2, lt=MOST, validate_default=True, description="training points; all of train_file if left out there"
    )
    test: int = Field(
        default=None, ge=2, lt=MOST, validate_default=True, description="test points; all of test_file if left out there"
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="seed of the choice of points, or of synthetic ones")
    scaling: Annotated[str, one_of(SCALINGS)] | None = Field(
        default=None,
        description="sphere (default, except for synthetic sets): centre points with the training mean, scale each to norm "
        "sqrt(features), and standardize targets unless they encode classes (-1 and 1, or one-hot); standardize: the same, but "
        "first divide each feature by its standard deviation over the training points (a constant one becomes 0); none: take "
        "the numbers as they are",
    )
    target_scale: float = _new(1.0, "factor on the targets, those of classes too", ge=1e-8, le=1e8)
    formula: str | None = _new(
        None, "targets of synthetic points in place of x_1 x_2, such as 0.9 sin(2 theta) - cos(theta) on the circle, or "
        "x1*x2 + 0.5 gegenbauer(3, x1)"
    )  # fmt: skip
    noise: float = _new(
        0.0, "standard deviation of normal numbers added to training targets, before these are scaled", ge=0, le=1e8
    )
    noise_seed: int = _new(0, "seed of the noise", ge=0, lt=2**32)
    spacing: Annotated[str, one_of(SPACINGS)] = _new(
        "random", "of circle: training points drawn at random, or evenly spaced from angle 0 on"
    )
    grid: int | None = _new(
        None, "of circle: evenly spaced points, from angle 0 on, from which training and test points are drawn", ge=4, lt=MOST
    )
    density: str | None = _new(
        None, "of circle: the law of random points, a formula of theta such as 1 + 0.5 cos(theta); its integral may be any"
    )
    evaluation: int | None = _new(None, "of circle: evaluation points, evenly spaced from angle 0 on", ge=1, lt=MOST)

    @property
    def is_synthetic(self) -> bool:
        """Whether the points are made rather than loaded."""
        return self.name in SYNTHETIC

    @property
    def files(self) -> list[str]:
        """The files of one's own data; empty without."""
        return [path for key in FILES for path in self.paths(key)]

    def paths(self, key: str) -> list[str]:
        """The files of one key, such as ``train_file``; empty without."""
        return _listed(getattr(self, key))

    @property
    def train_key(self) -> str | None:
        """The key of the files with training points; None for sets without files."""
        return "train_file" if self.train_file is not None else "file" if self.file is not None else None

    @property
    def train_files(self) -> list[str]:
        """The files with training points; empty without."""
        return self.paths(self.train_key) if self.train_key else []

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

    @field_validator("file", "train_file", "test_file", mode="before")
    @classmethod
    def _readable(cls, file: Any) -> Any:
        paths = _listed(file)
        if file is not None:
            if not all(isinstance(path, str) for path in paths) or not 1 <= len(paths) <= 2:
                raise ValueError("expected a path, or a pair [x.npy, y.npy]")
            suffixes = [Path(path).suffix for path in paths]
            for path in paths:
                check_path(path)
            if suffixes != [".npy", ".npy"] and (len(paths) == 2 or suffixes[0] not in _SUFFIXES):
                raise ValueError("expected one .npz, .csv or .parquet file, or a pair [x.npy, y.npy]")
        return file

    @field_validator("evaluation_file", mode="before")
    @classmethod
    def _of_points(cls, file: Any) -> Any:
        if file is not None and (not isinstance(file, str) or Path(check_path(file)).suffix not in (*_SUFFIXES, ".npy")):
            raise ValueError("expected the path of one .npz, .npy, .csv or .parquet file")
        return file

    @field_validator("train", "test", mode="before")
    @classmethod
    def _all(cls, count: Any, info: ValidationInfo) -> Any:
        """The number, or that of the points in a file of a split of one's own."""
        if count is not None:
            return count
        own, array = info.data, f"x_{info.field_name}"
        if split := own.get("train_file") or own.get("test_file"):
            path, array = (_listed(own.get(f"{info.field_name}_file")) or _listed(split))[0], "x"
        else:
            path = str(own.get("file"))
            if not path.endswith(".npz") or (rows(path, array) is None and rows(path, "x") is not None):
                raise PydanticCustomError("missing", "Field required")
        if (found := rows(path, array)) is None:  # a guess would train on it
            raise ValueError(f"expected a number, since {path} is missing, damaged or without an array {array}")
        return max(2, found)  # of a single one loading says that it is not enough

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
        if (self.train_file is None) != (self.test_file is None):
            given, lacking = ("train_file", "test_file") if self.test_file is None else ("test_file", "train_file")
            raise ValueError(f"{lacking}: {given} needs it; give both, or file, whose points are split at random")
        if self.file is not None and self.train_file is not None:
            raise ValueError("give either file, or train_file and test_file")
        if (self.name is None) == (self.train_key is None):
            raise ValueError("give either name (a set that ships with ntksim) or file (your own data), and not both")
        if self.target is not None and not (self.train_files and self.train_files[0].endswith(_SUFFIXES[1:])):
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
        return self

    @model_validator(mode="after")
    def _makes_points(self) -> "Dataset":
        """Keys of points that are made, and of their targets, are refused where they would do nothing."""
        if self.formula is not None and not self.is_synthetic:
            raise ValueError(f"formula: belongs to the synthetic sets, {', '.join(SYNTHETIC)}; leave it out here")
        if self.noise_seed != 0 and not self.noise:
            raise ValueError("noise_seed: does nothing without noise; set noise above 0, or leave it out")
        if self.noise and self.classes_or_default is not None:
            raise ValueError("noise: is added to real targets, and these are classes; leave it out")
        for key in ("spacing", "grid", "density", "evaluation"):
            if getattr(self, key) != type(self).model_fields[key].default and self.name != "circle":
                remedy = "; evaluation_file gives evaluation points of any set" if key == "evaluation" else ""
                raise ValueError(f"{key}: belongs to name: circle, and to no other set; leave it out here{remedy}")
        chosen = [key for key in ("spacing", "grid", "density") if getattr(self, key) not in (None, "random")]
        if len(chosen) > 1:
            raise ValueError(f"{chosen[1]}: {chosen[0]} says already where points lie; leave one of the two out")
        if self.evaluation is not None and self.evaluation_file is not None:
            raise ValueError("evaluation: evaluation_file gives evaluation points already; leave one of the two out")
        if self.grid is not None and self.train + self.test > self.grid:
            raise ValueError(f"grid: expected at least train + test = {self.train + self.test} points, got {self.grid}; raise it")
        return self


def _listed(paths: Any) -> list[Any]:
    return list(paths) if isinstance(paths, list) else [] if paths is None else [paths]


def _is_label(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, (int, str)) and not isinstance(value, bool)
