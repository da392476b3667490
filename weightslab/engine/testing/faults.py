"""Stores that fail, die or write down what was done: the tools of crash tests.

A sweep over every point at which a save can fail:

    clean = FaultyStore(MemoryStore())
    save(clean)                                       # counts: clean.calls
    for n in range(1, clean.calls + 1):
        store = MemoryStore()
        with pytest.raises(SimulatedCrash):
            save(FaultyStore(store, fail_at=n))
        check(store.reopened())                       # what a new process finds
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weightslab.engine.storage.store import byte_views

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from weightslab.engine.storage.store import Buffer, Hold, HoldMode, KeyStat, Store

__all__ = ["FaultyStore", "Operation", "RecordingStore", "SimulatedCrash"]


class SimulatedCrash(BaseException):
    """The process dies here. A BaseException, as no handler of a dead process runs either."""


class _WatchedHold:
    """A hold that reports its release to the store it came from."""

    def __init__(self, hold: Hold, on_release: Callable[[Hold], None]) -> None:
        self._hold = hold
        self._on_release = on_release
        self._open = True

    @property
    def key(self) -> str:
        return self._hold.key

    def release(self) -> None:
        if self._open:
            self._open = False
            self._on_release(self._hold)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class _Around:
    """The reading half of a store that wraps another."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @property
    def read_only(self) -> bool:
        """Whether the store inside refuses to write."""
        return self.store.read_only

    def describe(self) -> str:
        """Return the description of the store inside."""
        return self.store.describe()

    def map(self, key: str) -> memoryview:
        # docstring inherited
        return self.store.map(key)

    def stat(self, key: str) -> KeyStat | None:
        # docstring inherited
        return self.store.stat(key)

    def list(self, prefix: str) -> list[str]:
        # docstring inherited
        return self.store.list(prefix)


class FaultyStore(_Around):
    """A store whose n-th writing call fails, and that is dead afterwards if the error kills.

    Writing calls are `put`, `link`, `hold`, `delete`, `sync` and the release of a hold. After an
    error that is no `Exception` (such as `SimulatedCrash`) every further writing call raises it
    again, so that `finally` blocks cannot tidy up in place of a process that no longer exists.

    Args:
        store: the store that does the work.
        fail_at: number of the writing call that fails, from 1; None counts only.
        error: makes the error, e.g. `lambda: StorageFullError("full")`.
        after: fail when the call has been carried out, instead of before.
        lasting: fail at every later call, too, as a full disk does.

    Attributes:
        calls: writing calls so far. Thread-safe.
    """

    def __init__(
        self,
        store: Store,
        *,
        fail_at: int | None = None,
        error: Callable[[], BaseException] = SimulatedCrash,
        after: bool = False,
        lasting: bool = False,
    ) -> None:
        super().__init__(store)
        self.calls = 0
        self._fail_at = fail_at
        self._error = error
        self._after = after
        self._lasting = lasting
        self._broken = False
        self._lock = threading.Lock()

    def put(self, key: str, parts: Sequence[Buffer], *, if_absent: bool = False) -> bool:
        # docstring inherited
        with _Point(self):
            return self.store.put(key, parts, if_absent=if_absent)

    def link(self, src: str, dst: str) -> bool:
        # docstring inherited
        with _Point(self):
            return self.store.link(src, dst)

    def hold(self, key: str, *, mode: HoldMode = "create") -> Hold | None:
        # docstring inherited
        if mode != "create":
            return self.store.hold(key, mode=mode)  # writes nothing
        with _Point(self):
            hold = self.store.hold(key)
        return None if hold is None else _WatchedHold(hold, self._release)

    def delete(self, key: str) -> bool:
        # docstring inherited
        with _Point(self):
            return self.store.delete(key)

    def sync(self, prefix: str) -> None:
        # docstring inherited
        with _Point(self):
            self.store.sync(prefix)

    def _release(self, hold: Hold) -> None:
        with _Point(self):
            hold.release()

    def _next_error(self) -> BaseException | None:
        with self._lock:
            self.calls += 1
            if not self._broken and self.calls != self._fail_at:
                return None
            error = self._error()
            self._broken = self._lasting or not isinstance(error, Exception)
            return error


class _Point:
    """One writing call of a `FaultyStore`: raises before or after the block, or not at all."""

    def __init__(self, owner: FaultyStore) -> None:
        self._after = owner._after and not owner._broken
        self._error = owner._next_error()

    def __enter__(self) -> None:
        if self._error is not None and not self._after:
            raise self._error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._error is not None and error is None:
            raise self._error


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One writing call that succeeded.

    Attributes:
        op: `put`, `link`, `hold`, `release`, `delete` or `sync`.
        key: the key; for `sync` the folder; for `link` the new name.
        source: for `link`, the name that existed.
        data: for `put`, the bytes; enough to rebuild what a power loss may leave.
    """

    op: str
    key: str
    source: str = ""
    data: bytes = b""


class RecordingStore(_Around):
    """A store that writes down, in order, each writing call that changed something.

    A `put` with `if_absent`, a `delete` or a `link` that returns False and a `hold` that returns
    None are left out. Calls are carried out one at a time, so that the order is the true one.

    Attributes:
        log: the operations so far. It keeps a copy of all bytes: for tests with small values.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.log: list[Operation] = []
        self._lock = threading.RLock()

    @property
    def steps(self) -> Sequence[tuple[str, str]]:
        """The log as pairs `(op, key)`."""
        return [(operation.op, operation.key) for operation in self.log]

    def put(self, key: str, parts: Sequence[Buffer], *, if_absent: bool = False) -> bool:
        # docstring inherited
        with self._lock:
            done = self.store.put(key, parts, if_absent=if_absent)
            if done:
                self.log.append(Operation(op="put", key=key, data=b"".join(byte_views(parts))))
            return done

    def link(self, src: str, dst: str) -> bool:
        # docstring inherited
        with self._lock:
            done = self.store.link(src, dst)
            if done:
                self.log.append(Operation(op="link", key=dst, source=src))
            return done

    def hold(self, key: str, *, mode: HoldMode = "create") -> Hold | None:
        # docstring inherited
        if mode != "create":
            return self.store.hold(key, mode=mode)  # writes nothing
        with self._lock:
            hold = self.store.hold(key)
            if hold is None:
                return None
            self.log.append(Operation(op="hold", key=key))
            return _WatchedHold(hold, self._release)

    def delete(self, key: str) -> bool:
        # docstring inherited
        with self._lock:
            done = self.store.delete(key)
            if done:
                self.log.append(Operation(op="delete", key=key))
            return done

    def sync(self, prefix: str) -> None:
        # docstring inherited
        with self._lock:
            self.store.sync(prefix)
            self.log.append(Operation(op="sync", key=prefix))

    def _release(self, hold: Hold) -> None:
        with self._lock:
            hold.release()
            self.log.append(Operation(op="release", key=hold.key))
