"""The `Store` protocol: eight verbs over keys, and the promises that every store keeps.

A key is a `/`-separated relative name such as `checkpoints/3f2a9c1b00d14e77/experiment.json`.
Bytes are on disk when `put` returns, names after `sync`; nothing is ever half visible. Names that
start with `.` and end with `.tmp` are the store's own: no key has one, no listing shows one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol

from weightslab.engine.errors import IntegrityError, ReadOnlyStoreError, StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from typing_extensions import Self

__all__ = [
    "Buffer",
    "ForeignFileError",
    "Hold",
    "HoldMode",
    "KeyStat",
    "Store",
    "byte_views",
    "check_key",
    "check_prefix",
    "is_key_part",
    "read_only_error",
]

Buffer = bytes | bytearray | memoryview
HoldMode = Literal["create", "read", "alone"]

# Refused in every part: what a file system reads as something else than a name. A drive letter in
# the middle of a key would replace everything before it on Windows.
_BAD_PART: Final = re.compile(
    r"\A\Z|\A\.\.?\Z|[/\\\x00\ud800-\udfff]|\A[A-Za-z]:|\A\..*\.tmp\Z", re.DOTALL
)


class ForeignFileError(IntegrityError, StorageError):
    """A name is taken by something no store writes: a symbolic link, a pipe, a folder, a device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStat:
    """What a store knows about a file or folder without reading it.

    Attributes:
        size_bytes: length of the value; of no meaning for a folder.
        mtime_ns: last change of the content (of a folder: of its names), in nanoseconds.
        ctime_ns: last change of content or status, in nanoseconds.
        inode: equal for two keys exactly if they share their bytes through `link`.
        device: file system that holds the bytes.

    Times serve to notice a change; they never decide an order.
    """

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int


class Hold(Protocol):
    """A key that nobody else can take until it is released or its process ends."""

    @property
    def key(self) -> str:
        """The key that is held."""
        ...

    def release(self) -> None:
        """Remove the file, if it was made for the hold, then unlock it.

        Idempotent; does nothing in a forked child.
        """
        ...

    def __enter__(self) -> Self:
        """Return this hold."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release."""
        ...


class Store(Protocol):
    """A place for bytes. Safe to use from several threads and several processes at once.

    Every method raises ValueError for a malformed key. Those that write raise ReadOnlyStoreError
    where nothing may be written, StorageFullError without space, inodes or quota, StorageError for
    any other refusal; the error of the system is the `__cause__`.
    """

    @property
    def read_only(self) -> bool:
        """True if this store refuses to write."""
        ...

    def describe(self) -> str:
        """Return the name of the place for people, such as the path of a folder."""
        ...

    def put(self, key: str, parts: Sequence[Buffer], *, if_absent: bool = False) -> bool:
        """Write `parts`, joined, under `key`; visible all at once or not at all.

        Args:
            key: name of the value; folders above it are created.
            parts: C-contiguous buffers of any format, written in order, not copied, not kept. They
                must not change during the call.
            if_absent: create exclusively; leave an existing value alone and return False. Of
                several writers exactly one gets True. A store that cannot create a name
                exclusively relies on the hold that its caller has.
        Returns: True if bytes were written.
        Durability: the bytes are on disk on return, the name after `sync` of its folder.
        """
        ...

    def map(self, key: str) -> memoryview:
        """Return the bytes of `key`, read-only, mapped where the store can.

        The view stays valid after `delete` and after a later `put`.

        Raises: ObjectNotFoundError; ForeignFileError if the name is not a regular file.
        """
        ...

    def link(self, src: str, dst: str) -> bool:
        """Give the bytes of `src` the further name `dst`, without copying them.

        Returns: False where the store cannot do that; write the bytes then.
        Raises: AlreadyExistsError if `dst` exists, ObjectNotFoundError if `src` does not.
        """
        ...

    def hold(self, key: str, *, mode: HoldMode = "create") -> Hold | None:
        """Create `key` and lock it for this process; None if somebody has it.

        The file says who holds it. One that a dead process of this host and boot left behind is
        taken over; one of another host or boot is left alone. Threads of one process exclude each
        other, too.

        Args:
            key: name of the file.
            mode: `create` is the above. `read` and `alone` lock a file that is there, leave it in its
                place and write nothing, so that they work where nothing may be written: `read`
                beside others that read it, `alone` only if nobody does. Whoever has a file in one
                of these ways may be passed over on systems without locks that are shared.
        Raises: ObjectNotFoundError if a file that is to be read is not there.
        """
        ...

    def list(self, prefix: str) -> list[str]:
        """Return the names directly under `prefix`, sorted; folders end with `/`. [] if absent.

        Args:
            prefix: a folder, with or without `/` at the end; `""` is the whole store.
        """
        ...

    def stat(self, key: str) -> KeyStat | None:
        """Return what is known of the file `key`, or of the folder if it ends with `/`, or None."""
        ...

    def delete(self, key: str) -> bool:
        """Remove the file `key`, or the folder if `key` ends with `/` and nothing is in it.

        Returns: False if it was not there, or the folder is not empty.
        Durability: after `sync` of the folder above.
        """
        ...

    def sync(self, prefix: str) -> None:
        """Make the names in the folder `prefix`, and the folder's own name, survive a power loss.

        Raises: ObjectNotFoundError if the folder is gone: its names cannot survive.
        """
        ...


def is_key_part(name: str) -> bool:
    """Return whether `name` can stand between two `/` of a key."""
    return _BAD_PART.search(name) is None


def check_key(key: str) -> tuple[str, ...]:
    """Return the parts of a key that names a file.

    Raises: ValueError naming the part that is empty, `.`, `..`, a temporary name, or holds a
        backslash, a NUL, a drive letter or a lone surrogate.
    """
    if not isinstance(key, str):
        raise TypeError(f"a key is a str, not {type(key).__name__}")
    parts = tuple(key.split("/"))
    for part in parts:
        if not is_key_part(part):
            raise ValueError(
                f"{key!r} is not a key: the part {part!r} is not allowed; "
                "keys are relative, `/`-separated, without `..`, backslash, NUL or drive letter"
            )
    return parts


def check_prefix(prefix: str) -> tuple[str, ...]:
    """Return the parts of a folder name, with or without its last `/`; `""` is the whole store.

    Raises: ValueError as `check_key`.
    """
    if not isinstance(prefix, str):
        raise TypeError(f"a prefix is a str, not {type(prefix).__name__}")
    return check_key(prefix.removesuffix("/")) if prefix else ()


def byte_views(parts: Sequence[Buffer]) -> list[memoryview]:
    """Return `parts` as views of bytes, without the empty ones and without a copy.

    Raises: TypeError for a part that is no C-contiguous buffer.
    """
    views = (memoryview(part) for part in parts)
    return [view.cast("B") for view in views if view.nbytes]


def read_only_error(where: str, action: str) -> ReadOnlyStoreError:
    """Return the error of a store that was opened for reading and is asked to write."""
    return ReadOnlyStoreError(
        f"{where} was opened with read_only=True, so nothing is {action} there",
        hint="open it without read_only to write",
    )
