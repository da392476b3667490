"""The background: jobs done one after the other in a thread, and their errors kept until seen."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Final

from weightslab.engine.errors import AsyncSaveError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BackgroundWriter"]

logger = logging.getLogger(__name__)
_LINGER_SECONDS: Final = 30.0  # an idle thread ends after this
_open: weakref.WeakSet[BackgroundWriter] = weakref.WeakSet()


class BackgroundWriter:
    """Runs jobs in the order given, at most `depth` of them accepted and not finished. Thread-safe.

    The interpreter waits for all jobs before it ends: what was accepted is done, unless the process
    is killed. An error is logged at once and raised, as `AsyncSaveError` with the error as its cause,
    by the next `reserve` or `wait`.

    Args:
        depth: jobs under way at once, >= 1.
    """

    def __init__(self, *, depth: int = 1) -> None:
        self._depth = depth
        self._jobs: deque[tuple[str, Callable[[], None]]] = deque()
        self._reserved = 0
        self._errors: deque[tuple[str, BaseException]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        _open.add(self)

    def reserve(self) -> None:
        """Wait for a free place and take it; `start` or `cancel` gives it back.

        Raises: AsyncSaveError for a job that failed; no place is taken then.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._jobs) + self._reserved < self._depth)
            self._raise_error()
            self._reserved += 1

    def cancel(self) -> None:
        """Give a reserved place back unused."""
        with self._changed:
            self._reserved -= 1
            self._changed.notify_all()

    def start(self, what: str, job: Callable[[], None]) -> None:
        """Have `job` done in a reserved place.

        Args:
            what: what it does, for the message of an error.
            job: called once, in the thread.
        """
        with self._changed:
            self._reserved -= 1
            self._jobs.append((what, job))
            self._changed.notify_all()
            if self._thread is not None:
                return
            # A daemon, as an idle thread must not keep the interpreter from ending; `_finish` waits
            # for the jobs. It lingers because starting one anew interrupts the caller for longer.
            self._thread = threading.Thread(target=self._work, name="weightslab-save", daemon=True)
            with contextlib.suppress(
                RuntimeError
            ):  # the interpreter ends, and starts no more threads
                self._thread.start()
                return
        self._work(linger_seconds=0)

    def wait(self) -> None:
        """Wait until every job is done.

        Raises: AsyncSaveError for the oldest job that failed and was not told yet.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._jobs)
            self._raise_error()

    def check(self) -> None:
        """Raise for the oldest job that failed and was not told yet; does not wait.

        Raises: AsyncSaveError.
        """
        if self._errors:
            with self._changed:
                self._raise_error()

    def finish(self) -> None:
        """Wait until every job is done, and leave their errors for others."""
        with self._changed:
            self._changed.wait_for(lambda: not self._jobs)

    def _work(self, linger_seconds: float = _LINGER_SECONDS) -> None:
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: self._jobs, timeout=linger_seconds):
                    self._thread = None
                    return
                what, job = self._jobs[0]
            try:
                job()
            except BaseException as error:  # the top of a thread; kept and raised later
                logger.exception("%s failed in the background", what)
                failed: tuple[str, BaseException] | None = (what, error)
            else:
                failed = None
            del job  # a snapshot is not kept alive until the next one
            with self._changed:
                if failed is not None:
                    self._errors.append(failed)
                self._jobs.popleft()
                self._changed.notify_all()

    def _raise_error(self) -> None:
        if self._errors:
            what, error = self._errors.popleft()
            more = f" (and {len(self._errors)} more failed)" if self._errors else ""
            raise AsyncSaveError(
                f"{what} failed in the background: {error}{more}",
                hint="earlier checkpoints are untouched; mend the cause and save again",
            ) from error


def _finish() -> None:
    for writer in list(_open):
        writer.finish()


atexit.register(_finish)
if hasattr(os, "register_at_fork"):
    # a forked child has the jobs of its parent and no thread to do them: they are not its to wait for
    os.register_at_fork(after_in_child=_open.clear)
