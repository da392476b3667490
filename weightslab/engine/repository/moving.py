"""Moving: all files of a revision get further names in a folder aside, then lose their own.

    {base}{stem}/            manifest and files under their own names
    {base}{stem}/why.json    the note; its appearance completes the folder
    {base}{stem}.2/ ...      where the name is taken by another checkpoint

Everything is linked there first, then the note is written, then the checkpoint is deleted as usual:
its manifest, then its files. Killed anywhere, it is still in its place, or whole in the folder; a
second call goes on. Each checkpoint owns its files, so no other one misses them. Where links are
impossible bytes are copied.
"""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import AlreadyExistsError, ObjectNotFoundError
from weightslab.engine.jsonform import seal
from weightslab.engine.repository.commit import remove_committed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from weightslab.engine.repository.layout import CheckpointName
    from weightslab.engine.storage.store import Store

__all__ = ["NOTE", "is_same", "move_aside", "take"]

NOTE: Final = "why.json"


def move_aside(
    store: Store,
    base: str,
    notes: Mapping[CheckpointName, Mapping[str, Any]],
    files: Mapping[CheckpointName, Sequence[str]],
) -> dict[CheckpointName, str]:
    """Move revisions of one experiment, which the caller has claimed, into folders below `base`.

    Args:
        store: where the root lives.
        base: key of the folder of folders.
        notes: revision -> plain JSON; the names of the files are added as `files`.
        files: revision -> keys of its tensor files, for each in `notes`.
    Returns: the key of the folder of each, ending with `/`.
    Raises: StorageError.
    Durability: every name there is on disk before the first one here is removed.
    """
    folders = {}
    for name, note in notes.items():
        keys = [*files[name], name.manifest_key]
        told = {**note, "files": sorted(key.rpartition("/")[2] for key in keys)}
        with _folder_for(store, base + name.stem, keys) as folder:
            for key in keys:
                take(store, key, folder + key.rpartition("/")[2])
            store.put(folder + NOTE, [seal(told)])  # one of an earlier try is written anew
        store.sync(folder)
        folders[name] = folder
    remove_committed(store, {name: files[name] for name in notes})
    return folders


@contextmanager
def _folder_for(store: Store, stem: str, keys: Sequence[str]) -> Iterator[str]:
    """Yield a folder in which nothing is in the way of `keys`: a new one, or that of an earlier try.

    One whose note somebody else has locked is being emptied.
    """
    for number in itertools.count(1):
        folder = f"{stem}{f'.{number}' if number > 1 else ''}/"
        if store.stat(folder) is None:
            yield folder
            return
        if not all(_is_free(store, key, folder) for key in keys):
            continue
        try:
            lock = store.hold(folder + NOTE, mode="alone")
        except ObjectNotFoundError:  # cut off before it had one
            yield folder
            return
        if lock is not None:
            with lock:
                yield folder
            return


def _is_free(store: Store, key: str, folder: str) -> bool:
    """Tell whether `key` can go into the folder: its name is free, or an earlier try put it there."""
    there = folder + key.rpartition("/")[2]
    if store.stat(there) is None or store.stat(key) is None:
        return store.stat(there) is None
    return is_same(store, key, there)


def is_same(store: Store, key: str, other: str) -> bool:
    """Tell whether two keys lead to the same bytes; False if one of them is not there."""
    found, own = store.stat(other), store.stat(key)
    if found is None or own is None:
        return False
    if (found.device, found.inode) == (own.device, own.inode):
        return True
    return found.size_bytes == own.size_bytes and store.map(other) == store.map(key)


def take(store: Store, key: str, there: str) -> None:
    """Give a file a further name, by a copy where links are impossible.

    What has that name already stays: an earlier try was interrupted, and the caller has compared.
    A file that vanished since it was listed is passed over; the note lists it, the folder lacks it.
    """
    try:
        if not store.link(key, there):
            store.put(there, [store.map(key)], if_absent=True)
    except (AlreadyExistsError, ObjectNotFoundError):
        return
