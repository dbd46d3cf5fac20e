"""Rows of the benchmark and the table they make."""

import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HEADER = ("what", "ntksim", "compared with", "ratio", "share of peak", "target", "remarks")


def duration(seconds: float) -> str:
    """Three digits, in the unit that suits."""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 0.9995:
            return f"{seconds * factor:.3g} {unit}" if seconds * factor < 1000 else f"{seconds * factor:.0f} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def per_second(seconds: float) -> str:
    """A rate, from the seconds of one."""
    return f"{1 / seconds:,.0f} / s"


def memory(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"


def plain(value: float) -> str:
    return f"{value:.2f}"


def times(value: float) -> str:
    return f"{value:.3g}x"


@dataclass(frozen=True)
class Row:
    """One measurement.

    ``ours`` and ``theirs`` are seconds unless ``show`` says otherwise; ``against`` names what is compared with, or says why
    nothing is. ``flops`` is what ours computes, in ``dtype``; ``target`` is what was aimed at.
    """

    section: str
    what: str
    ours: float | None = None
    against: str = ""
    theirs: float | None = None
    flops: float | None = None
    dtype: str = ""
    target: str = ""
    remarks: str = ""
    show: Callable[[float], str] = duration

    @property
    def ratio(self) -> float | None:
        """How many times faster ours is."""
        return None if self.ours is None or self.theirs is None else self.theirs / self.ours

    def cells(self, peaks: dict[str, float]) -> tuple[str, ...]:
        peak = peaks.get(self.dtype)
        share = None if self.flops is None or self.ours is None or not peak else self.flops / self.ours / peak
        return (
            self.what,
            "" if self.ours is None else self.show(self.ours),
            self.against if self.theirs is None else f"{self.against} {self.show(self.theirs)}",
            "" if self.ratio is None else times(self.ratio),
            "" if share is None else f"{share:.0%}",
            self.target,
            self.remarks,
        )


def markdown(rows: Iterable[Row], peaks: dict[str, float]) -> str:
    """One aligned table with a line per section."""
    lines: list[tuple[str, ...]] = []
    section = None
    for row in rows:
        if row.section != section:
            section = row.section
            lines.append((f"**{section}**", *[""] * (len(HEADER) - 1)))
        lines.append(row.cells(peaks))
    widths = [max(len(line[i]) for line in [HEADER, *lines]) for i in range(len(HEADER))]
    rule = tuple("-" * width for width in widths)
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in (HEADER, rule, *lines)
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # it lies on the path, uninstalled
        return str(import_module(package).__version__)


def machine(peaks: dict[str, float], product: str = "NumPy's product of two 2048 x 2048 matrices, in this process") -> str:
    """What was measured on, a line each."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    packages = ", ".join(f"{name} {_version(name)}" for name in ("ntksim", "numba", "numpy", "scipy"))
    gemm = ", ".join(f"{rate / 1e9:.0f} GFLOP/s in {dtype}" for dtype, rate in peaks.items() if rate) or "not measured"
    return "\n".join(
        [
            f"- {names[0] if names else platform.machine()}, {cores} cores, {platform.system()}",
            f"- Python {platform.python_version()}, {packages}",
            f"- peak ({product}): {gemm}",
        ]
    )
