"""Many seeds on GPUs: as many networks at a time as there is memory for, and results that come back once all are there.

Small networks are a block each, and one launch evaluates a batch; others go layer by layer (`cuda.passes`). Nothing depends on
the size of batches, nor on the number of GPUs: each has some of the seeds, and a thread of Python's that launches for it.
"""

from typing import Any

import numpy as np
from numba import cuda

from ntksim.engine.cpu.product import PIECE
from ntksim.engine.cuda import small
from ntksim.engine.cuda.launch import GRID_LIMIT, THREADS, OutOfMemory, allocate, memory_errors, on_every_gpu
from ntksim.engine.cuda.passes import (
    Batch,
    Wanted,
    draw_vectors,
    gram_parts,
    kernel_rows,
    panel_size,
    places,
    readout_parts,
)  # fmt: skip
from ntksim.engine.devices import GpuMemoryError
from ntksim.engine.formulas.normals import ROWS_PER_BLOCK
from ntksim.engine.layout import Net, Pairs, parameter_offsets
from ntksim.engine.threads import advance, check

# Widths and points up to which a network of one output is evaluated by one block.
SMALL_WIDTH, SMALL_POINTS = PIECE, 32
_SHARE = 0.8  # of the memory, to use
_RESULTS = 0.25  # of it, for results that wait for their copy to the host


def evaluate_seeds(
    net: Net, columns: np.ndarray, pairs: Pairs, seeds: np.ndarray, outputs: np.ndarray, kernels_out: np.ndarray
) -> None:
    """Fill outputs (S, n, k) and kernels (S, blocks, rows, columns), unless their second axis is empty.

    Raises
    ------
    GpuMemoryError where not even one network fits.
    """
    kernel = kernels_out.shape[1] > 0
    results = (kernels_out if kernel else outputs).reshape(seeds.size, -1)
    wanted = Wanted(kernel, kernel, joint=kernels_out.shape[1] < outputs.shape[2])

    def work(first: int, step: int) -> None:
        own, mine = results[first::step], seeds[first::step]
        most = _RESULTS * cuda.current_context().get_memory_info()[0] / own[0].nbytes
        for begin in range(0, mine.size, count := int(max(1, min(mine.size, most)))):
            some = mine[begin : begin + count]
            check()
            own[begin : begin + count] = _evaluate(net, columns, pairs, some, own.shape[1], wanted).copy_to_host()
            advance(some.size)

    on_every_gpu(seeds.size, work)


def _evaluate(net: Net, columns: np.ndarray, pairs: Pairs, seeds: np.ndarray, size: int, wanted: Wanted) -> Any:
    """Outputs or kernels (S, size) on the device, of as many networks at a time as there is memory for."""
    batch, kept = _fitting(net, columns, pairs, seeds.size, size, wanted)
    small = is_small(net, pairs)
    while True:
        try:
            with memory_errors():
                if small:
                    return _evaluate_small(net, columns, pairs, seeds, size, wanted.kernel, batch)
                return _evaluate_layers(net, columns, pairs, seeds, size, wanted, batch, kept)
        except OutOfMemory as error:
            said = str(error)  # and leave the handler: it holds on to what was allocated
        if batch == 1 and (small or not kept):
            raise GpuMemoryError(
                f"a network of widths {net.widths[1:-1].tolist()} on {pairs.points} points, and {seeds.size} results, do not fit "
                f"in the GPU's memory: use fewer points or seeds a call, float32, or device='cpu' ({said})"
            )
        batch, kept = (-(-batch // 2), kept) if batch > 1 else (1, False)


def _fitting(net: Net, columns: np.ndarray, pairs: Pairs, seeds: int, size: int, wanted: Wanted) -> tuple[int, bool]:
    """An estimate of how many networks fit in the free memory, and whether their parameters are kept there.

    The latter, on which cuBLAS's sums depend, depends on the GPU alone: not on who else uses it, nor on the number of seeds.
    """
    item, rows, outputs = columns.itemsize, int(net.widths[:-1].sum()), int(net.widths[-1])
    own = outputs * pairs.rows * kernel_rows(pairs, outputs, wanted.joint)[1] if wanted.kernel else 0
    parts = gram_parts(net)
    each = item * pairs.points * rows * (2 + outputs * wanted.backward) + item * parts * own
    each += 8 * (readout_parts(net) * outputs * pairs.points + (net.widths.size + 3) * own)
    free, total = (_SHARE * memory for memory in cuda.current_context().get_memory_info())
    free -= seeds * size * item
    parameters, small = item * int(parameter_offsets(net)[-1]), is_small(net, pairs)
    kept = small or each + parameters <= total
    each += 0 if small else parameters if kept else item * panel_size(net, columns.dtype)
    return int(max(1, min(seeds, GRID_LIMIT // parts, free / each))), kept


def is_small(net: Net, pairs: Pairs) -> bool:
    """Whether a block evaluates a network."""
    widest = int(net.widths.max())
    return net.widths[-1] == 1 and widest <= min(SMALL_WIDTH, small.PANEL // ROWS_PER_BLOCK - 1) and pairs.points <= SMALL_POINTS


def _evaluate_small(net: Net, columns: np.ndarray, pairs: Pairs, seeds: np.ndarray, size: int, kernel: bool, batch: int) -> Any:
    at, vector_at = places(net, pairs.points)
    kind, numbers = columns.dtype, at[-1]
    out, none = allocate((seeds.size, size), kind), allocate((1, 1), kind)
    outputs, kernels_out, rows = (none, out, pairs.rows) if kernel else (out, none, 0)
    h, slope = allocate((batch, numbers), kind), allocate((batch, numbers), kind)
    delta = allocate((batch, numbers if kernel else 1), kind)
    vectors, shares = allocate((batch, vector_at[-1]), kind), allocate((batch, (net.widths.size - 1) * size), np.float64)
    shape = [
        cuda.to_device(np.ascontiguousarray(a)) for a in (net.widths, net.scales, columns, np.array(at), np.array(vector_at))
    ]
    widths, scales, points, value_places, vector_places = shape
    drawn = cuda.to_device(np.ascontiguousarray(seeds))
    for begin in range(0, seeds.size, batch):
        count = min(batch, seeds.size - begin)
        some = drawn[begin : begin + count]
        draw_vectors(net, some, vectors, vector_at, count)
        small.evaluate_small(net.code)[count, THREADS](
            some, np.uint32(net.stream), net.law, net.parameter, widths, scales, points, pairs.first, rows, pairs.cols,
            h, slope, delta, value_places, vectors, vector_places, shares, outputs, kernels_out, begin,
        )  # fmt: skip
    return out


def _evaluate_layers(
    net: Net, columns: np.ndarray, pairs: Pairs, seeds: np.ndarray, size: int, wanted: Wanted, batch: int, kept: bool
) -> Any:
    out = allocate((seeds.size, size), columns.dtype)
    room = Batch(net, columns, pairs, batch, wanted, kept)
    room.put_points(batch)
    drawn = cuda.to_device(np.ascontiguousarray(seeds))
    for begin in range(0, seeds.size, batch):
        count = min(batch, seeds.size - begin)
        some = drawn[begin : begin + count]
        room.draw(some, count)
        room.evaluate(count)
        room.copy_results(out, begin, count)
    return out
