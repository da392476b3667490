"""Thinning: a checkpoint goes on without its optimizer state; its weights, metrics and place stay.

A new revision of the same step has links to the files with weights, the sequence, the time and the
parent of the old one, and names it as `derived_from`. Then the old one goes to the trash. Killed
anywhere, one of the two answers for the step; a second call goes on.

A file that holds weights and training tensors is linked whole if half of it is weights; otherwise the
weights in it are written into a file of their own, `{stem}.kept.safetensors`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    LockedError,
    MissingObjectError,
    ObjectNotFoundError,
)
from weightslab.engine.repository import layout
from weightslab.engine.repository.catalog import map_file, read_manifest
from weightslab.engine.repository.claim import held, unread
from weightslab.engine.repository.commit import clean_up, put_new, reserve
from weightslab.engine.repository.manifest import Manifest
from weightslab.engine.repository.trash import move_to_trash
from weightslab.engine.repository.verify import verify_files
from weightslab.engine.tensors.check import FileCheck, verify_together
from weightslab.engine.tensors.packing import PackedTensor, pack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from weightslab.engine.repository.catalog import Catalog, CheckpointEntry
    from weightslab.engine.repository.layout import CheckpointName
    from weightslab.engine.storage.store import Store
    from weightslab.engine.values import FileRecord, TensorRecord

__all__ = ["is_kept", "is_thin", "thin_checkpoint"]

TRAINING: Final = "training"
KEPT: Final = "kept"  # part of the file with weights that lay among training tensors
WRAPPERS: Final = "wrappers"  # what wrappers of the model count belongs to the model, and stays
_MIN_LIVE: Final = 0.5  # share of a file that is in use, as in `reuse`: less is not worth a link
REASON: Final = "thinned: the optimizer state was dropped, the weights stay in {}"


def is_thin(manifest: Manifest) -> bool:
    """Tell whether the optimizer state of a checkpoint was dropped by thinning."""
    return manifest.derived_from is not None


def thin_checkpoint(
    store: Store,
    catalog: Catalog,
    name: CheckpointName,
    *,
    clock: Callable[[], datetime],
    allow: Callable[[CheckpointName], object] | None = None,
    mark: str = "",
) -> Manifest:
    """Replace the newest revision of a step by one without the training part.

    One that has no training part to drop is left as it is. Weights are verified through their new
    names before anything relies on them. The old revision can be read until the new one is there.

    Args:
        store: where the root lives.
        catalog: says which revisions the step has.
        name: the revision.
        clock: returns the current aware UTC time, for the note in the trash.
        allow: called once nobody else can write, delete or read the revision, before anything is
            changed; what it raises ends the call.
        mark: what the reason in the trash begins with, see `empty_trash`.
    Returns: the manifest that answers for the step.
    Raises: CheckpointNotFoundError; LockedError if it, or the next revision, is being written,
        deleted or read; CheckpointError if it is not the newest revision of its step; IntegrityError,
        FormatError if its weights are damaged; StorageError. It then is as it was, or, where somebody
        began to read it meanwhile, beside the new one until the next call.
    Durability: on disk on return.
    """
    with held(store, name):
        with unread(store, name):
            pass  # whoever reads it now will for a while
        old = read_manifest(store, name)
        entries = [e for e in catalog.checkpoints(name.exp_hash) if e.name.step == name.step]
        found = _made_already(store, old, entries)
        if allow is not None:
            allow(name)
        state = _state_to_keep(old)
        if found is None and state == old.state:
            _drop_origin(store, old, entries, clock, mark)
            return old
        new = _commit(store, old, state) if found is None else found
        _drop(store, old, new, clock, mark)
    return new


def _made_already(
    store: Store, old: Manifest, entries: Sequence[CheckpointEntry]
) -> Manifest | None:
    """Return what a thinning that was cut off had committed, verified; None if there is none.

    Raises: CheckpointError if another revision answers for the step.
    """
    newest = max((e.name for e in entries), key=lambda n: n.revision, default=old.name)
    if newest.revision <= old.name.revision:
        return None
    try:
        manifest = read_manifest(store, newest)
    except CheckpointNotFoundError:
        return None  # deleted meanwhile; if not, the next revision is taken and that is an error
    except CheckpointError:
        manifest = None
    if manifest is None or manifest.derived_from != old.digest:
        raise CheckpointError(
            f"{old.name.stem} is not the newest revision of its step, {newest.stem} is",
            hint="only what answers for a step is thinned; delete the older revision instead",
        )
    verify_files(store, manifest)
    return manifest


def _drop_origin(
    store: Store,
    new: Manifest,
    entries: Sequence[CheckpointEntry],
    clock: Callable[[], datetime],
    mark: str,
) -> None:
    """Move what a thin revision was made from to the trash, if a kill kept that from happening."""
    for entry in entries:
        if is_thin(new) and entry.digest == new.derived_from and entry.name != new.name:
            verify_files(store, new)
            with held(store, entry.name):
                _drop(store, read_manifest(store, entry.name), new, clock, mark)


def _drop(
    store: Store, old: Manifest, new: Manifest, clock: Callable[[], datetime], mark: str
) -> None:
    """Move the old revision, which the caller holds, to the trash."""
    files = [old.name.file_key(file.name) for file in old.files]
    reason = mark + REASON.format(new.name.stem)
    with unread(store, old.name):
        move_to_trash(store, {old.name: reason}, {old.name: files}, now=clock())


def _state_to_keep(manifest: Manifest) -> dict[str, Any]:
    """Return the non-tensor state without the training part, but for what wrappers count."""
    state = {part: tree for part, tree in manifest.state.items() if part != TRAINING}
    training = manifest.state.get(TRAINING)
    if not isinstance(training, dict):
        return state
    kept = {key: tree for key, tree in training.items() if key == WRAPPERS}
    return state | ({TRAINING: kept} if kept else {})


def _commit(store: Store, old: Manifest, state: dict[str, Any]) -> Manifest:
    name = replace(old.name, revision=old.name.revision + 1)
    # exactly the next one: a saver that took it meanwhile has something newer to say
    hold = reserve(store, name)
    if hold is None:
        raise LockedError(f"{name.stem} is being written by another process", hint="try again")
    with hold:
        folder = layout.model_folder(name.exp_hash)
        try:
            files, tensors = _place(store, old, name)
            store.sync(folder)
            aliases = {k: v for k, v in old.aliases.items() if v in tensors}
            new = replace(
                old,
                name=name,
                files=files,
                tensors=tensors,
                aliases=aliases,
                state=state,
                derived_from=old.digest,
                digest="",
            )
            data = new.to_bytes()
            put_new(store, name.manifest_key, [data])
        except BaseException:  # Ctrl-C, too, leaves no files behind
            clean_up(store, name)
            raise
        store.sync(folder)
    return Manifest.from_bytes(data, name=name)


def is_kept(key: str) -> bool:
    """Tell whether a tensor, named as in a manifest, stays when its checkpoint is thinned."""
    part, _, rest = key.partition("/")
    return part != TRAINING or rest.partition("/")[0] == WRAPPERS


def _place(
    store: Store, old: Manifest, name: CheckpointName
) -> tuple[tuple[FileRecord, ...], dict[str, TensorRecord]]:
    """Have the weights under names of the new revision; returns the records of files and tensors."""
    files: list[FileRecord] = []
    tensors: dict[str, TensorRecord] = {}
    loose: dict[str, PackedTensor] = {}
    for file in old.files:
        records = {k: t for k, t in old.tensors_in(file).items() if is_kept(k)}
        if not records:
            continue
        live = sum(t.size_bytes for t in records.values())
        is_whole = len(records) == len(old.tensors_in(file))
        linked = (
            _link(store, old, file, name)
            if is_whole or live >= file.size_bytes * _MIN_LIVE
            else None
        )
        if linked is None:
            loose |= _read(store, old, file, records)
            continue
        own = {key: replace(t, file=linked.name) for key, t in records.items()}
        data = store.map(name.file_key(linked.name))
        # of a file that others use as well only what is in use here is looked at, as in a load
        names = None if is_whole else list(own)
        verify_together([FileCheck(buffer=data, file=linked, tensors=own, names=names)])
        files.append(linked)
        tensors |= own
    if loose:
        image = pack(loose)
        file, written = image.records(name.file_name(KEPT), KEPT)
        put_new(store, name.file_key(file.name), image.buffers)
        files.append(file)
        tensors |= written
    return tuple(files), tensors


def _link(store: Store, old: Manifest, file: FileRecord, name: CheckpointName) -> FileRecord:
    """Give a file its name in the new revision; copied where links are impossible."""
    rest = file.name[len(old.name.stem) :]
    source, linked = old.name.file_key(file.name), replace(file, name=name.stem + rest)
    try:
        if not store.link(source, name.file_key(linked.name)):
            put_new(store, name.file_key(linked.name), [store.map(source)])
    except ObjectNotFoundError as error:
        raise MissingObjectError(
            f"checkpoint {old.name.stem} names {file.name}, which is not there"
        ) from error
    return linked


def _read(
    store: Store, old: Manifest, file: FileRecord, records: Mapping[str, TensorRecord]
) -> dict[str, PackedTensor]:
    """Return tensors of a file, verified; views on it, nothing is copied."""
    data = map_file(store, old.name, file.name)
    verify_together([FileCheck(buffer=data, file=file, tensors=records, names=list(records))])
    return {
        key: PackedTensor(
            dtype=t.dtype, shape=t.shape, data=data[t.offset : t.offset + t.size_bytes]
        )
        for key, t in records.items()
    }
