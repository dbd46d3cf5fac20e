"""Rows of the benchmark, and the table that is printed."""

import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HEADER = ("what", "ntksim", "compared with", "ratio", "share of peak", "target", "remarks")


def duration(seconds: float) -> str:
    """A duration with three digits, in s, ms, us or ns."""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 0.9995:
            return f"{seconds * factor:.3g} {unit}" if seconds * factor < 1000 else f"{seconds * factor:.0f} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def per_second(seconds: float) -> str:
    """A rate, given the seconds that one takes."""
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

    ``ours`` and ``theirs`` are values, in seconds unless ``show`` formats something else. ``against`` names the peer, or says why
    there is none. ``flops`` is the number of floating-point operations of ours, in ``dtype``. ``target`` is the goal.
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
        """How many times as fast as the peer ours is."""
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
    """A table in aligned Markdown, with a heading line for each section."""
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
    except PackageNotFoundError:  # on the path, but not installed
        return str(import_module(package).__version__)


def machine(peaks: dict[str, float], product: str = "NumPy's product of two 2048 x 2048 matrices, in this process") -> str:
    """Lines on the machine: processor, versions and peak."""
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
