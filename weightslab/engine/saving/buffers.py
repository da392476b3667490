"""Host buffers: memory for snapshots, page-aligned and used again.

A copy into memory that the process has touched before runs at the speed of the memory (8 to 12 GB/s
here); into fresh pages it is several times slower. So buffers are kept between saves.
"""

from __future__ import annotations

import mmap
import os
import threading
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["HostBuffers", "copy_all"]

PAGE_BYTES: Final = mmap.PAGESIZE
_PIECE_BYTES: Final = 8 << 20  # per turn of a thread: small enough that all threads end together
_MAX_THREADS: Final = 4  # more do not make memory faster
_THREADS_FROM_BYTES: Final = 16 << 20  # below, starting a thread costs more than it saves


class HostBuffers:
    """A few buffers that are lent and taken back. Thread-safe.

    Args:
        keep: how many returned buffers stay allocated.
    """

    def __init__(self, *, keep: int) -> None:
        self._keep = keep
        self._free: list[mmap.mmap] = []
        self._unpin: dict[int, Callable[[], None]] = {}  # by id of the buffer
        self._lock = threading.Lock()

    def take(
        self, size_bytes: int, *, pin: Callable[[mmap.mmap], Callable[[], None]] | None = None
    ) -> mmap.mmap:
        """Return a writable buffer of at least `size_bytes` that starts at a page.

        Args:
            size_bytes: how much is needed.
            pin: prepares the memory for the copies of a device, once for each buffer, and returns
                what undoes that.
        """
        buffer = self._find(size_bytes)
        if pin is not None and id(buffer) not in self._unpin:
            self._unpin[id(buffer)] = pin(buffer)
        return buffer

    def _find(self, size_bytes: int) -> mmap.mmap:
        with self._lock:
            fitting = [b for b in self._free if len(b) >= size_bytes]
            if fitting:
                buffer = min(fitting, key=len)
                self._free.remove(buffer)
                return buffer
            self._drop()  # too small for what is saved now: memory stays bounded
        size_bytes = max(1, -(-size_bytes // PAGE_BYTES)) * PAGE_BYTES
        if hasattr(mmap, "MAP_ANONYMOUS"):
            # private: a forked child must not write into the snapshot of its parent
            buffer = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        else:
            buffer = mmap.mmap(-1, size_bytes)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            buffer.madvise(mmap.MADV_HUGEPAGE)
        return buffer

    def give(self, buffer: mmap.mmap) -> None:
        """Take a buffer back; the caller uses it no more."""
        with self._lock:
            if len(self._free) < self._keep:
                self._free.append(buffer)
            else:
                self._unpin.pop(id(buffer), _nothing)()

    def clear(self) -> None:
        """Give the memory of all returned buffers back to the system."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        for buffer in self._free:
            self._unpin.pop(id(buffer), _nothing)()
        self._free.clear()


def _nothing() -> None:
    pass


def copy_all(pairs: Sequence[tuple[memoryview, memoryview]]) -> None:
    """Copy each source into its destination, in several threads where that pays.

    Args:
        pairs: (destination, source) of equal lengths.
    """
    if sum(len(target) for target, _ in pairs) < _THREADS_FROM_BYTES:
        for target, source in pairs:
            target[:] = source
        return
    pieces = _Pieces(pairs)
    helpers = min(_MAX_THREADS, os.cpu_count() or 1) - 1
    threads = [threading.Thread(target=pieces.work, name="weightslab-copy") for _ in range(helpers)]
    started = []
    for thread in threads:
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending and starts no more threads
            break
        started.append(thread)
    pieces.work()
    for thread in started:
        thread.join()
    if pieces.error is not None:
        raise pieces.error


class _Pieces:
    """Pieces of a copy that several threads take turns with."""

    def __init__(self, pairs: Sequence[tuple[memoryview, memoryview]]) -> None:
        self.error: BaseException | None = None
        self._pieces = _cut(pairs)
        self._lock = threading.Lock()

    def work(self) -> None:
        """Copy pieces until none is left; numpy lets other threads run meanwhile."""
        try:
            while (piece := self._next()) is not None:
                target, source = piece
                np.copyto(np.frombuffer(target, np.uint8), np.frombuffer(source, np.uint8))
        except BaseException as error:  # noqa: BLE001 - of a thread; raised again by copy_all
            self.error = error

    def _next(self) -> tuple[memoryview, memoryview] | None:
        with self._lock:
            return next(self._pieces, None)


def _cut(
    pairs: Sequence[tuple[memoryview, memoryview]],
) -> Iterator[tuple[memoryview, memoryview]]:
    for target, source in pairs:
        for start in range(0, len(target), _PIECE_BYTES):
            yield target[start : start + _PIECE_BYTES], source[start : start + _PIECE_BYTES]
