"""The trash: checkpoints that were deleted and can be had back until it is emptied.

    checkpoints/.trash/{stem}/            manifest and files under their own names
    checkpoints/.trash/{stem}/why.json    when and why; its appearance completes the folder

A move is that of `moving`: killed anywhere, the checkpoint is in its place or whole in the trash.
Restoring goes the other way: files first, then the manifest, then the folder is removed. A folder
without a note is what a move that was cut off leaves, or emptying: it counts for nothing, and goes the
next time. Who restores or empties a folder has its note alone.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from weightslab.engine.errors import (
    AlreadyExistsError,
    CheckpointError,
    CheckpointNotFoundError,
    ExperimentNotFoundError,
    FormatError,
    IntegrityError,
    InvalidManifestError,
    LockedError,
    MissingObjectError,
    ObjectNotFoundError,
    PinnedError,
    TruncatedError,
    UnsupportedVersionError,
)
from weightslab.engine.jsonform import unseal
from weightslab.engine.repository import layout
from weightslab.engine.repository.catalog import manifest_names, read_manifest
from weightslab.engine.repository.claim import claimed, held
from weightslab.engine.repository.commit import delete_checkpoint, files_of, remove_files
from weightslab.engine.repository.layout import CheckpointName
from weightslab.engine.repository.manifest import Manifest, check_schema
from weightslab.engine.repository.moving import NOTE, is_same, move_aside, take
from weightslab.engine.repository.notes import read_notes
from weightslab.engine.storage.store import ForeignFileError
from weightslab.engine.values import parse_utc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from weightslab.engine.storage.store import Store

__all__ = [
    "LIFETIME",
    "TrashEntry",
    "empty_trash",
    "find_trashed",
    "list_trash",
    "restore_trashed",
    "trash_checkpoint",
    "trash_checkpoints",
]

SCHEMA: Final = "weightslab.trash"
SCHEMA_VERSION: Final = 1
LIFETIME: Final = timedelta(days=7)  # a weekend and the days around it, to notice what is missing
_BATCH: Final = 64  # revisions that are claimed at once, two open files each


@dataclass(frozen=True, slots=True, kw_only=True)
class TrashEntry:
    """One checkpoint in the trash.

    Attributes:
        name: the checkpoint it was.
        trashed_at: aware UTC time; None if the note about it is damaged.
        reason: why it was deleted, in words.
        size_bytes: of its files; bytes that are shared with other checkpoints are counted here, too.
        key: of its folder, ending with `/`.
        is_damaged: its note or its manifest cannot be read, or a file is missing.
    """

    name: CheckpointName
    trashed_at: datetime | None
    reason: str
    size_bytes: int
    key: str
    is_damaged: bool = False


def trash_checkpoint(
    store: Store,
    name: CheckpointName,
    *,
    now: datetime,
    reason: str,
    allow: Callable[[CheckpointName], object] | None = None,
) -> str:
    """Move one revision into the trash.

    Args:
        store: where the root lives.
        name: the revision.
        now: aware UTC time, from which its time in the trash counts.
        reason: why, in words.
        allow: called once nobody else can write, delete or read the revision, before anything is
            changed; what it raises ends the call.
    Returns: the key of its folder there, ending with `/`.
    Raises: CheckpointNotFoundError; LockedError if it is being written, deleted or read; StorageError.
    Durability: every name there is on disk before the first one here is removed.
    """
    with claimed(store, name):
        if allow is not None:
            allow(name)
        return move_to_trash(store, {name: reason}, files_of(store, name), now=now)[name]


def trash_checkpoints(
    store: Store,
    reasons: Mapping[CheckpointName, str],
    *,
    now: datetime,
    allow: Callable[[CheckpointName], object] | None = None,
) -> dict[CheckpointName, str | CheckpointError]:
    """Do as `trash_checkpoint` for many, of any experiments, with fewer waits for the disk.

    Args:
        store: where the root lives.
        reasons: revision -> why.
        now: aware UTC time.
        allow: see `trash_checkpoint`; for a LockedError or PinnedError that one stays where it is,
            anything else ends the call.
    Returns: for each the key of its folder, or the LockedError, PinnedError or CheckpointNotFoundError
        for which it was passed over.
    Raises: StorageError; those that were moved until then are in the trash.
    """
    done: dict[CheckpointName, str | CheckpointError] = {}
    for batch in _batches(reasons):
        with ExitStack() as claims:
            taken = {}
            for name in batch:
                refusal = _try_claim(store, name, allow, claims)
                if refusal is None:
                    taken[name] = reasons[name]
                else:
                    done[name] = refusal
            if taken:
                done |= move_to_trash(store, taken, files_of(store, *taken), now=now)
    return done


def _try_claim(
    store: Store,
    name: CheckpointName,
    allow: Callable[[CheckpointName], object] | None,
    claims: ExitStack,
) -> CheckpointError | None:
    """Claim a revision until `claims` ends; returns why it stays where it is."""
    try:
        with ExitStack() as claim:
            claim.enter_context(claimed(store, name))
            if allow is not None:
                allow(name)
            claims.push(claim.pop_all())
    except (LockedError, CheckpointNotFoundError, PinnedError) as error:
        return error
    return None


def _batches(names: Iterable[CheckpointName]) -> list[list[CheckpointName]]:
    of_hash: dict[str, list[CheckpointName]] = {}
    for name in names:
        of_hash.setdefault(name.exp_hash, []).append(name)
    return [
        found[start : start + _BATCH]
        for found in of_hash.values()
        for start in range(0, len(found), _BATCH)
    ]


def move_to_trash(
    store: Store,
    reasons: Mapping[CheckpointName, str],
    files: Mapping[CheckpointName, Sequence[str]],
    *,
    now: datetime,
) -> dict[CheckpointName, str]:
    """Move revisions of one experiment, which the caller has claimed; see `move_aside`."""
    notes = {
        name: {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "exp_hash": name.exp_hash,
            "step": name.step,
            "revision": name.revision,
            "trashed_at": now.isoformat(),
            "reason": reason,
        }
        for name, reason in reasons.items()
    }
    return move_aside(store, layout.TRASH, notes, files)


def list_trash(store: Store) -> list[TrashEntry]:
    """Return what is in the trash, oldest first; what has no readable note comes first of all.

    A move that was cut off, whose checkpoint is still in its place, is not listed. O(entries).
    """
    return [entry for entry in _entries(store) if not _is_in_place(store, entry.key)]


def _entries(store: Store) -> list[TrashEntry]:
    found = [entry for key in _folders(store) if (entry := _entry(store, key)) is not None]
    return sorted(found, key=_age)


def _is_in_place(store: Store, key: str) -> bool:
    """Tell whether the checkpoint in a folder is in its place (as well): a kill left it in both."""
    name = _name_in(key)
    there = f"{key}{name.stem}.json"
    if store.stat(name.manifest_key) is None:
        return False
    return store.stat(there) is None or is_same(store, there, name.manifest_key)


def _age(entry: TrashEntry) -> tuple[bool, float, str]:
    known = entry.trashed_at is not None
    return known, entry.trashed_at.timestamp() if entry.trashed_at else 0.0, entry.key


def _folders(store: Store) -> list[str]:
    names = (name for name in store.list(layout.TRASH) if name.endswith("/"))
    return [layout.TRASH + name for name in names if _name_of(name) is not None]


def _name_of(folder: str) -> CheckpointName | None:
    """Return the checkpoint that a folder `{stem}/` or `{stem}.2/` of the trash is named after."""
    for text in (folder[:-1], folder[:-1].rpartition(".")[0]):
        found = layout.parse_checkpoint_file(f"{text}.json")
        if found is not None and found[1] == "json":
            return found[0]
    return None


def _name_in(key: str) -> CheckpointName:
    name = _name_of(key[len(layout.TRASH) :])
    assert name is not None, "only folders that are named after a checkpoint are looked at"
    return name


def _entry(store: Store, key: str) -> TrashEntry | None:
    """Return what is in a folder; None without a note: remains of a move or of an emptying."""
    name, files = _name_in(key), store.list(key)
    if not {NOTE, f"{NOTE}/"} & {*files}:
        return None
    trashed_at: datetime | None
    try:
        trashed_at, reason = _read_note(store, key, name)
        is_damaged = not _is_whole(store, key, name)
    except ObjectNotFoundError:
        return None  # gone since it was listed
    except CheckpointError as error:
        trashed_at, reason, is_damaged = None, f"unknown: {error}", True
    stats = (store.stat(key + file) for file in files if not file.endswith("/"))
    return TrashEntry(
        name=name,
        trashed_at=trashed_at,
        reason=reason,
        size_bytes=sum(stat.size_bytes for stat in stats if stat is not None),
        key=key,
        is_damaged=is_damaged,
    )


def _read_note(store: Store, key: str, name: CheckpointName) -> tuple[datetime, str]:
    what = key + NOTE
    document, _ = unseal(store.map(what), what=what)
    check_schema(document, schema=SCHEMA, version=SCHEMA_VERSION, what=what)
    of = (document.get("exp_hash"), document.get("step"), document.get("revision"))
    reason = document.get("reason")
    if of != (name.exp_hash, name.step, name.revision) or not isinstance(reason, str):
        raise InvalidManifestError(f"{what} is not about {name.stem}", hint="it was exchanged")
    return parse_utc(document.get("trashed_at", "")), reason


def _is_whole(store: Store, key: str, name: CheckpointName) -> bool:
    try:
        _read_trashed(store, key, name)
    except CheckpointError:
        return False
    return True


def _read_trashed(store: Store, key: str, name: CheckpointName) -> Manifest:
    """Return the manifest of what is in a folder, all of whose files are there in full size.

    Raises: MissingObjectError, TruncatedError, IntegrityError, FormatError.
    """
    try:
        manifest = Manifest.from_bytes(store.map(f"{key}{name.stem}.json"), name=name)
    except ObjectNotFoundError as error:
        raise MissingObjectError(f"{key} holds no manifest of {name.stem}") from error
    for file in manifest.files:
        stat = store.stat(key + file.name)
        if stat is None:
            raise MissingObjectError(f"{key} lacks {file.name}")
        if stat.size_bytes != file.size_bytes:
            raise TruncatedError(f"{key}{file.name} has not the size that was recorded")
    return manifest


def find_trashed(store: Store, wanted: TrashEntry | CheckpointName | str) -> TrashEntry:
    """Return an entry of the trash.

    Args:
        store: where the root lives.
        wanted: an entry; or the name of a checkpoint, or its stem: the one that was trashed last; or
            the name of a folder in the trash.
    Raises: ObjectNotFoundError naming what is there.
    """
    entries = _entries(store)  # with those of which a kill left the checkpoint in its place, too
    if isinstance(wanted, TrashEntry):
        label, found = wanted.key, [e for e in entries if e.key == wanted.key]
    elif isinstance(wanted, CheckpointName):
        label, found = wanted.stem, [e for e in entries if e.name == wanted]
    elif isinstance(wanted, str):
        label = wanted.rstrip("/").rpartition("/")[2]
        found = [e for e in entries if e.name.stem == label]
        found = found or [e for e in entries if e.key == f"{layout.TRASH}{label}/"]
    else:
        raise TypeError(f"an entry of the trash, not {type(wanted).__name__}")
    if found:
        return found[-1]
    have = ", ".join(e.name.stem for e in entries[-3:]) or "nothing"
    raise ObjectNotFoundError(f"{label} is not in the trash", hint=f"newest there: {have}")


def restore_trashed(store: Store, wanted: TrashEntry | CheckpointName | str) -> CheckpointName:
    """Put a checkpoint from the trash back into its place, as it was, sequence and parent included.

    If it was thinned, the thin revision that was made from it is deleted: all that it holds is in this
    one, too. A pin of that very revision keeps it.

    Args:
        store: where the root lives.
        wanted: see `find_trashed`.
    Raises: ObjectNotFoundError if it is not there; ExperimentNotFoundError if its experiment is gone;
        AlreadyExistsError if its name was taken by another checkpoint; LockedError; MissingObjectError,
        IntegrityError, FormatError if what is in the trash is not whole; StorageError. It then is
        in the trash as before.
    Durability: on disk on return. Killed anywhere, it is whole in the trash or in its place, and a
        second call goes on.
    """
    entry = find_trashed(store, wanted)
    name = entry.name
    if store.stat(layout.experiment_key(name.exp_hash)) is None:
        raise ExperimentNotFoundError(
            f"the experiment of {name.stem} is gone",
            hint="open it again with update_experiment_hash, then restore",
        )
    with held(store, name), _kept(store, entry.key):
        if not _is_in_place(store, entry.key):
            _return(store, entry.key, _read_trashed(store, entry.key, name))
        store.sync(_place_of(name))
        _remove_thin(store, read_manifest(store, name))
        _remove_folder(store, entry.key, name)
    return name


@contextmanager
def _kept(store: Store, key: str) -> Iterator[None]:
    """Keep a folder from being emptied while the block runs.

    Raises: ObjectNotFoundError if it was emptied; LockedError if that is going on.
    """
    lock = store.hold(key + NOTE, mode="alone")
    if lock is None:
        raise LockedError(f"{key} is being emptied or restored by another process")
    with lock:
        yield


def _return(store: Store, key: str, manifest: Manifest) -> None:
    """Give a checkpoint its names again; the caller holds the revision."""
    name = manifest.name
    if store.stat(name.manifest_key) is not None:
        raise AlreadyExistsError(
            f"another checkpoint is called {name.stem} now, so the one in the trash stays there",
            hint="delete that one first, or move it to the trash",
        )
    _put_back(store, key, manifest)
    store.sync(_place_of(name))
    take(store, f"{key}{name.stem}.json", name.manifest_key)


def _put_back(store: Store, key: str, manifest: Manifest) -> None:
    """Give the files their old names again; the caller holds the revision, which has no manifest."""
    name = manifest.name
    remove_files(store, name)  # left by an earlier try, or by a writer that died
    try:
        for file in manifest.files:
            take(store, key + file.name, name.file_key(file.name))
    except BaseException:  # Ctrl-C, too, leaves no files behind that no manifest names
        remove_files(store, name)
        raise


def _remove_thin(store: Store, manifest: Manifest) -> None:
    """Delete the thin revisions that were made from a checkpoint, which is in its place again."""
    name, notes = manifest.name, read_notes(store, manifest.name.exp_hash)
    for other in manifest_names(store, name.exp_hash):
        if other.step != name.step or other == name or not notes.is_certain:
            continue
        try:
            origin = read_manifest(store, other).derived_from
        except CheckpointError:
            continue  # of a damaged one nobody knows what it was made from
        pinned = any((p.step, p.revision) == (other.step, other.revision) for p in notes.pins)
        if origin == manifest.digest and not pinned:
            delete_checkpoint(store, other)


def empty_trash(
    store: Store, *, before: datetime, damaged: bool = False, mark: str = ""
) -> list[TrashEntry]:
    """Delete for good what was moved to the trash before a moment.

    What somebody is restoring, or moving there, is passed over. What is left of moves that were cut
    off, and of emptying, is removed, too. Killed anywhere, each entry is there or not there.

    Args:
        store: where the root lives.
        before: aware UTC time.
        damaged: delete also what has a damaged note, whenever it came there.
        mark: only what has a reason that begins like this.
    Returns: what was deleted.
    Raises: StorageError; what was deleted until then is deleted.
    Durability: on disk on return.
    """
    folders = _folders(store)
    deleted = [
        entry for key in folders if (entry := _empty(store, key, before, mark, damaged=damaged))
    ]
    if folders:
        store.sync(layout.TRASH)
    return sorted(deleted, key=_age)


def _empty(
    store: Store, key: str, before: datetime, mark: str, *, damaged: bool
) -> TrashEntry | None:
    """Delete a folder if it is due, or holds remains; returns the entry that was deleted."""
    try:
        lock = store.hold(key + NOTE, mode="alone")
    except ObjectNotFoundError:
        _remove_remains(store, key)
        return None
    except ForeignFileError:
        return None  # a link or a pipe in place of the note: nothing of ours
    if lock is None:
        return None  # being restored; the next time
    with lock:
        if not _is_due(store, key, before, mark, damaged=damaged):
            return None
        entry = _entry(store, key)
        _remove_folder(store, key, _name_in(key))
    return entry


def _is_due(store: Store, key: str, before: datetime, mark: str, *, damaged: bool) -> bool:
    try:
        trashed_at, reason = _read_note(store, key, _name_in(key))
        return trashed_at < before and reason.startswith(mark)
    except UnsupportedVersionError:
        return False  # the package that wrote it knows
    except (IntegrityError, FormatError):
        return damaged


def _remove_remains(store: Store, key: str) -> None:
    """Remove what has no note, unless a move is going on; without a model folder none can."""
    name = _name_in(key)
    try:
        with held(store, name) if store.stat(_place_of(name)) else nullcontext():
            if store.stat(key + NOTE) is None:
                _remove_folder(store, key, name)
    except LockedError:
        return  # the next time


def _place_of(name: CheckpointName) -> str:
    return layout.model_folder(name.exp_hash)


def _remove_folder(store: Store, key: str, name: CheckpointName) -> None:
    """Remove what is ours in a folder, the note first: the rest then counts for nothing."""
    store.delete(key + NOTE)
    for file in store.list(key):
        found = layout.parse_checkpoint_file(file)
        if found is not None and found[0] == name:
            store.delete(key + file)
    store.delete(key)
