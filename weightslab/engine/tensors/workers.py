"""Threads that read, hash and copy bytes. Free of torch."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["for_each", "num_workers"]

T = TypeVar("T")
_MAX_WORKERS: Final = 8  # a few cores fill the memory bus; more threads only wait for it


@cache
def num_workers() -> int:
    """Return how many threads to use: one for each core that this process may use, at most 8."""
    usable = getattr(os, "sched_getaffinity", None)  # absent outside Linux
    return min(_MAX_WORKERS, len(usable(0)) if usable else os.cpu_count() or 1)


def for_each(function: Callable[[T], object], items: Iterable[T]) -> None:
    """Call `function` for each item, in this thread and in as many others as there are cores.

    Give the longest work first, so that the last one to end is a short one. A thread takes the next
    item when it is done with one: a future for each of many small items costs more than the work.

    Raises: what `function` raises; the items that were not begun by then may be left out.
    """
    left = list(items)
    left.reverse()  # taken from the end

    def work() -> None:
        while True:
            try:
                item = left.pop()
            except IndexError:  # another thread took the last one
                return
            function(item)

    helpers = min(num_workers(), len(left)) - 1
    if helpers < 1:
        work()
        return
    with ThreadPoolExecutor(helpers, thread_name_prefix="weightslab-bytes") as pool:
        running = [pool.submit(work) for _ in range(helpers)]
        try:
            work()
            for future in running:
                future.result()
        finally:
            left.clear()
