"""Rows shared among threads: numpy lets go of the interpreter while it works on a block."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["in_parts"]

T = TypeVar("T")
_FEW: Final = (
    1 << 18
)  # rows: below, a few milliseconds of work, of which threads would spare little
_MAX_THREADS: Final = 4  # more wait for memory and for each other
# Rows that one numpy call works on. One thread: 128 KiB of words, which stay in the second cache
# level with their scratch. Several: a call has to last longer than it takes to hand the interpreter
# over; ten million texts take 0.40 s with one thread, and with two 0.37 s at 1 << 14, 0.23 s at 1 << 16.
_BLOCK_ALONE: Final = 1 << 14
_BLOCK_SHARED: Final = 1 << 16


def in_parts(count: int, work: Callable[[int, int, int], T]) -> list[T]:
    """Call `work(low, high, block)` for parts of `count` rows, in a thread for each core.

    Args:
        count: rows, from 0.
        work: does rows `low` to `high`, best `block` at a time; it must not touch other rows.
    Returns: what the calls return, in the order of the rows; one call for few rows.
    Raises: what `work` raises.
    """
    threads = _num_threads() if count >= _FEW else 1
    if threads == 1:
        return [work(0, count, _BLOCK_ALONE)]
    from concurrent.futures import ThreadPoolExecutor

    bounds = [count * number // threads for number in range(threads + 1)]
    with ThreadPoolExecutor(threads - 1, thread_name_prefix="weightslab-rows") as pool:
        others = [
            pool.submit(work, bounds[n], bounds[n + 1], _BLOCK_SHARED) for n in range(1, threads)
        ]
        first = work(0, bounds[1], _BLOCK_SHARED)
        return [first, *(other.result() for other in others)]


@cache
def _num_threads() -> int:
    usable = getattr(os, "sched_getaffinity", None)  # absent outside Linux
    return min(_MAX_THREADS, len(usable(0)) if usable else os.cpu_count() or 1)
