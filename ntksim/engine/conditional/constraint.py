"""Whether both sides of a matrix that is revealed know one and the same matrix, looked at in every pass of training.

Vectors V of one side have images W V, and vectors U of the other W'U. However they are known, U'(W V) = (W'U)'V. Of both sides
a combination of what was asked last is kept, as the bases have it, with the same combination of its images: some multiplications
a neuron and vector, beside those of a pass with every known direction.
"""

from dataclasses import dataclass, field

import numpy as np

from ntksim.engine.conditional.tall import Tall, Team

BOUND = 2.0**14  # units of rounding that the two sides may differ by: 4e-12 in float64; up to 12.4 were seen, at width 40


@dataclass
class Witness:
    """A combination of the vectors that a side was asked for last, and of their images: pieces (neurons,)."""

    vector: Tall = field(default_factory=list)
    image: Tall = field(default_factory=list)


def combined(rows: np.ndarray) -> np.ndarray:
    """Rows (n, neurons) with unlike factors, so that alike or opposite ones do not cancel: (neurons,)."""
    return np.cos(np.arange(len(rows))).astype(rows.dtype) @ rows


def require_one_matrix(team: Team, one: Witness, other: Witness) -> None:
    """Raise ArithmeticError if two sides do not agree."""
    (a, size_a), (b, size_b) = _product(team, one.vector, other.image), _product(team, other.vector, one.image)
    unit, off, size = float(np.finfo(one.vector[0].dtype).eps), abs(a - b), max(size_a, size_b)
    if off > BOUND * unit * size:  # not so of numbers that are not finite, where networks diverge
        raise ArithmeticError(
            f"what is known of both sides of a hidden matrix in law differs by {off / size:.1g} of its size, more than rounding "
            f"({BOUND * unit:.1g}), and what follows would be wrong: report this with the call, or use sampling='weights'"
        )


def _product(team: Team, vector: Tall, image: Tall) -> tuple[float, float]:
    """The product, and that of lengths, which rounding is relative to; very short ones have fewer digits, and count as longer."""
    least = max(float(np.finfo(vector[0].dtype).tiny), np.sqrt(float(np.finfo(np.float64).tiny)))

    def work(p: int) -> np.ndarray:
        a, b = vector[p].astype(np.float64, copy=False), image[p].astype(np.float64, copy=False)
        return np.array([a @ b, a @ a, b @ b])

    product, *squares = team.sum(work, len(vector)).tolist()
    return product, float((np.sqrt(squares[0]) + least) * (np.sqrt(squares[1]) + least))
