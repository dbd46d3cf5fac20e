"""How much memory this machine has for jobs, or the container or job that this process runs in."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_GROUPS, _LIMITS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def physical_megabytes() -> int:
    """Memory of the machine in MB."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 10**6


def machine_megabytes() -> int:
    """Memory in MB: that of the machine, or less if a control group allows less (Linux: of containers, and of Slurm's jobs)."""
    return min([physical_megabytes(), *_allowed_megabytes()])


def _allowed_megabytes() -> Iterator[int]:
    """What each group that this process is in allows, in version 2 (a line 0::PATH, memory.max) and 1 (memory.limit_in_bytes).

    This is by hand because psutil only knows the memory of the machine, not the limit of a group.
    """
    with suppress(OSError):
        for line in _GROUPS.read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds and "memory" not in kinds.split(","):
                continue
            top, name = (_LIMITS / "memory", "memory.limit_in_bytes") if kinds else (_LIMITS, "memory.max")
            own = top / path.lstrip("/")
            for group in (own, *own.parents):
                with suppress(OSError, ValueError):  # "max", or a group that only the machine outside of a container sees
                    yield int((group / name).read_text()) // 10**6
                if group == top:
                    break
