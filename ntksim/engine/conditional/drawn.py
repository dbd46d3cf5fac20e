"""Rows of normals that are drawn whenever they are needed, and never kept: they are functions of counters."""

from collections.abc import Callable, Iterator

import numpy as np

from ntksim.engine.formulas.normals import ROWS_PER_BLOCK

Draw = Callable[[int, int, int, int], np.ndarray]  # first row, first column, rows, columns -> standard normals
_PANEL = 128  # rows that are drawn at a time, so that they stay in cache; it takes about as long as a product with 16 points


class Drawn:
    """Some rows of a matrix of normals, in the order in which their numbers were added; columns are given by where they begin."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self._panels: list[tuple[int, int]] = []  # first row and rows, in whole blocks of the generator, which has others as well
        self._places = np.empty(0, np.int64)  # of the rows that were added, among those of the panels
        self._drawn = 0

    def add(self, numbers: np.ndarray) -> None:
        """Add rows behind the others; their numbers ascend, and are of blocks that have not been added."""
        blocks, within = np.unique(numbers // ROWS_PER_BLOCK, return_inverse=True)
        places = self._drawn + within * ROWS_PER_BLOCK + numbers % ROWS_PER_BLOCK
        self._places = np.concatenate([self._places, places])
        self._drawn += len(blocks) * ROWS_PER_BLOCK
        for first in (blocks * ROWS_PER_BLOCK).tolist():
            begin, rows = self._panels[-1] if self._panels else (0, 0)
            if begin + rows == first and 0 < rows < _PANEL:
                self._panels[-1] = begin, rows + ROWS_PER_BLOCK
            else:
                self._panels.append((first, ROWS_PER_BLOCK))

    def _drawn_panels(self, begin: int, end: int) -> Iterator[tuple[slice, np.ndarray]]:
        """Columns ``begin`` to ``end``, a panel of rows after another, and where its rows are among all."""
        at = 0
        for first, rows in self._panels:
            yield slice(at, at + rows), self.draw(first, begin, rows, end - begin)
            at += rows

    def weighted(self, factors: np.ndarray) -> Callable[[int, int], np.ndarray]:
        """What gives some columns of ``factors`` (n, rows) times the rows."""
        spread = np.zeros((len(factors), self._drawn), factors.dtype)
        spread[:, self._places] = factors

        def columns(begin: int, end: int) -> np.ndarray:
            total = np.zeros((len(factors), end - begin), factors.dtype)
            for rows, panel in self._drawn_panels(begin, end):
                total += spread[:, rows] @ panel
            return total

        return columns

    def products(self, vectors: np.ndarray, begin: int, end: int) -> np.ndarray:
        """Products (n, rows) of some columns of vectors (n, columns) with those of the rows."""
        total = np.empty((len(vectors), self._drawn), vectors.dtype)
        for rows, panel in self._drawn_panels(begin, end):
            np.matmul(vectors, panel.T, out=total[:, rows])
        return total[:, self._places]

    def rows(self, begin: int, end: int) -> np.ndarray:
        """Some columns of all rows."""
        panels = [panel for _, panel in self._drawn_panels(begin, end)]
        return np.concatenate(panels)[self._places]
