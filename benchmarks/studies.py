"""What a study costs beside what was predicted, from the times that its jobs left in results/benchmarks."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from table import Row, plain

from ntksim.study.plan import calibration, jobs
from ntksim.study.run.record import recorded_study


def prediction(results: Path) -> Iterator[Row]:
    """How many jobs took within twice what `ntksim plan` predicts with this machine's rates, and by how much they are off.

    A job that compiled something took longer than it will again: run the study twice to see it without.
    """
    if not list(results.glob("benchmarks/**/*.jsonl")):
        yield Row("prediction", f"no study in {results}/", remarks="run `make study` first")
        return
    predicted = jobs.predicted_seconds(recorded_study(results), calibration.measured())
    files = {name: results / "benchmarks" / name for name in predicted if (results / "benchmarks" / name).is_file()}
    spent = {name: json.loads(file.read_text().splitlines()[-1]) for name, file in files.items()}
    for kind, words in {"s": "time", "cpu_time": "processor time, which other work on the machine adds little to"}.items():
        ratios = {name: spent[name][kind] / predicted[name] for name in spent}
        off = {name: max(ratio, 1 / ratio) for name, ratio in ratios.items()}
        worst = max(off, key=lambda name: off[name])
        yield Row(
            "prediction", f"share of {len(ratios)} jobs within 2x of their prediction, by {words}",
            float(np.mean([value <= 2 for value in off.values()])), target="0.90", show=plain,
            remarks=f"measured / predicted: median {np.median(list(ratios.values())):.2f}; furthest off {worst}: "
            f"{ratios[worst]:.2f}",
        )  # fmt: skip
