"""Measured and predicted times of a study's jobs. The measured times are in results/benchmarks."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from table import Row, plain

from ntksim.study.plan import calibration, jobs
from ntksim.study.run.record import recorded_study


def prediction(results: Path) -> Iterator[Row]:
    """The share of jobs whose time is within a factor of 2 of what `ntksim plan` predicts on this machine.

    A job that has to compile takes longer than in later runs. To leave out compilation, run the study twice.
    """
    if not list(results.glob("benchmarks/**/*.jsonl")):
        yield Row("prediction", f"{results}/ holds no study", remarks="run `make study` first")
        return
    predicted = jobs.predicted_seconds(recorded_study(results), calibration.measured())
    files = {name: results / "benchmarks" / name for name in predicted if (results / "benchmarks" / name).is_file()}
    spent = {name: json.loads(file.read_text().splitlines()[-1]) for name, file in files.items()}
    for kind, words in {"s": "time", "cpu_time": "processor time, which depends little on other work"}.items():
        ratios = {name: spent[name][kind] / predicted[name] for name in spent}
        factors = {name: max(ratio, 1 / ratio) for name, ratio in ratios.items()}
        worst = max(factors, key=lambda name: factors[name])
        yield Row(
            "prediction", f"share of {len(ratios)} jobs within a factor of 2 of their prediction, by {words}",
            float(np.mean([factor <= 2 for factor in factors.values()])), target="0.90", show=plain,
            remarks=f"measured / predicted: median {np.median(list(ratios.values())):.2f}; worst {ratios[worst]:.2f} ({worst})",
        )  # fmt: skip
