"""Reuse: tensors whose bytes are committed in this root already are linked, not written again.

An older file is hard-linked under a name of the new checkpoint, so that each checkpoint owns every
file its manifest names: any step, folder or root can be deleted or moved alone, and the file system
counts the references. Links are taken only where they pay (`plan_reuse`), and each is verified
through its new name before a manifest relies on it.
"""

from __future__ import annotations

import logging
import threading
import weakref
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.errors import IntegrityError, MissingObjectError, ObjectNotFoundError
from weightslab.engine.storage.store import ForeignFileError
from weightslab.engine.tensors.check import verify_file

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from weightslab.engine.repository.catalog import TensorPlace
    from weightslab.engine.repository.layout import CheckpointName
    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.storage.store import KeyStat, Store
    from weightslab.engine.values import FileRecord, TensorRecord

__all__ = ["ReusePlan", "Source", "link_sources", "plan_reuse"]

logger = logging.getLogger(__name__)
REF: Final = "ref"  # part of a linked file
_MIN_LIVE: Final = 0.5  # share of a linked file that is in use: at most half of it is dead weight
_MIN_SHARE: Final = 0.1  # of the save: less is not worth a weights file that `load_file` finds cut
_MIN_BYTES: Final = 1 << 20
_MAX_LINKS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A committed file that holds bytes of the new checkpoint.

    Attributes:
        key: where it is.
        file: its record there.
        tensors: `{part}/{name}` of the new checkpoint -> where the bytes lie in the file.
        whole_part: the part whose file would be this very file, byte for byte; else None.
    """

    key: str
    file: FileRecord
    tensors: Mapping[str, TensorRecord]
    whole_part: str | None = None

    def name_for(self, name: CheckpointName, number: int) -> str:
        """Return the file name of the link in the checkpoint `name`."""
        return name.file_name(self.whole_part or f"{REF}{number}")

    def linked(
        self, name: CheckpointName, number: int
    ) -> tuple[FileRecord, dict[str, TensorRecord]]:
        """Return the records of the link and of the tensors in it."""
        file_name = self.name_for(name, number)
        file = replace(self.file, name=file_name, part=self.whole_part or REF)
        return file, {key: replace(t, file=file_name) for key, t in self.tensors.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReusePlan:
    """What a save links, and what it writes where.

    Attributes:
        sources: files to link.
        stable: `{part}/{name}` of tensors that did not change and cannot be linked well; they go
            into a file of their own, which later saves link whole.
    """

    sources: tuple[Source, ...] = ()
    stable: frozenset[str] = frozenset()

    @property
    def covered(self) -> frozenset[str]:
        """The tensors that are not written into the file of their part."""
        return self.stable.union(*(source.tensors for source in self.sources))


@dataclass(slots=True)
class _Group:
    """A committed file (by content) and the tensors of this save that lie in it."""

    place: TensorPlace
    tensors: dict[str, TensorRecord] = field(default_factory=dict)

    def live_bytes(self, wanted: Mapping[str, TensorRecord]) -> int:
        return sum(t.size_bytes for key, t in self.tensors.items() if key in wanted)


def plan_reuse(
    candidate: Manifest,
    places: Mapping[str, Sequence[TensorPlace]],
    *,
    unusable: Collection[str] = (),
) -> ReusePlan:
    """Decide which committed files a checkpoint links.

    A file is linked where at least half of its bytes are in use here, and links are taken only if
    they save 10 % and 1 MiB of this checkpoint; at most 8. Unchanged tensors of which so much lies
    in files that are mostly dead are written once more, into a file of their own. Pure.

    Args:
        candidate: the checkpoint with all digests, laid out as if everything were written.
        places: digest -> where these bytes are said to be committed.
        unusable: keys of files that could not be linked.
    """
    wanted = {key: t for key, t in candidate.tensors.items() if t.size_bytes}
    threshold = max(_MIN_SHARE * sum(t.size_bytes for t in wanted.values()), _MIN_BYTES)
    groups = _groups(wanted, places, unusable)
    own = {(file.digest, file.size_bytes): file.part for file in candidate.files}
    rest = dict(wanted)
    sources: list[Source] = []
    while groups and len(sources) < _MAX_LINKS:
        lively = [
            g for g in groups if 0 < _MIN_LIVE * g.place.file.size_bytes <= g.live_bytes(rest)
        ]
        if not lively:
            break
        best = max(lively, key=lambda g: g.live_bytes(rest))
        taken = {key: t for key, t in best.tensors.items() if key in rest}
        sources.append(_source(best, taken, own, candidate))
        rest = {key: t for key, t in rest.items() if key not in taken}
    if _size(wanted) - _size(rest) < threshold:
        sources, rest = [], dict(wanted)
    known = {key for group in groups for key in group.tensors if key in rest}
    if _size({key: rest[key] for key in known}) < threshold:
        known = set()
    return ReusePlan(sources=tuple(sources), stable=frozenset(known))


def _size(tensors: Mapping[str, TensorRecord]) -> int:
    return sum(t.size_bytes for t in tensors.values())


def _groups(
    wanted: Mapping[str, TensorRecord],
    places: Mapping[str, Sequence[TensorPlace]],
    unusable: Collection[str],
) -> list[_Group]:
    groups: dict[tuple[str, int], _Group] = {}
    for key, tensor in wanted.items():
        for place in places.get(tensor.digest, ()):
            if place.tensor.size_bytes == tensor.size_bytes and place.key not in unusable:
                content = place.file.digest, place.file.size_bytes
                group = groups.setdefault(content, _Group(place))
                at = replace(tensor, file=place.file.name, offset=place.tensor.offset)
                group.tensors[key] = at
    return list(groups.values())


def _source(
    group: _Group,
    tensors: Mapping[str, TensorRecord],
    own: Mapping[tuple[str, int], str],
    candidate: Manifest,
) -> Source:
    file = group.place.file
    part = own.get((file.digest, file.size_bytes))
    if part is not None:
        of_part = {f"{part}/{k}": t for k, t in candidate.tensors_of_part(part).items()}
        if all(key in tensors for key, t in of_part.items() if t.size_bytes):
            # the very file: tensors without bytes lie in it as well, all at the same offsets
            return Source(key=group.place.key, file=file, tensors=of_part, whole_part=part)
    return Source(key=group.place.key, file=file, tensors=tensors)


def link_sources(store: Store, name: CheckpointName, plan: ReusePlan) -> set[str]:
    """Link the files of a plan under names of the checkpoint `name`, and verify what is used of them.

    The caller holds the revision. What cannot be linked or is damaged is left out and unlinked.

    Returns: the keys of the sources that cannot be used; empty if all are linked.
    Raises: StorageError.
    """
    unusable = set()
    for number, source in enumerate(plan.sources, start=1):
        target = name.file_key(source.name_for(name, number))
        try:
            linked = store.link(source.key, target)
        except (ObjectNotFoundError, ForeignFileError):
            linked = False  # deleted meanwhile: the catalog only says where to look
        if not linked:
            unusable.add(source.key)
            continue
        file, tensors = source.linked(name, number)
        try:
            _verify_once(store, target, file, tensors)
        except IntegrityError as error:
            logger.warning("%s is damaged, so its tensors are written again: %s", source.key, error)
            store.delete(target)
            unusable.add(source.key)
    return unusable


# store -> inode -> (size and time it was verified at, ranges that were found intact)
_Inodes = dict[tuple[int, int], tuple[tuple[int, int], set[tuple[int, str]]]]
_verified: weakref.WeakKeyDictionary[Any, _Inodes] = weakref.WeakKeyDictionary()
_verified_lock = threading.Lock()
_MAX_VERIFIED: Final = 4096  # inodes; forgetting one costs a second verification, nothing else


def _verify_once(
    store: Store, key: str, file: FileRecord, tensors: Mapping[str, TensorRecord]
) -> None:
    """Verify the ranges of a linked file that were not verified through this store yet."""
    stat = store.stat(key)
    if stat is None:
        raise MissingObjectError(f"{key} vanished while it was linked", context={"key": key})
    seen = _seen(store, stat)
    new = [name for name, t in tensors.items() if (t.offset, t.digest) not in seen]
    if new:
        verify_file(store.map(key), file, tensors, names=new)
        with _verified_lock:
            seen.update((tensors[name].offset, tensors[name].digest) for name in new)


def _seen(store: Store, stat: KeyStat) -> set[tuple[int, str]]:
    version = stat.size_bytes, stat.mtime_ns
    with _verified_lock:
        inodes = _verified.setdefault(store, {})
        found = inodes.get((stat.device, stat.inode))
        if found is None or found[0] != version:
            while len(inodes) >= _MAX_VERIFIED:
                inodes.pop(next(iter(inodes)))
            found = inodes[stat.device, stat.inode] = (version, set())
    return found[1]
