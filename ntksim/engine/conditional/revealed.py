"""A Gaussian matrix that is revealed as it is asked for (Householder dice; Lu 2021, arXiv 2101.07464).

Of W, standard normal with n rows and m columns, only what has been asked is known: on orthonormal rows Q (r, m) the images Q W',
and on orthonormal rows P (s, n) the images P W. Given those, W is Gaussian on what neither has reached, so that the answer for a
new direction N, orthogonal to Q, is

    N W' = G + (N W P' - G P')' P,    N W P' = N H',    G fresh normals, H the normals of P's images,

and the same with the sides exchanged: images P W differ from H along Q alone, to which N is orthogonal. So an image is its
normals, which are drawn anew whenever they are needed, and small coefficients on the other side's basis: nothing but the two
bases is kept. Every answer, and all that is computed from answers, has exactly the law of an explicit matrix.

Vectors are asked up to a tolerance: what of a vector lies outside the known directions, and is shorter than that part of its
length, adds no direction and is left out. Directions belong to the vectors in their order, and a direction's normals to the
number of its vector, whether those before it have added directions or not.

Where the directions of a side pass a third of all, the others are asked at once: from there on the matrix is known.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ntksim.engine.conditional.constraint import Witness, combined, require_one_matrix
from ntksim.engine.conditional.drawn import Draw, Drawn
from ntksim.engine.conditional.parameters import added, padded
from ntksim.engine.conditional.tall import Growing, Tall, Team, pieces_of
from ntksim.engine.formulas.normals import ROWS_PER_BLOCK

_COMPLETE = 3  # directions of a side, as an inverse part of all, from which the others are asked at once
_UNITS = 128  # vectors that are then asked at a time


@dataclass
class Side:
    """What is known on one side: orthonormal ``basis`` (r, width), and images of it of the other side's width.

    Those are ``normals`` and ``mixing`` (r, directions of the other side then) times the other side's basis.
    """

    width: int
    basis: Growing
    normals: Drawn
    mixing: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    asked: int = 0  # vectors so far, in whole blocks of the generator
    witness: Witness = field(default_factory=Witness)
    complete: bool = False

    @property
    def rank(self) -> int:
        """Known directions."""
        return self.basis.rows


class Revealed:
    """A matrix of ``rows`` and ``columns``; ``draws`` are the normals of its images of columns' vectors, and of rows'."""

    def __init__(self, rows: int, columns: int, draws: tuple[Draw, Draw], tolerance: float, kind: np.dtype, team: Team) -> None:
        self.team, self.kind, self.cut = team, kind, tolerance**2
        self.right = Side(columns, Growing(columns, kind), Drawn(draws[0]))
        self.left = Side(rows, Growing(rows, kind), Drawn(draws[1]))
        self.square_norm = 0.0  # ||W||^2 without what neither side has reached

    @property
    def rank(self) -> int:
        """Known directions, on the side that has more of them."""
        return max(self.right.rank, self.left.rank)

    @property
    def freedom(self) -> int:
        """Dimensions of what neither side has reached."""
        return (self.left.width - self.left.rank) * (self.right.width - self.right.rank)

    def other(self, own: Side) -> Side:
        """The other side."""
        return self.left if own is self.right else self.right

    def ask(self, own: Side, vectors: Tall) -> np.ndarray:
        """Coordinates (rank, vectors) of vectors in a side's basis, which grows by directions that are new."""
        found = self._ask(own, vectors, self.cut)
        if _COMPLETE * own.rank <= own.width or own.complete:
            return found
        self._complete(own)
        return self._ask(own, vectors, self.cut)

    def images(self, own: Side, coordinates: np.ndarray, scale: float, more: np.ndarray) -> Callable[[int], np.ndarray]:
        """What gives pieces of ``scale`` times the images of vectors (rank, n), plus ``more`` (directions, n) of the other basis.

        The vectors are given by their coordinates; ``more`` may have fewer rows than the other side has directions.
        """
        basis, places = self.other(own).basis.pieces, pieces_of(self.other(own).width)
        known = scale * coordinates.T
        factors = added(known @ own.mixing, more.T).astype(self.kind)
        normals, rows = own.normals.weighted(known.astype(self.kind)), factors.shape[1]

        def piece(p: int) -> np.ndarray:
            image = factors @ basis[p][:rows]
            image += normals(*places[p])
            return image

        return piece

    def witnessed(self, own: Side, images: Callable[[int], np.ndarray]) -> Callable[[int], np.ndarray]:
        """:meth:`images` of what was asked last, of which the side keeps a combination."""
        own.witness.image = kept = [np.empty(0)] * len(pieces_of(self.other(own).width))

        def piece(p: int) -> np.ndarray:
            image = images(p)
            kept[p] = combined(image)
            return image

        return piece

    def require_one(self) -> None:
        """Raise ArithmeticError unless both sides know one matrix, after both were asked, with one ``more`` of their images."""
        require_one_matrix(self.team, self.right.witness, self.left.witness)

    def _ask(self, own: Side, vectors: Tall, cut: float) -> np.ndarray:
        """:meth:`ask`, without completing the side, and with another square of the tolerance."""
        count, first = len(vectors[0]), own.asked
        own.asked += -(-count // ROWS_PER_BLOCK) * ROWS_PER_BLOCK
        found = self.team.product(own.basis.pieces, vectors)
        if own.rank == own.width:
            own.witness.vector = self.team.map(lambda p: combined(vectors[p]), len(vectors))
            return found
        rest = self._outside(own, vectors, found)
        squares, left_over = self.team.gram(vectors, vectors).diagonal(), self.team.gram(rest, rest)
        new, combination = _directions(left_over, cut * squares, own.width - own.rank)
        if new.size == 0:
            return found
        directions = self._orthonormal(own, combination.astype(self.kind), rest)
        more = self.team.product(directions, rest)
        part, known = combined(more.T.astype(self.kind)), own.witness.vector
        own.witness.vector = self.team.map(lambda p: known[p] + part @ directions[p], len(known))
        coordinates = np.concatenate([found, more])
        self._extend(own, directions, first + new)
        return coordinates

    def _outside(self, own: Side, vectors: Tall, found: np.ndarray) -> Tall:
        """Vectors less their part in the basis."""
        factors, basis = found.T.astype(self.kind), own.basis.pieces

        def work(p: int) -> tuple[np.ndarray, np.ndarray]:
            known = factors @ basis[p]
            return combined(known), vectors[p] - known

        done = self.team.map(work, len(vectors))
        own.witness.vector = [vector for vector, _ in done]
        return [rest for _, rest in done]

    def _orthonormal(self, own: Side, combination: np.ndarray, rest: Tall) -> Tall:
        """Combinations of rows that are nearly orthonormal, and nearly orthogonal to the basis, made so to rounding."""
        basis, team = own.basis.pieces, self.team
        rows = team.map(lambda p: combination @ rest[p], len(rest))
        overlap = team.product(rows, basis)
        inverse = np.linalg.inv(np.linalg.cholesky(team.gram(rows, rows) - overlap @ overlap.T))
        of_rows, of_basis = inverse.astype(self.kind), (inverse @ overlap).astype(self.kind)
        return team.map(lambda p: of_rows @ rows[p] - of_basis @ basis[p], len(rows))

    def _extend(self, own: Side, directions: Tall, numbers: np.ndarray) -> None:
        """Add directions, whose normals have these ``numbers``, and find their images given all that is known."""
        other, fresh = self.other(own), Drawn(own.normals.draw)
        fresh.add(numbers)
        here, there = pieces_of(own.width), pieces_of(other.width)
        shared = self.team.sum(lambda p: other.normals.products(directions[p], *here[p]), len(here))
        basis = other.basis.pieces

        def of_normals(p: int) -> np.ndarray:
            rows = fresh.rows(*there[p])
            squares = np.sum(np.square(rows, dtype=np.float64), axis=1, keepdims=True)
            return np.concatenate([rows @ basis[p].T, squares], axis=1)

        sums = self.team.sum(of_normals, len(there))
        along, squares = sums[:, :-1], sums[:, -1]
        self.square_norm += float(np.sum(squares) - np.sum(along**2))
        shape = np.array([own.rank + len(numbers), other.rank])
        own.mixing = padded(own.mixing, shape)
        own.mixing[own.rank :] = shared - along
        own.normals.add(numbers)
        own.basis.append(directions)

    def _complete(self, own: Side) -> None:
        """Ask for all directions that are left, along one axis after another."""
        places = pieces_of(own.width)
        for first in range(0, own.width, _UNITS):
            count = min(_UNITS, own.width - first)
            units = [np.eye(count, end - begin, first - begin, dtype=self.kind) for begin, end in places]
            # What is missing of the axes has squares that add up to the number of missing directions: half a one is none.
            self._ask(own, units, 0.5 / own.width)
        own.complete = True


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
