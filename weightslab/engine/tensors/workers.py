"""How many threads read, hash and copy bytes. Free of torch."""

from __future__ import annotations

import os
from functools import cache
from typing import Final

__all__ = ["num_workers"]

_MAX_WORKERS: Final = 8  # a few cores fill the memory bus; more threads only wait for it


@cache
def num_workers() -> int:
    """Return how many threads to use: one for each core that this process may use, at most 8."""
    usable = getattr(os, "sched_getaffinity", None)  # absent outside Linux
    return min(_MAX_WORKERS, len(usable(0)) if usable else os.cpu_count() or 1)
