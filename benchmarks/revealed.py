"""Training in law against that by weights: flow of 16 digits, tanh, three layers, at tolerance 1e-4 to t = 20 / lambda_min."""

from collections.abc import Iterator

import numpy as np
from table import Row, memory, plain
from timing import fresh

AGAINST_WEIGHTS = {4096: ("4x", ""), 16384: ("20x", "0.1")}  # goals: times as fast, and a share of the memory by weights
ALONE = {131072: ("30 s", "4,000 MB"), 1 << 20: ("240 s", "12,000 MB")}  # goals for one seed
QUICK = (4096, 131072)


def rows(long: bool) -> Iterator[Row]:
    """One seed in a new process each time; what takes gigabytes or minutes, only if ``long``."""
    spent = {}
    for width in (*AGAINST_WEIGHTS, *ALONE):
        if not long and width not in QUICK:
            continue
        law = fresh("trained", width, "conditional")
        spent[width] = law["cpu"]
        remarks = f"rank {law['rank']:.0f}, {law['passes']:.0f} passes, {law['cpu']:.3g} s of processor time"
        what = f"float64, 3 x {width:,}"
        if width in ALONE:
            faster, less = ALONE[width]
            yield Row("revealed", what, law["seconds"], target=faster, remarks=remarks)
            yield Row("revealed", "memory of its process", law["memory"], target=less, show=memory)
            continue
        faster, less = AGAINST_WEIGHTS[width]
        weights = fresh("trained", width, "weights")
        remarks += f"; by weights {weights['passes']:.0f} passes, {weights['cpu']:.3g} s"
        yield Row("revealed", what, law["seconds"], "by weights", weights["seconds"], target=faster, remarks=remarks)
        share = law["memory"] / weights["memory"]
        remarks = f"{memory(law['memory'])} of {memory(weights['memory'])}, the process included"
        yield Row("revealed", "memory as a share of that by weights", share, target=less, show=plain, remarks=remarks)
    widths, seconds = np.array(list(spent.items())).T
    exponent = float(np.polyfit(np.log(widths), np.log(seconds), 1)[0])
    remarks = "processor time at " + ", ".join(f"{width:,}" for width in spent)
    yield Row("revealed", "exponent of the width in the time of one seed", exponent, target="1.1", show=plain, remarks=remarks)
