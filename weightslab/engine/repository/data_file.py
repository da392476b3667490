"""HDF5 files in a root: each has `{file}.json` beside it, a sealed record of its size and digest.

The sidecar is made from the bytes that are in the store, so that of two processes that write the
same name at once the loser describes the winner's file.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

from weightslab.engine.digests import digest_bytes
from weightslab.engine.errors import (
    DigestMismatchError,
    FormatError,
    InvalidManifestError,
    MissingObjectError,
    NotFoundError,
    ObjectNotFoundError,
    StorageError,
    TruncatedError,
)
from weightslab.engine.jsonform import seal, unseal
from weightslab.engine.repository import layout
from weightslab.engine.repository.manifest import check_schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from weightslab.engine.storage.store import Hold, Store

__all__ = [
    "Stamp",
    "add_sidecar",
    "finish_backups",
    "pending_key",
    "put_with_sidecar",
    "read_data_file",
    "save_backup",
    "sidecar_key",
    "stamp_of",
]

SCHEMA: Final = "weightslab.file"
SCHEMA_VERSION: Final = 1
_RESERVED: Final = ("samples",)
_MAX_BACKUPS: Final = 10_000  # of one name in one experiment; a guard, not a design limit

Stamp = tuple[int, int, int, int]  # device, inode, size in bytes, mtime in nanoseconds
_verified: dict[tuple[str, Stamp], str] = {}  # digests of files that this process has read wholly
_MAX_VERIFIED: Final = 1024


def stamp_of(store: Store, key: str) -> Stamp | None:
    """Return what tells a file from every other; a link to it has the same. None if it is absent."""
    found = store.stat(key)
    return None if found is None else (found.device, found.inode, found.size_bytes, found.mtime_ns)


def _remember(store: Store, stamp: Stamp | None, digest: str) -> None:
    if stamp is not None:
        if len(_verified) >= _MAX_VERIFIED:
            _verified.clear()
        _verified[store.describe(), stamp] = digest


def sidecar_key(key: str) -> str:
    """Return the key of the record that covers `key`."""
    return f"{key}.json"


def add_sidecar(store: Store, key: str) -> None:
    """Write the sidecar of a stored file, unless it is there.

    Another name of a file that this process has read or written wholly is not read again.
    """
    if store.stat(sidecar_key(key)) is not None:
        return
    stamp, data, name = stamp_of(store, key), store.map(key), key.rpartition("/")[2]
    known = None if stamp is None else _verified.get((store.describe(), stamp))
    digest = digest_bytes(data) if known is None else known
    _remember(store, stamp, digest)
    record = seal(
        {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "name": name,
            "size_bytes": len(data),
            "content_digest": digest,
        }
    )
    store.put(sidecar_key(key), [record], if_absent=True)


def read_data_file(store: Store, key: str) -> memoryview:
    """Map a data file after checking every byte of it against its sidecar.

    Raises: ObjectNotFoundError, MissingObjectError (no sidecar), TruncatedError,
        DigestMismatchError.
    """
    stamp, data = stamp_of(store, key), store.map(key)
    name = key.rpartition("/")[2]
    try:
        record, _ = unseal(store.map(sidecar_key(key)), what=f"{name}.json")
    except ObjectNotFoundError as error:
        raise MissingObjectError(f"{name} has no {name}.json beside it to check it by") from error
    check_schema(record, schema=SCHEMA, version=SCHEMA_VERSION, what=f"{name}.json")
    if record.get("name") != name:
        raise InvalidManifestError(f"{name}.json describes {record.get('name')!r}, not {name}")
    if record.get("size_bytes") != len(data):
        raise TruncatedError(f"{name} has {len(data)} bytes, not {record.get('size_bytes')}")
    if digest_bytes(data) != record.get("content_digest"):
        raise DigestMismatchError(f"{name} is damaged: its bytes do not have the recorded digest")
    _remember(store, stamp, str(record["content_digest"]))
    return data


def save_backup(store: Store, exp_hash: str, path: Path, *, name: str) -> str:
    """Copy an HDF5 file into `data/` of the experiment; whole and verified, or not at all.

    The same content again is a no-op; another content under the same name becomes a revision.

    Args:
        store: where the experiment lives.
        exp_hash: the experiment.
        path: the file to copy.
        name: its name in the experiment, without hash and `.h5`.
    Returns: the key of the copy.
    Raises: NotFoundError, FormatError (not HDF5), StorageError (open for writing, or changed while
        it was copied).
    """
    layout.check_label(name, what="backup name")
    if name in _RESERVED:
        raise ValueError(f"{name!r} is the name of the samples file; choose another backup_name")
    data = _read_hdf5(path)
    for revision in range(1, _MAX_BACKUPS):
        key = layout.data_key(exp_hash, name, revision=revision)
        if put_with_sidecar(store, key, data):
            read_data_file(store, key)
            return key
    raise StorageError(f"{exp_hash} has {_MAX_BACKUPS} backups named {name!r}; choose another name")


def put_with_sidecar(store: Store, key: str, data: bytes) -> bool:
    """Have `data` and its sidecar at `key`; False if something else is there, or being written.

    While one of the two may be on disk without the other, a hold is, too: so `verify` knows a backup
    that was cut off from a damaged one, and `finish_backups` may mend it.
    """
    folder = key.rpartition("/")[0] + "/"
    if store.stat(key) is not None and store.stat(sidecar_key(key)) is not None:
        store.sync(folder)
        return bytes(store.map(key)) == data
    hold = store.hold(pending_key(key))
    if hold is None:
        return False
    with _marked(store, key, hold):
        store.sync(folder)  # the name of the hold goes to disk before those of the files
        if store.stat(key) is None:
            store.delete(sidecar_key(key))
        if store.put(key, [data], if_absent=True):
            _add_sidecar_or_remove(store, key, data)
        elif bytes(store.map(key)) == data:
            add_sidecar(store, key)
        else:
            return False
        store.sync(folder)
    return True


def _add_sidecar_or_remove(store: Store, key: str, data: bytes) -> None:
    try:
        if bytes(store.map(key)) != data:
            raise DigestMismatchError(f"{key} does not read back")  # noqa: TRY301
        add_sidecar(store, key)
    except BaseException:  # Ctrl-C, too, leaves no file behind that nothing describes
        store.delete(key)
        raise


@contextlib.contextmanager
def _marked(store: Store, key: str, hold: Hold) -> Iterator[None]:
    """Release `hold` at the end, unless one of the two files is there without the other.

    Then it stays, locked while this process lives, and tells that the backup is unfinished.
    """
    try:
        yield
    finally:
        if (store.stat(key) is None) == (store.stat(sidecar_key(key)) is None):
            hold.release()


def pending_key(key: str) -> str:
    """Return the key that a writer of the backup `key` holds."""
    return f"{key}.pending"


def finish_backups(store: Store, exp_hash: str) -> list[str]:
    """Mend backups whose writer died between the two files; returns the keys of what was removed.

    A file without its sidecar is whole, since it had its name last: it gets one. A sidecar without a
    file is removed. Writers that live, and those of another host or boot, are left alone.
    """
    folder = layout.data_folder(exp_hash)
    removed = []
    for name in store.list(folder):
        key = folder + name.removesuffix(".pending")
        hold = store.hold(folder + name) if name.endswith(".h5.pending") else None
        if hold is None:
            continue
        with _marked(store, key, hold):
            if store.stat(key) is not None:
                add_sidecar(store, key)
            elif store.delete(sidecar_key(key)):
                removed.append(sidecar_key(key))
            store.sync(folder)
    return removed


def _read_hdf5(path: Path) -> bytes:
    """Read the file while HDF5 holds it open, so that nobody who respects its locks writes to it."""
    import h5py

    if not path.is_file():
        raise NotFoundError(f"no file {path}", hint="give the path of an existing HDF5 file")
    if not h5py.is_hdf5(path):
        raise FormatError(f"{path} is not an HDF5 file", hint="only .h5 files can be backed up")
    try:
        with h5py.File(path, "r") as opened, path.open("rb") as file:
            if opened.mode != "r":  # HDF5 hands out what this process has open already
                raise OSError("it is open for writing in this process")  # noqa: TRY301
            before = os.fstat(file.fileno())
            data = file.read()
            after = os.fstat(file.fileno())
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read now: {error}",
            hint="close it where it is open for writing, then save the backup again",
        ) from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise StorageError(f"{path} changed while it was being copied; close it and try again")
    return data
