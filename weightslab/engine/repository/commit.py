"""The commit: how a checkpoint comes into being, and how it goes.

    hold {stem}.pending -> files: temp, write, fsync, link to a new name -> fsync folder
      -> sequence -> manifest the same way -> fsync folder -> acknowledge -> remove pending

A kill before the manifest has its name leaves files that no manifest names; they are removed by the
next writer that can take the hold. Nothing committed is ever overwritten: another content for the
same step becomes a new revision. Deleting takes the manifest first, then the files.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import (
    AlreadyExistsError,
    CheckpointError,
    CheckpointNotFoundError,
    FormatError,
    IntegrityError,
    LockedError,
)
from weightslab.engine.jsonform import sealed_digest
from weightslab.engine.repository import layout
from weightslab.engine.repository.catalog import read_manifest
from weightslab.engine.repository.claim import claimed
from weightslab.engine.repository.layout import CheckpointName
from weightslab.engine.repository.manifest import Manifest
from weightslab.engine.repository.reuse import ReusePlan, link_sources, plan_reuse
from weightslab.engine.repository.verify import verify_files
from weightslab.engine.tensors.packing import FileImage, pack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from weightslab.engine.repository.catalog import Catalog
    from weightslab.engine.storage.store import Buffer, Hold, Store
    from weightslab.engine.values import FileRecord, ParentLink, TensorRecord

__all__ = [
    "Draft",
    "commit_checkpoint",
    "delete_checkpoint",
    "number_draft",
    "refuse_living_writers",
    "remove_leftovers",
]

logger = logging.getLogger(__name__)
STABLE: Final = "stable"  # part of the file with tensors that did not change for a while
_UNSET: Final = datetime(
    1970, 1, 1, tzinfo=timezone.utc
)  # replaced just before the manifest is written
_MAX_TRIES: Final = 64  # other writers of the same step at once; far more than processes that train


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A checkpoint before its commit.

    Attributes:
        exp_hash: experiment that it belongs to.
        experiment_digest: the same in full.
        step: optimizer step, >= 0.
        images: part -> bytes of its file.
        state, aliases, metadata, metrics, config_file, versions: as in `Manifest`.
        parent: where the weights came from.
    """

    exp_hash: str
    experiment_digest: str
    step: int
    images: Mapping[str, FileImage]
    aliases: dict[str, str]
    state: dict[str, Any]
    metadata: Any
    metrics: dict[str, Any]
    parent: ParentLink
    config_file: str | None
    versions: dict[str, str]

    @property
    def name(self) -> CheckpointName:
        """The name it gets if the step is new."""
        return CheckpointName(exp_hash=self.exp_hash, step=self.step)


def commit_checkpoint(
    store: Store, catalog: Catalog, draft: Draft, *, clock: Callable[[], datetime]
) -> tuple[Manifest, bool]:
    """Make `draft` a checkpoint; all of it or nothing.

    Returns: the manifest, and True if something was written. Saving again what the newest revision
        of the step already holds, unbroken, writes nothing.
    Raises: StorageError and its kinds; whatever was committed before is as it was. An error may
        come after the commit itself (a failed fsync of the folder): saving again is safe.
    Durability: every byte and every name is on disk on return.
    """
    folder = layout.model_folder(draft.exp_hash)
    existing = _revisions(store, draft)
    candidate = number_draft(draft)
    same = _identical(store, existing, candidate)
    if same is not None:
        store.sync(folder)  # an earlier attempt may have died between the name and its fsync
        return same, False
    hold, name = _take_revision(store, draft, 1 + max(existing, default=0))
    with hold:
        return _write(store, catalog, draft, replace(candidate, name=name), clock), True


def number_draft(draft: Draft) -> Manifest:
    """Lay out the manifest with all digests, under the name of revision 1."""
    name = draft.name
    files, tensors = [], {}
    for part, image in draft.images.items():
        file, records = image.records(name.file_name(part), part)
        files.append(file)
        tensors.update({f"{part}/{key}": record for key, record in records.items()})
    return Manifest(
        name=name,
        experiment_digest=draft.experiment_digest,
        sequence=1,
        created_at=_UNSET,
        metadata=draft.metadata,
        metrics=draft.metrics,
        parent=draft.parent,
        config_file=draft.config_file,
        files=tuple(files),
        tensors=tensors,
        aliases=draft.aliases,
        state=draft.state,
        versions=draft.versions,
    )


