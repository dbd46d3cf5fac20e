"""Which way a product of matrices on a GPU goes: large ones to cuBLAS, where CuPy is installed, others by tiles.

By tiles all networks of a batch go in one launch. Where they have too few tiles to fill a GPU, pieces of sums are made by blocks
of their own, and added afterwards in the same order, so that no bit depends on that.

cuBLAS has one network a call: what it chooses by, shape and alignment, is the same for every network, and so are its sums
whatever the batch is.
"""

from contextlib import suppress
from typing import Any

import numpy as np

from ntksim.engine.cpu.product import PIECE
from ntksim.engine.cuda import product as products
from ntksim.engine.cuda.launch import GRID_LIMIT, OutOfMemory, allocate, memory_errors, over

try:
    from cupy.cuda import Stream, cublas, device  # CuPy can be installed without the library
except ImportError:
    cublas = None

# Multiplications of a product from which on one network fills a GPU for longer than a call takes: it goes to cuBLAS.
_LARGE = 1 << 28
_ENOUGH = 512  # tiles, of 64 threads, that fill a large GPU
_NO_TRANSPOSE, _TRANSPOSE = 0, 1
_FACTORS = {np.dtype(kind): np.array([0, 1], kind) for kind in (np.float32, np.float64)}  # what cuBLAS reads by address


class Scratch:
    """Room for pieces of sums, made when it is needed."""

    def __init__(self) -> None:
        self._array: Any = None

    def take(self, networks: int, size: int, kind: Any) -> Any:
        """An array (networks, at least ``size``), of what is there if it is large enough."""
        if self._array is None or self._array.shape[0] < networks or self._array.shape[1] < size:
            self._array = None  # freed before more is asked for
            self._array = allocate((networks, size), kind)
        return self._array


def tiles(rows: int, cols: int, units: int) -> tuple[tuple[int, int, int], int]:
    """The launch of :func:`cuda.product.multiply` for ``units`` networks times parts."""
    return (-(-rows // products.TILE) * -(-cols // products.TILE), 1, units), products.TILE_THREADS


def pieces(shape: tuple[int, int, int], networks: int) -> int:
    """Into how many sums a product (rows, columns, terms) is split: 1 where there are tiles enough without."""
    rows, cols, terms = shape
    here, count = tiles(rows, cols, 1)[0][0], -(-terms // PIECE)
    return 1 if here * networks >= _ENOUGH or networks * count > GRID_LIMIT else count


def multiply(b, b_place, v, v_place, c, c_place, shape, first, networks=1, scratch=None):
    """c[a, l] <- sum_k b[k, a] v[k, l], or c <- c + that unless ``first``, of the first ``networks`` rows of arrays.

    Places are (start, stride of terms, of rows or columns), ``c_place`` is (start, stride of rows) and ``shape`` (rows, columns,
    terms). ``scratch`` lets products be split whose rows stand side by side.
    """
    rows, cols, terms = shape
    if cublas is not None and rows * cols * terms >= _LARGE:
        _library_products(b, b_place, v, v_place, c, c_place, shape, first, networks)
        return
    size, count, room = rows * cols, pieces(shape, networks), None
    if scratch is not None and c_place[1] == cols and count > 1:
        with suppress(OutOfMemory), memory_errors():  # whole sums need no room, and have the same bits
            room = scratch.take(networks, count * size, c.dtype)
    if room is None:
        products.multiply[tiles(rows, cols, networks)](
            b, *b_place, v, *v_place, c, c_place[0], 0, c_place[1], rows, cols, terms, terms + -terms % PIECE, first
        )
        return
    products.multiply[tiles(rows, cols, networks * count)](
        b, *b_place, v, *v_place, room, 0, size, cols, rows, cols, terms, PIECE, True
    )
    products.add_pieces[over(size, networks)](room, count, size, c, c_place[0], first)


def _address(array: Any) -> int:
    return array.__cuda_array_interface__["data"][0]


def _library_products(b, b_place, v, v_place, c, c_place, shape, first, networks) -> None:
    """The same by cuBLAS, which stores columns: c' = v' b, c' (columns, rows)."""
    rows, cols, terms = shape
    zero, one = (_FACTORS[c.dtype][i:].ctypes.data for i in range(2))
    gemm = cublas.dgemm if c.dtype.itemsize == 8 else cublas.sgemm
    v_flip, v_gap = _operand(v_place, cols, terms)
    b_flip, b_gap = _operand(b_place, rows, terms)
    b_flip = _TRANSPOSE if b_flip == _NO_TRANSPOSE else _NO_TRANSPOSE  # of b, terms come first
    # Addresses are counted by hand: a view of an array costs more than the call.
    arrays = (v, v_place), (b, b_place), (c, c_place)
    starts = [_address(array) + place[0] * c.dtype.itemsize for array, place in arrays]
    strides = [array.shape[1] * c.dtype.itemsize for array, _ in arrays]
    with Stream.null:  # Numba's, whatever the caller's is in CuPy
        handle = device.get_cublas_handle()
        for net in range(networks):
            v_at, b_at, c_at = (start + net * stride for start, stride in zip(starts, strides, strict=True))
            gemm(
                handle, v_flip, b_flip, cols, rows, terms, one, v_at, v_gap, b_at, b_gap, zero if first else one, c_at, c_place[1]
            )  # fmt: skip


def _operand(place, others, terms) -> tuple[int, int]:
    """How a matrix (others, terms) is to be read, and the distance of its columns as they stand in memory."""
    _, term, other = place
    # Of a single row or column both strides can be 1: then columns as they stand are as long as that which has more entries.
    if other == 1 and (term != 1 or terms == 1):
        return _NO_TRANSPOSE, max(term, others)
    return _TRANSPOSE, max(other, terms)
