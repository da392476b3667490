"""Large files past the page cache: aligned blocks, written while the next one is filled.

Writing through the page cache costs a copy into fresh kernel pages, and on a virtual machine that
gives free memory back these pages cost more than the disk: 1.5 GB take 2.2 to 3.6 s buffered and
0.5 s this way, 300 MB 0.14 to 0.85 s and 0.12 s (reference machine, fsync included).
Preallocating the file first was measured too: no faster there (113 against 95 ms per 300 MB).
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import sys
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Self

    Bytes = np.ndarray[Any, np.dtype[np.uint8]]

__all__ = ["CHUNK_BYTES", "write_past_cache"]

BLOCK_BYTES: Final = (
    4096  # the largest logical block of common disks; memory, offset and length fit it
)
HUGE_PAGE_BYTES: Final = 2 << 20  # of x86-64 and most arm64; elsewhere only an alignment
CHUNK_BYTES: Final = 4 << 20  # 4 MiB: 1 MiB takes a third longer, 16 MiB is no faster
_ALIGNED_BYTES: Final = 64 << 20  # 64 MiB: the disk never waits for us between two of them
# Filled again and again: buffers with fresh pages cost half of the time of a save of 300 MB.
_spare: list[tuple[Bytes, Bytes]] = []


def write_past_cache(descriptor: int, views: Sequence[memoryview]) -> int:
    """Write the leading whole blocks of `views` at the start of an open, empty file.

    A single view that starts at a page is written from where it is. Otherwise two buffers of 4 MiB
    are all the memory it takes; they are kept for the next call. What it did not write (the last part of a
    block; everything from the first write that the file system refuses as direct) is left to the
    caller, and the file position stands there.

    Returns: the number of bytes written; 0 where the system has no direct writes.
    Raises: OSError of the system, for any failure but a refusal of direct writes.
    """
    size_bytes = sum(map(len, views)) // BLOCK_BYTES * BLOCK_BYTES
    if not size_bytes or not _switch(descriptor, on=True):
        return 0
    try:
        if len(views) == 1 and _address(views[0]) % BLOCK_BYTES == 0:
            written = _write_aligned(descriptor, views[0][:size_bytes])
        else:
            written = _write_blocks(descriptor, _Source(views), size_bytes)
    finally:
        _switch(descriptor, on=False)
    return os.lseek(descriptor, written, os.SEEK_SET)


def _switch(descriptor: int, *, on: bool) -> bool:
    """Turn direct writes of an open file on or off; False if the file system does not have them."""
    if sys.platform != "linux":
        return False
    import fcntl

    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT if on else flags & ~os.O_DIRECT)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return True


def _address(view: memoryview) -> int:
    address: int = np.frombuffer(view, np.uint8).__array_interface__["data"][0]
    return address


def _write_aligned(descriptor: int, view: memoryview) -> int:
    """Write `view` without a copy; return how far the writes came."""
    for start in range(0, len(view), _ALIGNED_BYTES):
        piece = view[start : start + _ALIGNED_BYTES]
        written = _write_at(descriptor, piece, start)
        if written < len(piece):
            return start + written
    return len(view)


def _write_blocks(descriptor: int, source: _Source, size_bytes: int) -> int:
    """Fill one buffer while the other is written; return how far the writes came."""
    with _two_buffers() as buffers, _Writer(descriptor) as writer:
        for number, start in enumerate(range(0, size_bytes, CHUNK_BYTES)):
            if number >= len(buffers) and not writer.wait_for_one():
                break
            block = buffers[number % len(buffers)][: min(CHUNK_BYTES, size_bytes - start)]
            source.fill(block)
            writer.write(memoryview(block.data), start)
    return writer.written


class _Writer:
    """A thread that writes blocks one after the other; after a failure it writes no more.

    Where no thread can be started any more (at the end of the interpreter) it writes at once.

    Attributes:
        written: how far the file is written without a gap.
    """

    def __init__(self, descriptor: int) -> None:
        self.written = 0
        self._descriptor = descriptor
        self._error: BaseException | None = None
        self._todo: SimpleQueue[tuple[memoryview, int] | None] = SimpleQueue()
        self._done: SimpleQueue[bool] = SimpleQueue()
        self._thread: Thread | None = Thread(target=self._work, name="weightslab-write")

    def __enter__(self) -> Self:
        assert self._thread is not None
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._thread is not None:
            self._todo.put(None)
            self._thread.join()
        if self._error is not None and kind is None:
            raise self._error

    def write(self, block: memoryview, offset: int) -> None:
        """Have `block` written at `offset`; it must not change until `wait_for_one` says so."""
        if self._thread is None:
            self._write(block, offset)
        else:
            self._todo.put((block, offset))

    def wait_for_one(self) -> bool:
        """Wait until the oldest block is written; False if it, or one before it, was not."""
        return self._done.get()

    def _work(self) -> None:
        while (job := self._todo.get()) is not None:
            self._write(*job)

    def _write(self, block: memoryview, offset: int) -> None:
        if self.written == offset and self._error is None:
            try:
                self.written += _write_at(self._descriptor, block, offset)
            except BaseException as error:  # noqa: BLE001 - of a thread; raised again at the end
                self._error = error
        self._done.put(self.written == offset + len(block))


@contextlib.contextmanager
def _two_buffers() -> Iterator[tuple[Bytes, Bytes]]:
    """Lend two buffers that start at a page; threads that write at once have their own."""
    try:
        buffers = _spare.pop()
    except IndexError:
        buffers = (_page_aligned(), _page_aligned())
    yield buffers
    if not _spare:
        _spare.append(buffers)


def _page_aligned() -> Bytes:
    # private: a forked child that writes must not write into the memory of its parent
    pages = mmap.mmap(
        -1, CHUNK_BYTES + HUGE_PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    )
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without huge pages: slower, not wrong
            pages.madvise(mmap.MADV_HUGEPAGE)
    start = -_address(memoryview(pages)) % HUGE_PAGE_BYTES
    return np.frombuffer(pages, np.uint8)[start : start + CHUNK_BYTES]


def _write_at(descriptor: int, view: memoryview, offset: int) -> int:
    """Write `view` at `offset`; return how much of it the file system took as direct writes."""
    done = 0
    try:
        while done < len(view):
            done += os.pwrite(descriptor, view[done:], offset + done)
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: it wants another alignment than 4 KiB
            raise
    return done


class _Source:
    """The bytes of many views as one stream."""

    def __init__(self, views: Sequence[memoryview]) -> None:
        self._views: Iterator[memoryview] = iter(views)
        self._rest: Bytes = np.empty(0, np.uint8)

    def fill(self, block: Bytes) -> None:
        """Copy the next bytes into `block`, all of it; numpy lets other threads run meanwhile."""
        filled = 0
        while filled < len(block):
            while not len(self._rest):
                self._rest = np.frombuffer(next(self._views), np.uint8)
            taken = min(len(self._rest), len(block) - filled)
            block[filled : filled + taken] = self._rest[:taken]
            self._rest = self._rest[taken:]
            filled += taken