def _revisions(store: Store, draft: Draft) -> dict[int, CheckpointName]:
    """Return the revisions of the step that have a manifest, damaged or not."""
    found = {}
    for file in store.list(layout.model_folder(draft.exp_hash), starting=draft.name.stem):
        parsed = layout.parse_checkpoint_file(file)
        if parsed is not None and parsed[1] == "json" and parsed[0].step == draft.step:
            found[parsed[0].revision] = parsed[0]
    return found


def _identical(
    store: Store, existing: Mapping[int, CheckpointName], candidate: Manifest
) -> Manifest | None:
    """Return the newest revision if it holds the same content and still verifies."""
    if not existing:
        return None
    name = existing[max(existing)]
    try:
        manifest = read_manifest(store, name)
        if manifest.content() != candidate.content():
            return None
        verify_files(store, manifest)
    except (IntegrityError, FormatError, CheckpointNotFoundError) as error:
        logger.warning("%s is damaged and is kept; saving a new revision: %s", name.stem, error)
        return None
    return manifest


def _take_revision(store: Store, draft: Draft, first: int) -> tuple[Hold, CheckpointName]:
    """Reserve the first revision that nobody else writes and that has no manifest."""
    for revision in range(first, first + _MAX_TRIES):
        name = CheckpointName(exp_hash=draft.exp_hash, step=draft.step, revision=revision)
        hold = reserve(store, name)
        if hold is not None:
            return hold, name
    raise LockedError(
        f"step {draft.step} of {draft.exp_hash} is being written by more than {_MAX_TRIES} others",
        hint="let each process save its own steps",
    )


def reserve(store: Store, name: CheckpointName) -> Hold | None:
    """Hold a revision that nobody else writes and that has no manifest, cleared of old files.

    Returns: None if somebody writes it, or it is committed.
    """
    hold = store.hold(name.pending_key)
    if hold is None:
        return None
    try:
        if store.stat(name.manifest_key) is None:
            remove_files(store, name)  # left by a writer that died: no manifest, our hold
            return hold
    except BaseException:  # Ctrl-C, too, leaves no hold behind
        hold.release()
        raise
    hold.release()
    return None


def _write(
    store: Store,
    catalog: Catalog,
    draft: Draft,
    candidate: Manifest,
    clock: Callable[[], datetime],
) -> Manifest:
    name, folder = candidate.name, layout.model_folder(draft.exp_hash)
    try:
        plan = _link(store, catalog, candidate)
        files, tensors = _put_files(store, draft, name, plan)
        store.sync(folder)
        sequence = catalog.next_sequence(draft.exp_hash)
        manifest = replace(
            candidate, files=files, tensors=tensors, sequence=sequence, created_at=clock()
        )
        data = manifest.to_bytes()
        put_new(store, name.manifest_key, [data])
    except BaseException:  # Ctrl-C, too, leaves no files behind
        clean_up(store, name)
        raise
    store.sync(folder)  # fails the save if it fails; the checkpoint may be there all the same
    return replace(manifest, digest=sealed_digest(data))


def _link(store: Store, catalog: Catalog, candidate: Manifest) -> ReusePlan:
    """Link what is committed already; returns the plan that holds, all of its links in place."""
    places = catalog.locate({t.digest for t in candidate.tensors.values() if t.size_bytes})
    unusable: set[str] = set()
    while True:
        plan = plan_reuse(candidate, places, unusable=unusable)
        failed = link_sources(store, candidate.name, plan)
        if not failed:
            return plan
        unusable |= failed
        remove_files(store, candidate.name)  # another plan may give the links other names


def _put_files(
    store: Store, draft: Draft, name: CheckpointName, plan: ReusePlan
) -> tuple[tuple[FileRecord, ...], dict[str, TensorRecord]]:
    """Write what is not linked; return the records of all files and tensors."""
    files: list[FileRecord] = []
    tensors: dict[str, TensorRecord] = {}
    for number, source in enumerate(plan.sources, start=1):
        file, found = source.linked(name, number)
        files.append(file)
        tensors.update(found)
    for part, (image, file_name) in _images(draft, name, plan).items():
        file, records = image.records(file_name, part)
        put_new(store, name.file_key(file_name), image.buffers)
        files.append(file)
        prefix = "" if part == STABLE else f"{part}/"
        tensors.update({prefix + key: record for key, record in records.items()})
    return tuple(files), tensors


def _images(
    draft: Draft, name: CheckpointName, plan: ReusePlan
) -> dict[str, tuple[FileImage, str]]:
    """Return part -> what to write for it, and under which name."""
    found: dict[str, tuple[FileImage, str]] = {}
    covered, stable = plan.covered, {}
    for part, image in draft.images.items():
        left = {key for key in image.entries if f"{part}/{key}" not in covered}
        if len(left) == len(image.entries):
            found[part] = image, name.file_name(part)
        else:
            kept = {key for key in image.entries if f"{part}/{key}" in plan.stable}
            stable.update({f"{part}/{k}": t for k, t in image.select(kept).items()})
            if left:
                found[part] = pack(image.select(left)), name.file_name(part, is_partial=True)
    if stable:
        found[STABLE] = pack(stable), name.file_name(STABLE)
    return found


