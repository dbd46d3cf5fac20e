"""What a study measures beside its usual tables: `training.measures`, along training, and `initial.dispersion`."""

from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from ntksim.study.config.section import MOST, Section

_MOST_DEGREE = 10_000
_FREEZE_SHARE = 0.01


class Modes(Section):
    """Named functions on which the residual is measured: frequencies on the circle, or degrees on a sphere."""

    frequencies: list[int] | None = Field(
        default=None, min_length=1, description="k of cos k theta and sin k theta, for points on a circle around 0"
    )
    degrees: list[int] | None = Field(
        default=None, min_length=1, description="k of all spherical harmonics of degree k, for points on a sphere around 0"
    )

    @field_validator("frequencies", "degrees")
    @classmethod
    def _orders(cls, orders: list[int] | None) -> list[int] | None:
        if orders is not None and (not all(0 <= k <= _MOST_DEGREE for k in orders) or len(set(orders)) < len(orders)):
            raise ValueError(f"expected different whole numbers from 0 to {_MOST_DEGREE}")
        return orders

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.frequencies is None) == (self.degrees is None):
            raise ValueError("give either frequencies (on the circle) or degrees (on a sphere), and not both")
        return self


class Measures(Section):
    """What is measured at every snapshot of training; a key that is left out measures nothing."""

    eigenvalues: int | None = Field(default=None, ge=1, lt=MOST, description="leading eigenvalues of K_t")
    eigenvectors: int | None = Field(
        default=None, ge=1, lt=MOST, description="leading eigenvectors of K_0 and of K_t on which the residual is measured"
    )
    modes: Modes | None = Field(default=None, description="named functions on which the residual is measured")
    regression: bool = Field(
        default=False, description="kernel regression with K_t, with training.ridge; its outputs too where predictions is true"
    )
    profile: bool = Field(
        default=False,
        description="K_t between the first training point and the evaluation points, or test points where there are none",
    )
    predictions: bool = Field(default=False, description="outputs on the evaluation points, or test points")
    freeze_share: float = Field(
        default=_FREEZE_SHARE,
        gt=0,
        lt=1,
        description="the kernel is frozen from the first snapshot on from which its velocity stays below this share of its first",
    )

    @property
    def identity(self) -> dict[str, Any]:
        """What the numbers of a job depend on: of the keys that do something all but the share, which tables apply."""
        return self.model_dump(exclude={"freeze_share"}, exclude_defaults=True)

    @property
    def labels(self) -> list[tuple[str, str, int]]:
        """Basis, name and order of every mode on which the residual is measured, in the order of a shard's lists."""
        found = [
            (basis, str(index), index)
            for basis in ("initial_eigenvectors", "current_eigenvectors")
            for index in range(self.eigenvectors or 0)
        ]
        if self.modes is not None and self.modes.frequencies is not None:
            pairs = ((word, k) for k in self.modes.frequencies for word in ("cos", "sin")[: 2 if k else 1])
            found += [("fourier", f"{word} {k}", k) for word, k in pairs]
        elif self.modes is not None:
            found += [("degree", f"degree {k}", k) for k in self.modes.degrees or ()]
        return found

    @property
    def of_jobs(self) -> "Measures | None":
        """The measures as a job is told of them: the share, which belongs to tables, does not change its command."""
        return self.model_copy(update={"freeze_share": _FREEZE_SHARE}) if self.identity else None

    @property
    def at_test_points(self) -> bool:
        """Whether kernels of test or evaluation points with training points are needed along training."""
        return self.regression or self.profile

    @property
    def tables(self) -> list[str]:
        """Names of the tables that hold them."""
        wanted = {
            "eigenvalues": self.eigenvalues,
            "mode_residuals": self.eigenvectors or self.modes,
            "regression": self.regression,
            "profiles": self.profile,
            "predictions": self.predictions,
        }
        return [*(name for name, asked in wanted.items() if asked), "freeze"]


class Dispersion(Section):
    """How much kernels scatter at initialisation, and by how much a first step of gradient descent changes them."""

    relative_learning_rate: float = Field(
        default=1.0,
        gt=0,
        lt=2,
        description="learning rate of the step in units of 1 / lambda_max(K_infinity); the largest stable one is 2",
    )
