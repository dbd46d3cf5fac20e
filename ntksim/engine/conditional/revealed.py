"""A Gaussian matrix that is revealed as it is asked for (Householder dice; Lu 2021, arXiv 2101.07464).

Of W, standard normal with n rows and m columns, only what has been asked is known: on orthonormal rows Q (r, m) the images
Y = Q W' (r, n), and on orthonormal rows P (s, n) the images B = P W (s, m), which agree where they meet: P Y' = B Q'. Given that,
W is Gaussian on what neither has reached, so that the answer for a new direction N, orthogonal to Q, is

    N W' = (N B') P + G (I - P'P),    G fresh normals,

and the same with the sides exchanged. Every answer, and all that is computed from answers, has exactly the law of an explicit
matrix. Vectors are asked up to a tolerance: what of a vector lies outside the known directions, and is shorter than that part of
its length, adds no direction and is left out. Directions belong to the vectors in their order, and a direction's normals to the
number of its vector, whether those before it have added directions or not.

Where the directions of a side pass a third of all, the others are asked at once: from there on the matrix is known.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ntksim.engine.conditional.tall import Growing, Tall, Team, joined, pieces_of, split
from ntksim.engine.formulas.normals import ROWS_PER_BLOCK

Draw = Callable[[int, int, int, int], np.ndarray]  # first row, first column, rows, columns -> standard normals
_NOISE = 32  # units of rounding: shorter parts of vectors may be rounding (in float32 twice as many directions would be)
_COMPLETE = 3  # directions of a side, as an inverse part of all, from which the others are asked at once


@dataclass
class Side:
    """What is known on one side: orthonormal ``basis`` (r, width) and its ``image`` (r, width of the other side)."""

    width: int
    draw: Draw
    basis: Growing
    image: Growing
    asked: int = 0  # vectors so far, in whole blocks of the generator
    complete: bool = False

    @property
    def rank(self) -> int:
        """Known directions."""
        return self.basis.rows


class Revealed:
    """A matrix of ``rows`` and ``columns``; ``draws`` are the normals of its images of columns' vectors, and of rows'."""

    def __init__(self, rows: int, columns: int, draws: tuple[Draw, Draw], tolerance: float, kind: np.dtype, team: Team) -> None:
        self.team, self.kind, self.cut = team, kind, max(tolerance, _NOISE * float(np.finfo(kind).eps)) ** 2

        self.right = Side(columns, draws[0], Growing(columns, kind), Growing(rows, kind))
        self.left = Side(rows, draws[1], Growing(rows, kind), Growing(columns, kind))

    @property
    def rank(self) -> int:
        """Known directions, on the side that has more of them."""
        return max(self.right.rank, self.left.rank)

    def ask(self, own: Side, vectors: Tall) -> np.ndarray:
        """Coordinates (rank, vectors) of vectors in a side's basis, which grows by directions that are new."""
        other = self.left if own is self.right else self.right
        count, first = len(vectors[0]), own.asked
        own.asked += -(-count // ROWS_PER_BLOCK) * ROWS_PER_BLOCK
        found = self.team.product(own.basis.pieces, vectors)
        if own.complete:
            return found
        rest, correction = self._outside(own, vectors, found)
        found += correction
        squares = self.team.gram(vectors, vectors).diagonal()
        left_over = self.team.gram(rest, rest) - correction.T @ correction
        new, combination = _directions(left_over, self.cut * squares, own.width - own.rank)
        if new.size == 0:
            return found
        directions = self._orthonormal(own, self._combined(own, combination, rest, correction))
        self._extend(own, other, directions, first + new)
        if _COMPLETE * own.rank > own.width:
            self._complete(own, other)
        return np.concatenate([found, self.team.product([piece[len(found) :] for piece in own.basis.pieces], vectors)])

    def _outside(self, own: Side, vectors: Tall, found: np.ndarray) -> tuple[Tall, np.ndarray]:
        """Vectors less their part in the basis, and what rounding has left of that, by the basis."""
        factors, basis = found.T.astype(self.kind), own.basis.pieces

        def work(p: int) -> tuple[np.ndarray, np.ndarray]:
            rest = vectors[p] - factors @ basis[p]
            return rest, basis[p] @ rest.T

        parts = self.team.map(work, len(vectors))
        return [rest for rest, _ in parts], sum((part for _, part in parts), np.zeros_like(found))

    def _combined(self, own: Side, combination: np.ndarray, rest: Tall, correction: np.ndarray) -> Tall:
        """Combinations of what lies outside the basis."""
        of_rest, of_basis = combination.astype(self.kind), (combination @ correction.T).astype(self.kind)
        basis = own.basis.pieces
        return self.team.map(lambda p: of_rest @ rest[p] - of_basis @ basis[p], len(rest))

    def _orthonormal(self, own: Side, rows: Tall) -> Tall:
        """Rows that are nearly orthonormal, and nearly orthogonal to the basis, made so to rounding."""
        overlap = self.team.product(own.basis.pieces, rows)
        inverse = np.linalg.inv(np.linalg.cholesky(self.team.gram(rows, rows) - overlap.T @ overlap))
        return self._combined(own, inverse, rows, overlap)

    def _extend(self, own: Side, other: Side, directions: Tall, numbers: np.ndarray) -> None:
        """Add directions, and draw their images given all that is known: ``numbers`` are their rows among the normals."""
        normals = self._normals(own, other, numbers)
        known = self.team.product(directions, other.image.pieces) - self.team.product(normals, other.basis.pieces)
        factors, basis = known.astype(self.kind), other.basis.pieces
        own.image.append(self.team.map(lambda p: normals[p] + factors @ basis[p], len(normals)))
        own.basis.append(directions)

    def _normals(self, own: Side, other: Side, numbers: np.ndarray) -> Tall:
        """Rows of a side's normals, by their numbers."""
        places = pieces_of(other.width)
        blocks, within = np.unique(numbers // ROWS_PER_BLOCK, return_inverse=True)
        chosen = within * ROWS_PER_BLOCK + numbers % ROWS_PER_BLOCK

        def work(p: int) -> np.ndarray:
            begin, end = places[p]
            rows = [own.draw(int(b) * ROWS_PER_BLOCK, begin, ROWS_PER_BLOCK, end - begin) for b in blocks]
            return np.concatenate(rows)[chosen]

        return self.team.map(work, len(places))

    def _complete(self, own: Side, other: Side) -> None:
        """Ask for all directions that are left."""
        basis = joined(own.basis.pieces).T
        rest = split(np.linalg.qr(basis, mode="complete")[0][:, own.rank :].T)
        numbers = own.asked + np.arange(own.width - own.rank)
        if numbers.size:
            self._extend(own, other, self._orthonormal(own, rest), numbers)
        own.complete = True

    @property
    def freedom(self) -> int:
        """Dimensions of what neither side has reached."""
        return (self.left.width - self.left.rank) * (self.right.width - self.right.rank)

    def square_norm(self) -> float:
        """||W||^2 without what neither side has reached."""
        images = [*self.right.image.pieces, *self.left.image.pieces]
        known = sum(float(np.sum(np.square(piece, dtype=np.float64))) for piece in images)
        shared = self.team.product(self.left.basis.pieces, self.right.image.pieces)
        return known - float(np.sum(shared**2))


def _directions(gram: np.ndarray, cuts: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Which vectors, in their order, add a direction, at most so many, and combinations (new, vectors) that are orthonormal.

    A vector adds none where the square of what those before it leave of it is at most its cut.
    """
    rest, combinations = gram.copy(), np.eye(len(gram))
    new: list[int] = []
    for i in range(len(gram)):
        pivot = rest[i, i]
        if pivot > cuts[i] and len(new) < most:
            new.append(i)
            factors = rest[i + 1 :, i] / pivot
            rest[i + 1 :, i + 1 :] -= np.outer(factors, rest[i, i + 1 :])
            combinations[i + 1 :] -= np.outer(factors, combinations[i])
            combinations[i] /= np.sqrt(pivot)
    return np.array(new, np.int64), combinations[new]
