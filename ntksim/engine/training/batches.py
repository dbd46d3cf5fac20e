"""Minibatches as a pure function of (seed, step): one shuffle of the points per epoch, by the counter-based generator.

    counter = (point, epoch, BATCH_CODE, high word of the seed),  key = (low word of the seed, 0)

The first two words of a point's block are its place in the epoch: the points in that order are a permutation, each as likely
as any other (but for ties, 2^-65 n^2), and the epoch's batches are pieces of it. Widths do not enter, so that networks of all
widths see the same batches.
"""

import numpy as np

from ntksim.engine.compiled.jit import jit
from ntksim.engine.formulas.normals import philox, seed_words

# No layer has it: layers count from 1, and `normals.weight_code` from 2.
BATCH_CODE = 0

_u32, _u64 = np.uint32, np.uint64


@jit
def _draw_places(seed, first, places):
    """64 random bits per epoch from ``first`` on and point, (epochs, points)."""
    low, high = seed_words(seed)
    for e in range(places.shape[0]):
        for i in range(places.shape[1]):
            w0, w1, _, _ = philox(_u32(i), _u32(first + e), _u32(BATCH_CODE), high, low, _u32(0))
            places[e, i] = (_u64(w0) << _u64(32)) | _u64(w1)


def batches(seed: np.uint64, first: int, count: int, points: int, size: int) -> np.ndarray:
    """The points of batches ``first`` .. ``first + count`` of a seed, (count, size) indices below ``points``.

    An epoch has points // size batches without a point in common; what is left over sits that epoch out.
    """
    per_epoch = points // size
    epoch, skip = divmod(first, per_epoch)
    places = np.empty((-(-(skip + count) // per_epoch), points), np.uint64)
    _draw_places(seed, epoch, places)
    order = np.argsort(places, axis=1, kind="stable")[:, : per_epoch * size].reshape(-1, size)
    return np.ascontiguousarray(order[skip : skip + count])