def put_new(store: Store, key: str, parts: Sequence[Buffer]) -> None:
    """Write a file under a name that nothing has.

    Raises: AlreadyExistsError, StorageError.
    """
    if not store.put(key, parts, if_absent=True):
        raise AlreadyExistsError(
            f"{key} appeared while it was being written", hint="save again", context={"key": key}
        )


def clean_up(store: Store, name: CheckpointName) -> None:
    """Remove the files of a failed save; the first error of the save is the one that matters."""
    try:
        if store.stat(name.manifest_key) is None:
            remove_files(store, name)
    except CheckpointError as error:
        logger.warning("files of the failed save %s stay behind: %s", name.stem, error)


def files_of(store: Store, *names: CheckpointName) -> dict[CheckpointName, list[str]]:
    """Return the keys of the tensor files of revisions of one experiment. One listing.

    From the listing: a manifest may be damaged, or not be there yet.
    """
    found: dict[CheckpointName, list[str]] = {name: [] for name in names}
    shared = names[0].stem if len(names) == 1 else ""
    for folder in {layout.model_folder(name.exp_hash) for name in names}:
        for file in store.list(folder, starting=shared):
            parsed = layout.parse_checkpoint_file(file)
            if parsed is not None and parsed[0] in found and parsed[1].endswith("safetensors"):
                found[parsed[0]].append(folder + file)
    return found


def remove_files(store: Store, name: CheckpointName) -> list[str]:
    """Remove the tensor files of a revision; the caller holds it and it has no manifest.

    Returns: their keys.
    """
    removed = files_of(store, name)[name]
    for key in removed:
        store.delete(key)
    return removed


def remove_leftovers(store: Store, exp_hash: str) -> list[str]:
    """Remove what dead writers left in an experiment; returns the keys.

    Only files of a revision without a manifest whose hold can be taken are touched.
    """
    folder = layout.model_folder(exp_hash)
    parsed = [layout.parse_checkpoint_file(file) for file in store.list(folder)]
    found = [p for p in parsed if p is not None and p[0].exp_hash == exp_hash]
    committed = {name for name, rest in found if rest == "json"}
    removed = []
    for name in {name for name, _ in found if name not in committed}:
        hold = store.hold(name.pending_key)
        if hold is None:
            continue
        with hold:
            if store.stat(name.manifest_key) is None:
                removed += remove_files(store, name)
    for name in {name for name, rest in found if rest == "pending" and name in committed}:
        hold = store.hold(name.pending_key)  # a writer that died after its commit
        if hold is not None:
            hold.release()
    return sorted(removed)


def refuse_living_writers(store: Store, exp_hash: str) -> None:
    """Raise if somebody is writing a checkpoint of the experiment right now.

    Raises: LockedError naming the checkpoint.
    """
    for file in store.list(layout.model_folder(exp_hash)):
        found = layout.parse_checkpoint_file(file)
        if found is not None and found[1] == "pending":
            hold = store.hold(found[0].pending_key)
            if hold is None:
                raise LockedError(
                    f"{found[0].stem} is being written by another process",
                    hint="stop the training that saves into this experiment, then delete it",
                )
            hold.release()


def delete_checkpoint(store: Store, name: CheckpointName) -> None:
    """Delete one revision: its manifest, then its files. Killed in between, it is gone all the same.

    The hold of the revision is taken meanwhile, so that no writer reuses its names.

    Raises: CheckpointNotFoundError; LockedError if it is being written, deleted or read; StorageError.
    """
    with claimed(store, name):
        remove_committed(store, files_of(store, name))


def remove_committed(store: Store, files: Mapping[CheckpointName, Sequence[str]]) -> None:
    """Remove the manifests of revisions of one experiment, then their files; the caller has claimed
    them.

    Args:
        store: where the root lives.
        files: what `files_of` said.
    Raises: CheckpointNotFoundError, StorageError.
    """
    folder = layout.model_folder(next(iter(files)).exp_hash)
    for name in files:
        if not store.delete(name.manifest_key):
            raise CheckpointNotFoundError(f"no checkpoint {name.stem}")
    store.sync(folder)
    for keys in files.values():
        for key in keys:
            store.delete(key)
    store.sync(folder)
