"""How much memory this machine, or the container that it is, has for jobs."""

import os
from contextlib import suppress
from pathlib import Path

_CONTAINER = Path("/sys/fs/cgroup/memory.max")  # bytes, or "max"


def machine_megabytes() -> int:
    """Memory in MB: that of the machine, or less if the container allows less."""
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):
        size = min(size, int(_CONTAINER.read_text()))
    return size // 10**6
