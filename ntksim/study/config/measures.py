"""What a study measures beside its usual tables: `training.measures`, along training, and `initial.dispersion`."""

import itertools
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from ntksim.study.config.section import MOST, Section

_MOST_DEGREE = 10_000
_FREEZE_SHARE = 0.01
_MOST_COUPLINGS = 2_000_000  # rows of a table, which is made in memory: some 1 GB


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
    couplings: bool = Field(
        default=False, description="shares of what K_t makes of a mode that lie in each other mode of its basis, and in itself"
    )
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

    @model_validator(mode="after")
    def _has_modes(self) -> Self:
        if self.couplings and self.modes is None and self.eigenvectors is None:
            raise ValueError(
                "couplings: are those between modes, and there are none; give modes or eigenvectors, or leave it out"
            )
        return self

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
    def coupled(self) -> list[tuple[str, str, int, str, int]]:
        """Of every coupling its basis, the name and order of the mode, and those of the mode that it goes to, in the order of a
        shard's lists; eigenvectors of K_t, which K_t does not mix, have none.
        """
        return [(*mode, *other[1:]) for own in self._coupled_groups for mode, other in itertools.product(own, repeat=2)]

    @property
    def number_of_couplings(self) -> int:
        return sum(len(own) ** 2 for own in self._coupled_groups)

    @property
    def _coupled_groups(self) -> list[list[tuple[str, str, int]]]:
        kinds = itertools.groupby(self.labels if self.couplings else (), key=lambda label: label[0])
        return [list(own) for basis, own in kinds if basis != "current_eigenvectors"]

    def check_rows(self, runs: int) -> None:
        """Raises ValueError if the couplings of so many snapshots of all seeds are more than a table holds."""
        rows = runs * self.number_of_couplings
        if rows > _MOST_COUPLINGS:
            raise ValueError(
                f"training.measures.couplings: the table would have {rows} rows, more than {_MOST_COUPLINGS}; ask for fewer "
                "modes, snapshots or seeds, or leave it out"
            )

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
            "couplings": self.couplings,
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
